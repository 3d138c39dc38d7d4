# frozen_string_literal: true

module Bench
  # Measures how long a heartbeat is stalled by other work in the process: threads that send heartbeats, and one that
  # only computes.
  class Stall
    # Seconds between two heartbeats of `every_millisecond`.
    INTERVAL = 0.001

    # @param background [Array<Symbol>] methods to run, each on its own thread
    # @param heartbeat [Proc]
    def initialize(background, heartbeat)
      @heartbeat = heartbeat
      @longest = 0
      @is_measured = background.any? { |method| method != :busy }
      @threads = background.map { |method| Thread.new { method(method).call } }
    end

    # @yield the work that may stall heartbeats
    # @return [Integer, nil] the longest stall in nanoseconds; nil if no thread sends heartbeats
    def during
      @longest = 0
      yield
      # A heartbeat that began during the block may not have ended.
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
