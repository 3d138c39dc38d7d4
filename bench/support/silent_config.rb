# frozen_string_literal: true

module Bench
  # A config that does nothing at a transition. Its `setup` answers the block, to be yielded to later.
  class SilentConfig
    attr_accessor :timeout

    # @param timeout [Numeric] seconds
    def initialize(timeout)
      @timeout = timeout
    end

    def setup(&heartbeat) = heartbeat

    def online(_user_id); end

    def offline(_user_id); end
  end
end
