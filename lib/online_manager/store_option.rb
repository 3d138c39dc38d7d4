# frozen_string_literal: true

class OnlineManager
  # The option `store:`: where it is kept who is online. It shows no password.
  #
  # @private
  class StoreOption
    # What begins the name of a file, and may be followed by a relative path.
    SQLITE = "sqlite:"

    # @return [Symbol, String] `:memory`, or what the store is called in messages
    attr_reader :name

    # @param given [Symbol, String, Array<String>] `:memory`, `"sqlite:PATH"`, the URL of a Redis, or those of some
    #   servers of a Redis Cluster
    # @raise [ArgumentError] if there is no such store
    def initialize(given)
      @location = resolve(given)
      @name = shared? ? Shared.describe(@location) : given
    end

    def shared? = @location != :memory

    # @return [Shared] a manager's part in it
    def open(target, namespace) = Shared.new(target, @location, namespace)

    def inspect = "#<#{self.class} #{name}>"

    private

    def resolve(given)
      return given if given == :memory

      # Only what is no String is shown: a URL may have a password in it.
      invalid = (given.is_a?(Array) ? given : [given]).reject { |url| url.is_a?(String) }
      return expand_path(given) if invalid.empty?

      raise ArgumentError, "unknown store #{invalid.first.inspect}; there is :memory, \"sqlite:PATH\" and \"redis://…\""
    end

    def expand_path(given)
      return given unless given.is_a?(String) && (path = given[/\A#{SQLITE}(.+)/mo, 1])

      SQLITE + File.expand_path(path, Integration.current.root || Dir.pwd)
    end
  end
end
