# frozen_string_literal: true

# Calls the whole public API with random ids and arguments, and checks the results. FUZZ_SEED repeats the cases of a
# run; with several threads, not at the same moments.
#
# Each thread of a stress run also has users of its own, whose ids are good Hash keys, and keeps a Hash of which of them
# are online. The manager must agree with that Hash.

require "rspec/expectations"
require "eventmachine"
require "async"
require "online_manager"
require_relative "../journal"
require_relative "../progress"
require_relative "fuzz/judge"
require_relative "fuzz/values"
require_relative "fuzz/config"
require_relative "fuzz/lifecycle"
require_relative "fuzz/worker"

# The fuzzer.
module Fuzz
  SEED = Integer(ENV.fetch("FUZZ_SEED"))
  CASES = Integer(ENV.fetch("FUZZ_CASES"))

  # The stress runs. Each has its own manager: the reactor, and the number of threads.
  STRESS_RUNS = %i[thread eventmachine fiber].product([1, 4])
  # The maximum number of cases in one run, since the journal is kept until its end.
  MAX_CASES = 20_000

  class << self
    def run
      Actions.check_coverage
      rounds = CASES.fdiv(STRESS_RUNS.size * MAX_CASES).ceil
      runs = STRESS_RUNS * rounds
      each = CASES.fdiv(runs.size).ceil
      runs.each_with_index do |(reactor, threads), index|
        Progress.at(index, runs.size)
        stress(reactor, threads, (index * each)...((index + 1) * each))
      end
      puts "#{runs.size * each} cases, #{Judge.exceptions.sum { |_, times| times }} exceptions"
    end

    private

    def stress(reactor, threads, cases)
      config = Config.new
      manager = OnlineManager.new(config, reactor:, namespace: "stress")
      in_reactor(reactor) do |stop|
        manager.setup
        config.manager = manager
        Thread.new do
          workers = Array.new(threads) { |number| Worker.new(manager, config, cases, number, threads) }
          workers.map { |worker| Thread.new { worker.run } }.each(&:join)
          check(config, workers)
          stop.call
        rescue Exception => e # rubocop:disable Lint/RescueException -- reported, whatever it is
          Judge.fail("at the end of the #{reactor} stress of #{cases}", e)
        end
      end
      config.check_end(manager)
    end

    # Runs the block in the reactor. Returns when the reactor has ended by itself or by the Proc that the block is
    # given.
    def in_reactor(reactor)
      case reactor
      when :thread then yield(-> { OnlineManager.current("stress").stop }).join
      when :eventmachine then EM.run { yield(-> { EM.schedule { EM.stop } }) }
      when :fiber
        Async do
          done = Thread::Queue.new
          yield(-> { done << true })
          done.pop
        end.wait
      end
    end

    # After a run the manager, each worker's Hash and the journal must agree, as soon as the users with timeouts of
    # milliseconds are offline.
    def check(config, workers)
      workers.each(&:settle)
      config.calm_down
      model = workers.map(&:model).reduce(:merge).select { |_, state| state == :online }.keys
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 30
      begin
        complaints = config.complaints(model)
        raise complaints.join("\n") unless complaints.empty?
      rescue RuntimeError, RSpec::Expectations::ExpectationNotMetError
        raise if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

        sleep 0.01
        retry
      end
    end
  end
end
