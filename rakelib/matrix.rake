# frozen_string_literal: true

# SPECS=… selects specs. MATRIX_ROOT=… holds a folder for each Debian, which is installed if missing.
desc "Run the specs in each Ruby (or in one place: matrix[here], matrix[trixie], matrix[forky], matrix[forky-3.4])"
task :matrix, [:place] do |_, names|
  require "ruby-progressbar"
  require_relative "matrix/suite"

  places = [Matrix::Here.new, *Matrix::Debian.all(ENV.fetch("MATRIX_ROOT", Matrix::FOLDER))]
  chosen = names.to_a.empty? ? places : places.select { |place| names.to_a.include?(place.name) }
  abort "There are #{places.map(&:name).join(", ")}" if chosen.size < names.to_a.size

  mkdir_p Matrix::FOLDER, verbose: false
  bar = ProgressBar.create(total: chosen.size * Matrix::Suite::STEPS.values.sum, format: "%t |%B| %p %% %a",
                           output: $stderr)
  results = chosen.map do |place|
    Matrix::Suite.new(place, ENV.fetch("SPECS", "").split(/[\s,]+/), bar).run
  rescue Matrix::Error => e
    abort "\n#{e.message}"
  end

  puts "", Matrix::Result.table(results)
  failed = results.reject { |result| result.failures.zero? }
  failed.each do |result|
    puts "", "failed in #{result.place}, see #{Matrix::FOLDER}/#{result.place}.log:", result.failed
  end
  exit 1 unless failed.empty?
end
