# frozen_string_literal: true

desc "Remove each line in spec/guards, and check that its example fails (GUARD=… selects by name)"
task :guards do
  require "ruby-progressbar"
  require_relative "guards/trial"

  guards = Guards::Guard.all.select { |guard| guard.name.include?(ENV.fetch("GUARD", "")) }
  abort "There is no such guard" if guards.empty?
  faults = guards.filter_map { |guard| (fault = guard.fault) && "#{guard.name}: #{fault}" }
  abort faults.join("\n\n") unless faults.empty?

  bar = ProgressBar.create(total: guards.size + 1, format: "%c/%C |%B| %e %t", title: "", output: $stderr)
  results = Guards::Copy.open do |copy|
    trial = Guards::Trial.new(copy, guards)
    bar.title = "with every guard in its place"
    trial.check
    trial.run do |guard|
      bar.increment
      bar.title = guard.name
    end
  rescue Guards::Error => e
    bar.stop
    abort e.message
  end
  bar.finish

  puts "", "result      seconds  guard, and the example that misses it"
  results.each do |result|
    puts "#{result.outcome.ljust(10)} #{result.seconds.round(1).to_s.rjust(8)}  #{result.guard.name}",
         "#{" " * 21}#{result.guard.spec}: #{result.guard.example}"
    says = result.says.to_s.strip
    puts result.missed? ? "#{" " * 21}#{says.split.join(" ")[0, 100]}" : says[-3_000..] || says
  end
  remaining = results.reject(&:missed?)
  puts "", "#{results.size - remaining.size} of #{results.size} guards are missed"
  exit 1 unless remaining.empty?
end
