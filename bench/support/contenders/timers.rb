# frozen_string_literal: true

require "eventmachine"
require_relative "../contender"

module Bench
  # The mechanism of version 0.0.3, reimplemented: one reactor timer per heartbeat, which sets the user offline unless a
  # later heartbeat has come.
  #
  # EventMachine allows 100,000 outstanding timers and ends the process at one more. TIMERS raises that limit.
  class Timers < Contender
    TIMERS = 20_000_000

    # @param timeout [Numeric] seconds
    def initialize(timeout = 3_600)
      super()
      @timeout = timeout
      @latest = {}
      EM.set_max_timers(TIMERS)
      running = Thread::Queue.new
      Thread.new { EM.run { running << true } }
      running.pop
    end

    def prepare(ids)
      on_reactor { send_heartbeats(ids) }
    end

    def time(ids, passes)
      on_reactor { super }
    end

    # Timers may only be added on the reactor's thread.
    def time_threads(ids, passes, threads)
      Bench.time do
        Heartbeats.time_threads(ids, threads) do |part|
          Heartbeats.through(part, passes) { |id| EM.schedule { heartbeat(id) } }
        end
        on_reactor {} # rubocop:disable Lint/EmptyBlock -- it runs after everything scheduled before
      end
    end

    def send_heartbeats(ids, passes = 1)
      Heartbeats.through(ids, passes) { |id| heartbeat(id) }
    end

    private

    def heartbeat(id)
      number = (@latest[id] || 0) + 1
      @latest[id] = number
      EM.add_timer(@timeout) { @latest.delete(id) if @latest[id] == number }
    end

    def on_reactor
      answer = Thread::Queue.new
      EM.schedule { answer << yield }
      answer.pop
    end
  end
end
