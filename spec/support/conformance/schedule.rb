# frozen_string_literal: true

module Conformance
  # Random heartbeats, none of them close to a deadline, so that the correct transitions are certain.
  class Schedule
    # The minimum time between a heartbeat and any deadline of its user, and between a heartbeat and the timeout's
    # change. Seconds.
    MARGIN = 0.15
    MARGIN_OF_CHANGE = 0.07
    # A run of the schedule may be late by this many seconds without a different outcome.
    TOLERANCE = 0.05
    # The heartbeats come within this many seconds.
    LENGTH = 1.6

    # Ids that are easily confused.
    IDS = [1, "1", :"1", 1.0, [1], ["1"], nil, false, "", "grüße", "grüße".b, 2**70].freeze

    # A heartbeat: its time in seconds, its user, and whether `online` raises if it is called.
    Heartbeat = Struct.new(:at, :id, :raises)

    # @return [Array<Heartbeat>] ordered by time
    attr_reader :heartbeats

    # @return [Array] the users whose `offline` raises
    attr_reader :bad

    # @param random [Random]
    def initialize(random)
      @random = random
      # The timeout changes once, at `@change`.
      @timeouts = Array.new(2) { random.rand(0.2..0.4) }
      @change = random.rand(0.5..1.2)
      ids = IDS.sample(6, random:)
      @bad = ids.sample(1, random:)
      @heartbeats = ids.flat_map { |id| heartbeats_of(id) }.sort_by(&:at)
    end

    # @return [Float] the timeout of a heartbeat at that time
    def timeout(at) = @timeouts[at < @change ? 0 : 1]

    # @return [Float] the time at which everybody is offline
    def ending = LENGTH + @timeouts.max + MARGIN

    private

    def heartbeats_of(id)
      at = @random.rand(0.05..0.4)
      heartbeats = []
      while at < LENGTH
        heartbeats << Heartbeat.new(at, id, @random.rand < 0.2)
        at = following(at)
      end
      heartbeats
    end

    # @return [Float] the time of the next heartbeat
    def following(at)
      loop do
        following = at + gap(timeout(at))
        return following if (following - @change).abs > MARGIN_OF_CHANGE
      end
    end

    # @return [Float] seconds to the next heartbeat: before the deadline, or long after it
    def gap(timeout)
      if @random.rand < 0.7
        @random.rand(0.01..(timeout - MARGIN))
      else
        timeout + MARGIN + @random.rand(0.03..0.3)
      end
    end
  end
end
