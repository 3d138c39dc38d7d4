# frozen_string_literal: true

require_relative "silent_config"

module Bench
  # A config that records when each user is set offline.
  class DepartureConfig < SilentConfig
    attr_reader :departures

    def initialize(timeout)
      super
      @departures = {}
    end

    def online_all(_user_ids); end

    def offline(user_id)
      @departures[user_id] = Bench.now
    end
  end
end
