# frozen_string_literal: true

module Bench
  # A contender in its own process, which knows some users and is timed with their heartbeats.
  class TimedContender
    # @param contender [Contender]
    # @param ids [Array] the users. Their heartbeats come in random order, always the same
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
