# frozen_string_literal: true

module Bench
  # A config whose callbacks do nothing. Its `setup` returns the block, so the caller can yield to it later.
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
