# frozen_string_literal: true

module Conformance
  # Heartbeats at random, none of them near a deadline: whoever goes by them knows what must come of it.
  class Schedule
    # Seconds between a heartbeat and any deadline of its user, and between one and the change of the timeout.
    MARGIN = 0.15
    MARGIN_OF_CHANGE = 0.07
    # Seconds that whoever goes by it may be late without a difference.
    TOLERANCE = 0.05
    # Seconds in which the heartbeats come.
    LENGTH = 1.6

    # Ids that are easily mistaken for each other.
    IDS = [1, "1", :"1", 1.0, [1], ["1"], nil, false, "", "grüße", "grüße".b, 2**70].freeze

    # A heartbeat: when, whose, and whether `online` raises if it is called.
    Heartbeat = Struct.new(:at, :id, :raises)

    # @return [Array<Beat>] in the order of time
    attr_reader :heartbeats

    # @return [Array] whose `offline` raises
    attr_reader :bad

    # @param random [Random]
    def initialize(random)
      @random = random
      # One timeout, then another.
      @timeouts = Array.new(2) { random.rand(0.2..0.4) }
      @change = random.rand(0.5..1.2)
      ids = IDS.sample(6, random:)
      @bad = ids.sample(1, random:)
      @heartbeats = ids.flat_map { |id| heartbeats_of(id) }.sort_by(&:at)
    end

    # @return [Float] the timeout for a heartbeat at that time
    def timeout(at) = @timeouts[at < @change ? 0 : 1]

    # @return [Float] when everybody is offline
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

    # @return [Float] when the next heartbeat comes
    def following(at)
      loop do
        following = at + gap(timeout(at))
        return following if (following - @change).abs > MARGIN_OF_CHANGE
      end
    end

    # @return [Float] seconds to the next heartbeat: in time, or long after the deadline
    def gap(timeout)
      if @random.rand < 0.7
        @random.rand(0.01..(timeout - MARGIN))
      else
        timeout + MARGIN + @random.rand(0.03..0.3)
      end
    end
  end
end
