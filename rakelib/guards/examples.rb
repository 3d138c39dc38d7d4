# frozen_string_literal: true

require "fileutils"
require "json"

module Guards
  # Runs examples, of RSpec and of cargo, and returns how each of them ended.
  class Examples
    # How an example ended: :passed, :failed, or :missing if it did not run; and the failure's message.
    Ending = Struct.new(:state, :says)
    MISSING = Ending.new(:missing, "there is no such example, or it was not run").freeze

    # How long one example may run, in seconds. A few take tens of seconds before they fail with their message.
    LIMIT = 150

    # These tests of the tracker are built with shuttle's locks and threads.
    FEATURES = { "ext/tracker/tests/interleavings.rs" => %w[--features shuttle] }.freeze

    # @param copy [Copy]
    def initialize(copy)
      @copy = copy
    end

    # @param guards [Array<Guard>] the guards whose examples run
    # @param limit [Numeric] seconds
    # @return [Hash{Guard => Ending}]
    # @raise [Error] if the examples did not run to the end, for another reason than their own failure
    def run(guards, limit: LIMIT)
      cargo, rspec = guards.partition(&:cargo?)
      endings = cargo.group_by(&:spec).map { |spec, of_spec| run_cargo(spec, of_spec, limit) }
      endings << run_rspec(rspec, limit) unless rspec.empty?
      endings.reduce({}, :merge)
    end

    private

    def run_rspec(guards, limit)
      json = "#{Copy::ROOT}/examples.json"
      FileUtils.rm_f(json)
      names = guards.map(&:example).uniq.flat_map { |example| ["--example", example] }
      outcome = @copy.run("bundle", "exec", "rspec", "--format", "json", "--out", json, *names,
                          *guards.map(&:spec).uniq, limit:)
      raise Error, "timed out" if outcome == :timed_out
      raise Error, "RSpec ended without a word" unless File.size?(json)

      answer = JSON.parse(File.read(json))
      raise Error, "failed outside of the examples" if answer.dig("summary", "errors_outside_of_examples_count") != 0

      by_name = answer.fetch("examples").group_by { |example| example["full_description"] }
      guards.to_h { |guard| [guard, ending_in_rspec(by_name.fetch(guard.example, []))] }
    end

    # Several examples may have the same name.
    def ending_in_rspec(examples)
      failed = examples.find { |example| example["status"] == "failed" }
      return Ending.new(:failed, failed.dig("exception", "message")) if failed

      examples.any? { |example| example["status"] == "passed" } ? Ending.new(:passed) : MISSING
    end

    def run_cargo(spec, guards, limit)
      package = "online_manager_#{spec[%r{\Aext/(\w+)/}, 1]}"
      command = ["cargo", "test", "--locked", "--package", package, *FEATURES[spec], *target(spec)]
      raise Error, "does not build" if @copy.run(*command, "--no-run") != :ok

      names = guards.map(&:example).uniq
      raise Error, "timed out" if @copy.run(*command, "--", "--exact", *names, limit:) == :timed_out

      log = @copy.log
      guards.to_h { |guard| [guard, ending_in_cargo(log, guard.example)] }
    end

    # tests/rules and tests/model.rs are cargo targets; src/wheel.rs holds unit tests of the library.
    def target(spec)
      test = spec[%r{/tests/(\w+)}, 1]
      test ? ["--test", test] : ["--lib"]
    end

    def ending_in_cargo(log, name)
      case log[/^test #{Regexp.escape(name)}( - should panic)? \.\.\. (\w+)$/, 2]
      when "ok" then Ending.new(:passed)
      when "FAILED" then Ending.new(:failed, log.scan(/ panicked at .*\n(.*)/).flatten.last)
      else MISSING
      end
    end
  end
end
