# frozen_string_literal: true

require_relative "seconds"

class OnlineManager
  # The application's config object: loads it when it is first needed, reloads it, and knows which methods it has. It
  # asks each time, since a config may get methods later, in its `setup` for example.
  #
  # @private
  class Config
    REQUIRED = %i[timeout setup online offline].freeze
    OPTIONAL = %i[online_all offline_all on_error last_version].freeze

    # A reload has taken a method away that was about to be called: the claim is taken back, and made again.
    #
    # @private
    class Changed < StandardError; end

    OWN_CLASS = ::Kernel.instance_method(:class)
    OWN_METHOD = ::Kernel.instance_method(:method)
    MODULE_NAME = ::Module.instance_method(:name)
    private_constant :OWN_CLASS, :OWN_METHOD, :MODULE_NAME

    # @param source [Object] the config object; a String, which names its class or a constant that holds it; or a Proc
    #   that returns it
    def initialize(source)
      @source = source
      @answers = {}
      @mute = {}
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
      # All of them, so that there is an answer to go by if the config does not answer later.
      missing = REQUIRED - (REQUIRED + OPTIONAL).select { |name| @answers[name] = object.respond_to?(name) }
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

    def on_error(exception, user_id) = last_object.on_error(exception, user_id)

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

    # Whether the object that was loaded last has the method. If it raises instead of an answer, the last answer counts:
    # on the reactor nobody could handle that. It is reported once, until there is an answer again.
    #
    # @param name [Symbol]
    # @raise what it raises, if there is no answer yet
    def method?(name)
      answer = last_object.respond_to?(name)
      @mute.delete(name)
      @answers[name] = answer
    rescue StandardError, ScriptError => e
      raise unless @answers.key?(name)

      report_mute(e, name)
      @answers[name]
    end

    # @param transition [Symbol] :online or :offline
    # @return [Boolean] whether the config has the `_all` form of that callback
    def batch?(transition) = transition == :online ? online_all? : offline_all?

    # @param method [Symbol] a callback
    # @param name [Symbol] :version or :last_seen
    # @return [Boolean] whether the method declares the keyword
    def keyword?(method, name)
      (@keywords ||= {}).fetch(method) { @keywords[method] = keywords(method_of(last_object, method)) }.include?(name)
    end

    # @param method [Symbol] a callback
    # @return [Boolean] whether the next call of the method may be one with `last_seen:`; a reload may change that
    def dated?(method) = @stale || (method?(method) && keyword?(method, :last_seen))

    # Calls nothing of the application: a Proc is not resolved for its name.
    #
    # @return [String] the config's name in messages: the given name, or its class
    def name
      return @source if @source.is_a?(String)
      return @source.inspect if @source.is_a?(Proc) && !@object

      # Ruby's own methods: the config may have others of these names.
      named = kernel?(last_object) ? OWN_CLASS.bind_call(last_object) : last_object.class
      named = last_object if named <= ::Module
      MODULE_NAME.bind_call(named) || named.inspect
    end

    # @return [Object] the application's object; loaded, or reloaded after {#invalidate}
    # @raise [Unloadable] if its code cannot be reloaded
    def object
      return @object if @object && !@stale

      @object ? reload_object : @object = load_object
    end

    private

    # @return [Boolean] whether it is an object with Ruby's own methods; a proxy need not be
    def kernel?(object) = ::Kernel === object # rubocop:disable Style/CaseEquality

    # @return [Method, nil] also of an object that has its own `method`, such as a Struct with that member; nil if it
    #   answers to the name by `method_missing` alone
    def method_of(object, name)
      # A proxy that is no Kernel answers for the object behind it.
      kernel?(object) ? OWN_METHOD.bind_call(object, name) : object.method(name)
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

    # The object that was loaded last. Good enough to ask which methods it has, and loads no code.
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
      before = @object
      found = load_object
      check_visibility(found)
      # Before its `setup`, which may send heartbeats.
      @keywords = nil
      @object = found
      found.setup(&@heartbeat) if @heartbeat
      found
    rescue StandardError, ScriptError => e
      @object = before
      @stale = true
      raise Unloadable, "#{name} cannot be loaded: #{e.message}"
    end

    # An optional method that is not public would be taken for one that is not there.
    def check_visibility(object)
      hidden = (REQUIRED + OPTIONAL) & (object.private_methods + object.protected_methods)
      # What a script defines at its top, or includes there, is a private method of every object.
      hidden = hidden.find { |method| !::Object.ancestors.include?(method_of(object, method)&.owner) }
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

    def report_mute(error, name)
      return if @mute[name]

      @mute[name] = true
      Integration.current.report(error, "#{self.name}#respond_to?(:#{name}) raised; its last answer counts", nil)
    end

    def event_machine_missing?(error)
      !error.is_a?(NoMethodError) && %i[EM EventMachine].include?(error.name) && !defined?(::EventMachine)
    end
  end
end
