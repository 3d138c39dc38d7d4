# frozen_string_literal: true

require_relative "outcome"

module Conformance
  # A block on a thread of its own. However it is left, by `exit` too, is kept for who asks, and bothers nobody else.
  class Background
    attr_reader :thread

    def initialize(&block)
      @thread = Thread.new { @outcome = Outcome.of(&block) }
    end

    def alive? = @thread.alive?

    # Waits for its end.
    #
    # @return what the block returned; nil if the thread was killed
    # @raise what the block raised
    def value(limit: 10)
      @thread.join(limit) or
        RSpec::Expectations.fail_with("still runs after #{limit} s:\n#{@thread.backtrace.join("\n")}")
      @outcome&.value
    end

    def kill = @thread.kill.join
  end
end
