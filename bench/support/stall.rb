# frozen_string_literal: true

module Bench
  # For how long a heartbeat is stalled by what else goes on in the process: threads that beat, and one that
  # is merely busy.
  class Stall
    # Seconds between two heartbeats, if not as many as there is time for.
    INTERVAL = 0.001

    # @param company [Array<Symbol>] methods to run, each on a thread
    # @param heartbeat [Proc]
    def initialize(background, heartbeat)
      @heartbeat = heartbeat
      @longest = 0
      @is_measured = background.any? { |method| method != :busy }
      @threads = background.map { |method| Thread.new { method(method).call } }
    end

    # @yield what may stall them
    # @return [Integer, nil] nanoseconds; nil if nobody beats
    def during
      @longest = 0
      yield
      # One that began meanwhile may not have ended.
      sleep 2 * INTERVAL
      @longest if @is_measured
    end

    def stop = @threads.each(&:kill)

    private

    def every_millisecond
      loop do
        before = Bench.now
        sleep INTERVAL
        @heartbeat.call(:somebody)
        note(Bench.now - before - (INTERVAL * 1e9).to_i)
      end
    end

    def continuously
      before = Bench.now
      loop do
        @heartbeat.call(:somebody)
        now = Bench.now
        note(now - before)
        before = now
      end
    end

    def busy
      loop {} # rubocop:disable Lint/EmptyBlock -- busy with nothing
    end

    def note(stall)
      @longest = stall if stall > @longest
    end
  end
end
