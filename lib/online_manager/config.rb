# frozen_string_literal: true

require_relative "seconds"

class OnlineManager
  # The application's config object: loads it when it is first needed, reloads it, and knows which methods it has. It
  # asks that once for each object, as it is loaded, where an exception reaches the application: on the reactor it would
  # end the reactor, again and again.
  #
  # @private
  class Config
    REQUIRED = %i[timeout setup online offline].freeze
    OPTIONAL = %i[online_all offline_all on_error last_version].freeze

    MODULE_NAME = ::Module.instance_method(:name)
    private_constant :MODULE_NAME

    # @param source [Object] the config object; a String, which names its class or a constant that holds it; or a Proc
    #   that returns it
    def initialize(source)
      @source = source
    end

    # @return [Boolean] whether the object is loaded when it is needed, by name or by a Proc
    def lazy? = @source.is_a?(String) || @source.is_a?(Proc)

    # Makes {#object} load the object again, after a code reload, and set it up if the one before was.
    def invalidate
      @stale = lazy? && !@object.nil?
    end

    # Checks everything that can be checked without calling `setup`.
    #
    # @param store [StoreOption]
    # @return [Integer, nil] the timeout in nanoseconds; nil if there is none yet
    # @raise [ArgumentError] if a method is missing or not public, or the timeout is not a positive number, or too short
    #   for the store
    # @raise [TypeError] if the timeout is of a class that Kernel#Float does not take
    def check(store)
      check_visibility(object)
      missing = REQUIRED - @keywords.keys
      unless missing.empty?
        raise ArgumentError, "#{name} has no method #{missing.map { |method| "`#{method}'" }.join(", ")}; " \
                             "a config needs #{REQUIRED.join(", ")}"
      end
      check_timeout(store)
    end

    # @return [Integer] the current timeout, in nanoseconds
    # @raise [ArgumentError, TypeError] if it is not a positive number
    # @raise what the config's `timeout` raises
    def timeout
      Seconds.nanoseconds(object.timeout, "#{name}#timeout")
    end

    # Calls the config's `setup`.
    #
    # @param on_reload [Boolean] whether to call `setup` of a reloaded config too, with the same block
    # @return [Object] what it returned
    # @raise [Error] if it names EventMachine, which is not loaded
    # @raise what it raises
    def setup(on_reload:, &heartbeat)
      @heartbeat = heartbeat if on_reload
      object.setup(&heartbeat)
    rescue NameError => e
      raise unless event_machine_missing?(e)

      # Version 0.0.3 required eventmachine itself, so a config that was written for it does not.
      raise Error, "#{name} uses EventMachine, which is not loaded: " \
                   "add `gem \"eventmachine\"` to your Gemfile beside online_manager, and require it"
    end

    def on_error(exception, user_id) = (@object || object).on_error(exception, user_id)

    def last_version? = method?(:last_version)

    # Calls the config's `last_version`.
    #
    # @param limit [Integer] what it has to be below
    # @return [Integer] 0 for nil
    # @raise [TypeError] if it is neither an Integer nor nil
    # @raise [ArgumentError] if it is negative, or not below the limit
    # @raise what the method raises
    def last_version(limit)
      version = object.last_version
      return 0 if version.nil?

      unless version.is_a?(Integer)
        raise TypeError, "#{name}#last_version must return an Integer or nil, got #{version.inspect}"
      end
      return version if version >= 0 && version < limit

      raise ArgumentError, "#{name}#last_version must return a version from 0 to #{limit - 1}, got #{version}; " \
                           "return the highest one that a callback has got, or nil"
    end

    def online_all? = method?(:online_all)
    def offline_all? = method?(:offline_all)
    def on_error? = method?(:on_error)

    # @param transition [Symbol] :online or :offline
    # @return [Boolean] whether the config has the `_all` form of that callback
    def batch?(transition) = transition == :online ? online_all? : offline_all?

    # @param method [Symbol] a callback
    # @param name [Symbol] :version or :last_seen
    # @return [Boolean] whether the method declares the keyword
    def keyword?(method, name)
      object unless @object
      @keywords.fetch(method, []).include?(name)
    end

    # @param method [Symbol] a callback
    # @return [Boolean] whether the next call of the method may be one with `last_seen:`; a reload may change that
    def dated?(method) = @stale || keyword?(method, :last_seen)

    # Calls nothing of the application: a Proc is not resolved for its name.
    #
    # @return [String] the config's name in messages: the given name, or its class
    def name
      return @source if @source.is_a?(String)
      return @source.inspect if @source.is_a?(Proc) && !@object

      object unless @object
      @name
    end

    # @return [Object] the application's object; loaded, or reloaded after {#invalidate}
    # @raise [Unloadable] if its code cannot be reloaded
    def object
      return @object if @object && !@stale

      @object ? reload_object : adopt(load_object)
    end

    private

    # Asks the object which methods it has, and uses it from now on.
    def adopt(object)
      keywords = (REQUIRED + OPTIONAL).select { |name| object.respond_to?(name) }
                                      .to_h { |name| [name, keywords(method_of(object, name))] }
      @name = name_of(object)
      @keywords = keywords
      @object = object
    end

    # @return [String] its own name if it is a class or a module, else its class's. Such a class may have a `name` of
    #   its own, which is something else.
    def name_of(object)
      named = ::Module === object ? object : object.class # rubocop:disable Style/CaseEquality
      MODULE_NAME.bind_call(named) || named.inspect
    end

    # Whether the object that was loaded last has the method. A stale one is not loaded again for that.
    def method?(name)
      object unless @object
      @keywords.key?(name)
    end

    # @return [Method, nil] also of an object that has its own `method`, such as a Struct with that member; nil if it
    #   answers to the name by `method_missing`, and says so in `respond_to?` only
    def method_of(object, name)
      # A proxy that is no Kernel answers for the object behind it.
      ::Kernel === object ? ::Kernel.instance_method(:method).bind_call(object, name) : object.method(name) # rubocop:disable Style/CaseEquality
    rescue NameError
      nil
    end

    # @return [Array<Symbol>] the keywords that a method declares. One with `**` is a wrapper (a prepended module, a
    #   subclass) and gets what the method declares that its `super` calls. Not every keyword: it may pass them on to a
    #   method that takes none.
    def keywords(method)
      return [] unless method

      parameters = method.parameters
      names = parameters.filter_map { |kind, keyword| keyword if %i[key keyreq].include?(kind) }
      wrapped = method.super_method if parameters.any? { |kind, _| kind == :keyrest }
      wrapped ? names | keywords(wrapped) : names
    end

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
      check_visibility(found)
      found.setup(&@heartbeat) if @heartbeat
      adopt(found)
    rescue StandardError, ScriptError => e
      @stale = true
      raise Unloadable, "#{name} cannot be loaded: #{e.message}"
    end

    # An optional method that is not public would be taken for one that is not there.
    def check_visibility(object)
      hidden = (REQUIRED + OPTIONAL) & (object.private_methods + object.protected_methods)
      # What a script defines at its top, or includes there, is a private method of every object.
      hidden = hidden.find { |method| !::Object.ancestors.include?(method_of(object, method).owner) }
      return unless hidden

      raise ArgumentError, "#{name}##{hidden} is not public, so it cannot be called: make it public, or rename it if " \
                           "it is not for online_manager"
    end

    # Ignores a timeout that is nil or raises: `setup` may set it. The first heartbeat asks again.
    def check_timeout(store)
      value = begin
        object.timeout
      rescue StandardError, NotImplementedError
        nil
      end
      store.timeout(value, "#{name}#timeout") unless value.nil?
    end

    def event_machine_missing?(error)
      !error.is_a?(NoMethodError) && %i[EM EventMachine].include?(error.name) && !defined?(::EventMachine)
    end
  end
end
