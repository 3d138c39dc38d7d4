# frozen_string_literal: true

require_relative "latch"

class OnlineManager
  # One call of a config's callback: for a transition of one user, or in a batch of several.
  #
  # @private
  class Call
    @version = 0

    class << self
      # Returns the version of a transition with the store `:memory`: the wall clock's microseconds, or one more than
      # the last version of this process, or of the config's `last_version`. So versions grow within a process and
      # across restarts: without a `last_version`, unless the clock is set back in between.
      #
      # @return [Integer]
      def next_version
        now = Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond)
        # Needs no mutex: Ruby switches threads at no point between these reads and the write.
        @version = now > @version ? now : @version + 1
      end

      # Makes every later version greater than this one.
      #
      # @param version [Integer]
      def last_version=(version)
        @version = version if version > @version
      end

      # @param seconds [Float]
      # @return [Time] the wall clock's time that many seconds ago, to the millisecond: no clock behind it is finer
      def time_ago(seconds) = (Time.now - seconds).round(3)
    end

    # @return [Symbol] :online or :offline
    attr_reader :transition
    # @return [Array] the ids of the users, one unless it is a batch
    attr_reader :user_ids

    # @param transition [Symbol] :online or :offline
    # @param user_ids [Array] one id, unless it is a batch
    # @param batch [Boolean] whether to call the `_all` form
    # @param details [Array(Symbol, Float), nil] for each user in order the reason and how many seconds late it is; nil
    #   for an `online` within its heartbeat, and if nobody subscribes to notifications
    # @param versions [Array<Integer>, nil] for each user in order; nil with the store `:memory`, which has none
    # @param seen_ago [Array<Float>, nil] how many seconds ago the last heartbeat of each user in order came; nil if
    #   nobody asks
    def initialize(transition, user_ids, batch: false, details: nil, versions: nil, seen_ago: nil)
      @transition = transition
      @user_ids = user_ids
      @batch = batch
      @details = details
      @versions = versions
      @seen_ago = seen_ago
      @made_at = Latch.now if seen_ago
    end

    # @return [Boolean] whether it calls the `_all` form
    def batch? = @batch

    # @return [Symbol] the config's method, such as :offline_all
    def method = @batch ? :"#{@transition}_all" : @transition

    # @return [Object] the method's positional argument: the id, or the Array of ids
    def argument = @batch ? @user_ids : @user_ids.first

    # @param config [Config]
    # @return [Array(Symbol, Object, Hash)] the method, its positional argument and its keywords: `version:` and
    #   `last_seen:`, if the method declares them
    # @raise [Config::Changed] if a reload has taken the `_all` form away
    def method_and_arguments(config)
      raise Config::Changed if batch? && !config.method?(method)

      keywords = {}
      keywords[:version] = @batch ? versions : versions.first if config.keyword?(method, :version)
      keywords[:last_seen] = @batch ? last_seen : last_seen.first if config.keyword?(method, :last_seen)
      [method, argument, keywords]
    end

    # @param namespace [String, nil]
    # @return [Array<Hash>] for each user the payload of a notification
    def payloads(namespace)
      @user_ids.each_with_index.map do |id, index|
        reason, lateness = @details ? @details[index] : [:heartbeat, 0.0]
        { id:, reason:, lateness:, namespace: }
      end
    end

    private

    def versions = @versions ||= @user_ids.map { self.class.next_version }

    # The framework may have taken its time since the call was made: to reload the application, for example.
    def last_seen
      since = Latch.now - @made_at
      @seen_ago.map { |seconds| self.class.time_ago(seconds + since) }
    end
  end
end
