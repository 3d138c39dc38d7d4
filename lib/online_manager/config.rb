# frozen_string_literal: true

require_relative "seconds"

class OnlineManager
  # The user's config object, found when it is first needed, and what it can do.
  #
  # @private
  class Config
    REQUIRED = %i[timeout setup online offline].freeze

    # @param source [Object] the config object, or a String (the name of its class, or of a constant that
    #   holds it) or a Proc that answers it
    def initialize(source)
      @source = source
    end

    # @return [Boolean] whether the config is not given itself, but found when it is needed
    def lazy? = @source.is_a?(String) || @source.is_a?(Proc)

    # The application's code has been loaded anew: the config is found again when it is next needed, and set up, if the
    # one before was.
    def invalidate
      @stale = lazy? && !@object.nil?
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

    # @param on_reload [Boolean] whether a config that is found anew is to be set up as well
    def setup(on_reload:, &heartbeat)
      @heartbeat = heartbeat if on_reload
      object.setup(&heartbeat)
    rescue NameError => e
      raise unless event_machine_missing?(e)

      # 0.0.3 required it itself, so a config from then does not.
      raise Error, "#{name} uses EventMachine, which is not loaded: " \
                   "add `gem \"eventmachine\"` to your Gemfile beside online_manager, and require it"
    end

    def on_error(exception, user_id) = last_object.on_error(exception, user_id)

    def online_all? = last_object.respond_to?(:online_all)
    def offline_all? = last_object.respond_to?(:offline_all)
    def on_error? = last_object.respond_to?(:on_error)

    # @param transition [Symbol] :online or :offline
    # @return [Boolean] whether the config takes several users at once for it
    def batch?(transition) = transition == :online ? online_all? : offline_all?

    # @param method [Symbol] a callback
    # @return [Boolean] whether it declares the keyword `version:`
    def version?(method)
      (@versioned ||= {}).fetch(method) do
        parameters = last_object.method(method).parameters
        @versioned[method] = parameters.include?(%i[key version]) || parameters.include?(%i[keyreq version])
      end
    end

    # @return [String] what to call the config in a message
    def name
      return @source if @source.is_a?(String)

      last_object.is_a?(Module) ? last_object.inspect : last_object.class.inspect
    end

    # @return [Object] the user's object
    # @raise [Unloadable] if its code cannot be loaded
    def object
      return @object if @object && !@stale

      @object ? reload_object : @object = load_object
    end

    private

    # The user's object as it was last found, which is enough to ask what it can do.
    def last_object = @object || object

    def load_object
      case @source
      when String then Object.const_get(@source).then { |found| found.is_a?(Class) ? found.new : found }
      when Proc then @source.call
      else @source
      end
    end

    def reload_object
      @stale = false
      found = load_object
      found.setup(&@heartbeat) if @heartbeat
      @versioned = nil
      @object = found
    rescue StandardError, ScriptError => e
      @stale = true
      raise Unloadable, "#{name} cannot be loaded: #{e.message}"
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

    def event_machine_missing?(error)
      !error.is_a?(NoMethodError) && %i[EM EventMachine].include?(error.name) && !defined?(::EventMachine)
    end
  end
end
