# frozen_string_literal: true

class OnlineManager
  # The option `store:`, checked and resolved. Shows no password.
  #
  # @private
  class StoreOption
    # The prefix of a file's path, which may be relative.
    SQLITE = "sqlite:"

    # @return [Symbol, String] `:memory`, or the URL as messages show it
    attr_reader :name

    # @param given [Symbol, String, Array<String>] `:memory`, `"sqlite:PATH"`, the URL of a Redis, or the URLs of some
    #   servers of a Redis Cluster
    # @raise [ArgumentError] if it is none of these
    def initialize(given)
      @location = resolve(given)
      @name = shared? ? NativeMember.describe(@location) : given
    end

    def shared? = @location != :memory

    # @param target [SharedDelivery]
    # @param namespace [String]
    # @return [NativeMember] a manager's member of the store. Opens no connection yet.
    def open(target, namespace) = NativeMember.new(target, @location, namespace)

    def inspect = "#<#{self.class} #{name}>"

    private

    def resolve(given)
      return given if given == :memory

      # Shows the element that is not a String: the other ones are URLs, and may contain passwords.
      invalid = (given.is_a?(Array) ? given : [given]).reject { |url| url.is_a?(String) }
      return expand_path(given) if invalid.empty?

      raise ArgumentError, "unknown store #{invalid.first.inspect}: expected :memory, \"sqlite:PATH\" or \"redis://…\""
    end

    def expand_path(given)
      return given unless given.is_a?(String) && (path = given[/\A#{SQLITE}(.+)/mo, 1])

      SQLITE + File.expand_path(path, Integration.current.root || Dir.pwd)
    end
  end
end
