# frozen_string_literal: true

require_relative "outcome"

module Conformance
  # Runs a block on its own thread. Keeps how the block ended, by `exit` too, for {#value}; it affects no other thread.
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
