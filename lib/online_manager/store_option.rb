# frozen_string_literal: true

class OnlineManager
  # The option `store:`, checked and resolved. Shows no password.
  #
  # @private
  class StoreOption
    # The prefix of a file's path, which may be relative.
    SQLITE = "sqlite:"
    # What a version has to be below, so that others can follow: SQL has 63 bits for it, whether the store keeps it or
    # the application; the scripts of a Redis count in floating point, which is exact to 2**53.
    MAX_VERSIONS = { memory: 2**62, sqlite: 2**62, redis: 2**52 }.freeze

    # What a text with the URL of a store has in it, be it malformed.
    URL_IN_TEXT = %r{://|:\S*@|(?:redis|valkey)\w*:}ni

    # @param text [String, Symbol]
    # @return [Boolean] whether the text has a form in UTF-8, in which a store keeps names
    def self.utf8?(text)
      text.to_s.encode(Encoding::UTF_8).valid_encoding?
    rescue EncodingError
      false
    end

    # @param namespace [Object] the option `namespace`
    # @return [String, Symbol, nil] the same
    # @raise [ArgumentError] if it is none of these, or not valid in UTF-8
    def self.check_namespace(namespace)
      expected = if ![NilClass, String, Symbol].include?(namespace.class) then "a String or a Symbol"
                 elsif !utf8?(namespace) then "valid in UTF-8"
                 end
      return namespace unless expected

      raise ArgumentError, "namespace must be #{expected}, got #{shown(namespace)}"
    end

    # @param object [Object] what was passed in place of something else
    # @return [String] how a message shows it: not as it is if it may have the URL of a store, and its password, in it
    def self.shown(object)
      text = object.inspect
      return text unless [String, Symbol, Array, Hash].any? { |type| object.is_a?(type) }

      URL_IN_TEXT.match?(text.b.delete_prefix(":")) ? "what may be a URL" : text
    end

    # @return [Symbol, String] `:memory`, or the URL as messages show it
    attr_reader :name
    # @return [Integer] the shortest timeout that the store can keep, in nanoseconds; 0: any
    attr_reader :min_timeout

    # @param given [Symbol, String, Array<String>] `:memory`, `"sqlite:PATH"`, the URL of a Redis, or the URLs of some
    #   servers of a Redis Cluster
    # @raise [ArgumentError] if it is none of these
    def initialize(given)
      @location = resolve(given)
      @name = shared? ? NativeMember.describe(@location) : given
      @min_timeout = shared? ? NativeMember.min_timeout(@location) : 0
    end

    def shared? = @location != :memory

    # @param session [Object, nil] what a caller gave as a session
    # @raise [ArgumentError] if the store cannot keep it
    def check_session(session)
      return if session.nil? || !shared?

      raise ArgumentError, "a shared store keeps no sessions, got session: #{StoreOption.shown(session)}; leave it " \
                           "out, or use the store :memory"
    end

    # @return [Integer] what the config's `last_version` has to be below
    def max_version
      return MAX_VERSIONS[:memory] unless shared?

      MAX_VERSIONS[@location.is_a?(String) && @location.start_with?(SQLITE) ? :sqlite : :redis]
    end

    # @param target [SharedDelivery]
    # @param namespace [String]
    # @return [NativeMember] a manager's member of the store. Opens no connection yet.
    def open(target, namespace) = NativeMember.new(target, @location, namespace)

    # Converts a timeout that a caller or the config gave.
    #
    # @param value [Object] seconds, see {Seconds}
    # @param name [String] the timeout's name, for the message
    # @return [Integer] nanoseconds
    # @raise [ArgumentError, TypeError] if it is no timeout, or shorter than the store can keep
    def timeout(value, name)
      nanoseconds = Seconds.nanoseconds(value, name)
      return nanoseconds if nanoseconds >= @min_timeout

      raise ArgumentError,
            "#{name} must be at least #{@min_timeout / 1e9} s with the store #{@name}, got #{value.inspect}"
    end

    def inspect = "#<#{self.class} #{name}>"

    private

    def resolve(given)
      return given if given == :memory

      invalid = (given.is_a?(Array) ? given : [given]).reject { |url| url.is_a?(String) }
      check_encoding([*given]) if invalid.empty?
      # An absolute path would no longer look like the URL that it is.
      return NativeMember.describe(given) && expand_path(given) if invalid.empty?

      raise ArgumentError,
            "unknown store #{describe(invalid.first)}: expected :memory, \"sqlite:PATH\" or \"redis://…\""
    end

    def check_encoding(urls)
      return if urls.all? { |url| self.class.utf8?(url) }

      raise ArgumentError, "store must be valid in UTF-8, got a String in #{urls.first.encoding} that is not"
    end

    # Any object but the simplest ones may contain a URL with a password, a Symbol too.
    def describe(object)
      case object
      when /\A[a-z_]+\z/, Numeric, nil then object.inspect
      else "of the class #{object.class}"
      end
    end

    def expand_path(given)
      return given unless given.is_a?(String) && (path = given[/\A#{SQLITE}(.+)/mo, 1])

      SQLITE + File.expand_path(path, Integration.current.root || Dir.pwd)
    end
  end
end
