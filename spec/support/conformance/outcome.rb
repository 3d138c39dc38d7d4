# frozen_string_literal: true

module Conformance
  # How a block ended: what it returned or raised. Carries it to another thread.
  class Outcome
    def self.of
      new(yield, nil)
    rescue Exception => e # rubocop:disable Lint/RescueException -- kept, not swallowed
      new(nil, e)
    end

    def initialize(value, error)
      @value = value
      @error = error
    end

    # @return what the block returned
    # @raise what it raised
    def value
      raise @error if @error

      @value
    end
  end
end
