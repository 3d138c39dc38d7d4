# frozen_string_literal: true

require_relative "reactor"
require_relative "store_option"

class OnlineManager
  # The options of a manager, checked.
  #
  # @private
  class Options
    NAMES = %i[reactor store namespace max_sessions].freeze

    # Rule S16. A million tabs are no user's.
    MAX_SESSIONS = (1..1_000_000)
    DEFAULT_MAX_SESSIONS = 100
    private_constant :MAX_SESSIONS, :DEFAULT_MAX_SESSIONS

    # @return [Symbol, nil] one of {Reactor::NAMES}; nil: the one that fits
    attr_reader :reactor
    # @return [StoreOption]
    attr_reader :store
    # @return [String, nil]
    attr_reader :namespace
    # @return [Integer] how many sessions a user may have
    attr_reader :max_sessions

    # @param given [Hash{Symbol => Object}]
    # @raise [ArgumentError] if an option, or its value, is not one of those that there are
    def initialize(given)
      check_names(given.keys)
      @reactor = check_reactor(given[:reactor])
      @store = StoreOption.new(given.fetch(:store, :memory))
      @namespace = StoreOption.check_namespace(given[:namespace])&.to_s
      @max_sessions = check_max_sessions(given.fetch(:max_sessions, DEFAULT_MAX_SESSIONS))
    end

    private

    def check_names(names)
      unknown = names - NAMES
      return if unknown.empty?

      shown = unknown.map { |name| StoreOption.shown(name) }.join(", ")
      raise ArgumentError, "unknown option #{shown}: expected #{list(NAMES)}"
    end

    def check_reactor(given)
      return given if given.nil? || Reactor::NAMES.include?(given)

      raise ArgumentError, "unknown reactor #{StoreOption.shown(given)}: expected #{list(Reactor::NAMES)}"
    end

    def check_max_sessions(given)
      return given if given.is_a?(Integer) && MAX_SESSIONS.cover?(given)

      raise ArgumentError, "max_sessions must be an Integer from #{MAX_SESSIONS.min} to #{MAX_SESSIONS.max}, got " \
                           "#{StoreOption.shown(given)}"
    end

    # @return [String] such as ":a, :b or :c"
    def list(choices)
      *rest, last = choices.map(&:inspect)
      "#{rest.join(", ")} or #{last}"
    end
  end
end
