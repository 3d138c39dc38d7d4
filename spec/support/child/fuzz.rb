# frozen_string_literal: true

# Throws random ids and arguments at the whole public API, and looks at what comes of it. Any case comes again with the
# same FUZZ_SEED; with several threads, not at the same moment.
#
# A manager is not only stormed: each thread of a storm has users of its own, of ids that make good keys of a Hash, and
# keeps a Hash of who of them is online. What the manager says of them must be what the Hash says.

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

# The whole of it.
module Fuzz
  SEED = Integer(ENV.fetch("FUZZ_SEED"))
  CASES = Integer(ENV.fetch("FUZZ_CASES"))

  # Each is a manager's life: the reactor, and how many threads.
  STRESS_RUNS = %i[thread eventmachine fiber].product([1, 4])
  # Of so many cases at most, since the journal is kept until the end.
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
        rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, it has to be seen
          Judge.fail("at the end of the #{reactor} stress of #{cases}", e)
        end
      end
      config.check_end(manager)
    end

    # Calls the block in the reactor, and returns when it has ended by itself or by what the block is given.
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

    # After the storm: the manager, the Hash of each worker and the journal say the same, as soon as those have left who
    # were here for some milliseconds.
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
