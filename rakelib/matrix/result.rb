# frozen_string_literal: true

require "bundler"
require "json"

module Matrix
  # The result of the specs in one place: versions by name; the numbers of examples and of failures; seconds; and the
  # examples that failed.
  Result = Struct.new(:place, :versions, :examples, :failures, :seconds, :failed, keyword_init: true) do
    # @param place [Here, Debian]
    # @param json [String] the file that RSpec wrote
    # @param seconds [Integer]
    # @return [Result]
    def self.of(place, json, seconds)
      answer = JSON.parse(File.read(json))
      counts = answer.fetch("summary")
      failed = answer.fetch("examples").select { |example| example.fetch("status") == "failed" }
      new(place: place.name, versions: versions(place), seconds:, examples: counts.fetch("example_count"),
          failures: counts.fetch("failure_count") + counts.fetch("errors_outside_of_examples_count"),
          failed: failed.map { |example| example.values_at("file_path", "line_number", "full_description").join(" ") })
    end

    # @return [Array<String>] the versions of Ruby, Rails, EventMachine and async
    def self.versions(place)
      locks = ["Gemfile.lock", "examples/rails/Gemfile.lock"].map { |path| File.read(File.join(place.root, path)) }
      gems = locks.flat_map { |lock| Bundler::LockfileParser.new(lock).specs }
      names = %w[railties eventmachine async]
      [ruby_version(place), *names.map { |name| gems.find { |gem| gem.name == name }.version.to_s }]
    end

    def self.ruby_version(place)
      IO.pipe do |reader, writer|
        pid = place.spawn("ruby", "--disable-gems", "-e", "print RUBY_VERSION", out: writer)
        writer.close
        Process.wait(pid)
        reader.read
      end
    end

    private_class_method :versions, :ruby_version

    # @param results [Array<Result>]
    # @return [Array<String>] the lines of a table
    def self.table(results)
      rows = [%w[where Ruby Rails EventMachine async examples failures seconds]]
      rows += results.map do |result|
        [result.place, *result.versions, result.examples, result.failures, result.seconds].map(&:to_s)
      end
      widths = rows.transpose.map { |column| column.map(&:size).max }
      rows.map { |row| row.zip(widths).map { |cell, width| cell.ljust(width) }.join("  ").rstrip }
    end
  end
end
