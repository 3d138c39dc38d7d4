# frozen_string_literal: true

module Bench
  # A contender, in a process of its own, that knows users and is to be timed with their heartbeats.
  class TimedContender
    # @param contender [Contender]
    # @param ids [Array] whose heartbeats come in random order, always the same
    def initialize(contender, ids)
      @contender = contender
      @contender.prepare(ids)
      @heartbeats = Ids.as_they_come(ids)
      GC.start
    end

    def close
      @contender.close
      nil
    end
  end
end
