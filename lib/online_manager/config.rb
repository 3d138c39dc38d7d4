# frozen_string_literal: true

require_relative "seconds"

class OnlineManager
  # The user's config object, found when it is first needed, and what it can do.
  class Config
    REQUIRED = %i[timeout setup online offline].freeze

    # @param source [Object] the config object, or a String (the name of its class, or of a constant that
    #   holds it) or a Proc that answers it
    def initialize(source)
      @source = source
    end

    # Checks everything that can be checked without calling `setup`.
    #
    # @raise [ArgumentError] if a method is missing, or the timeout is not a positive number
    # @raise [TypeError] if the timeout is of a kind that is no number
    def check
      missing = REQUIRED.reject { |name| object.respond_to?(name) }
      unless missing.empty?
        raise ArgumentError, "#{name} has no method #{missing.map { |method| "`#{method}'" }.join(", ")}; " \
                             "a config needs #{REQUIRED.join(", ")}"
      end
      check_timeout
    end

    # @return [Integer] the timeout at this moment, in nanoseconds
    # @raise [ArgumentError, TypeError] if it is not a positive number; and what `timeout` itself raises
    def timeout
      Seconds.nanoseconds(object.timeout, "#{name}#timeout")
    end

    def setup(&heartbeat)
      object.setup(&heartbeat)
    rescue NameError => e
      raise unless names_event_machine?(e)

      # 0.0.3 required it itself, so a config from then does not.
      raise Error, "#{name} uses EventMachine, which is not loaded: " \
                   "add `gem \"eventmachine\"` to your Gemfile beside online_manager, and require it"
    end

    def online(user_id) = object.online(user_id)
    def online_all(user_ids) = object.online_all(user_ids)
    def on_error(exception, user_id) = object.on_error(exception, user_id)

    def online_all? = object.respond_to?(:online_all)
    def offline_all? = object.respond_to?(:offline_all)
    def on_error? = object.respond_to?(:on_error)

    # @param transition [Symbol] :online or :offline
    # @return [Boolean] whether the config takes several users at once for it
    def together?(transition) = transition == :online ? online_all? : offline_all?

    # @param method [Symbol] a callback
    # @return [Boolean] whether it declares the keyword `version:`
    def version?(method)
      (@versioned ||= {}).fetch(method) do
        parameters = object.method(method).parameters
        @versioned[method] = parameters.include?(%i[key version]) || parameters.include?(%i[keyreq version])
      end
    end

    # @return [String] what to call the config in a message
    def name
      object.is_a?(Module) ? object.inspect : object.class.inspect
    end

    # @return [Object] the user's object
    def object
      @object ||= resolve
    end

    private

    def resolve
      case @source
      when String
        constant = Object.const_get(@source)
        constant.is_a?(Class) ? constant.new : constant
      when Proc then @source.call
      else @source
      end
    end

    # A timeout that is nil or raises now is not judged before the first heartbeat: `setup` may set it.
    def check_timeout
      value = begin
        object.timeout
      rescue StandardError, NotImplementedError
        nil
      end
      Seconds.nanoseconds(value, "#{name}#timeout") unless value.nil?
    end

    def names_event_machine?(error)
      !error.is_a?(NoMethodError) && %i[EM EventMachine].include?(error.name) && !defined?(::EventMachine)
    end
  end
end
