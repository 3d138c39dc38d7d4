# frozen_string_literal: true

class OnlineManager
  # One call of a config's method that tells of a transition, of one user or of several together.
  #
  # @private
  class Call
    @version = 0

    class << self
      # For a manager without a store: above all before it in this process, and the wall clock's microseconds, which
      # likely are above those of the processes before.
      #
      # @return [Integer]
      def next_version
        now = Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond)
        # No other thread runs in the middle of this.
        @version = now > @version ? now : @version + 1
      end
    end

    attr_reader :transition, :user_ids

    # @param transition [Symbol] :online or :offline
    # @param user_ids [Array]
    # @param batch [Boolean] whether they go into one call of the `_all` form
    # @param details [Array, nil] of each user in order, why, and how many seconds late; nil for an `online` that
    #   is called at its heartbeat, or if nobody wants to know
    # @param versions [Array<Integer>, nil] of each user; nil if there is no store that gives them
    def initialize(transition, user_ids, batch: false, details: nil, versions: nil)
      @transition = transition
      @user_ids = user_ids
      @batch = batch
      @details = details
      @versions = versions
    end

    # Whether they go into one call of the `_all` form.
    def batch? = @batch

    # @return [Symbol] the config's method
    def method = @batch ? :"#{@transition}_all" : @transition

    # @return [Object] what the method is given: the id, or the Array of ids
    def argument = @batch ? @user_ids : @user_ids.first

    # @param config [Config]
    # @return [Array(Symbol, Object, Hash)] the method and its arguments
    def method_and_arguments(config)
      return [method, argument, {}] unless config.version?(method)

      [method, argument, { version: @batch ? versions : versions.first }]
    end

    # @param namespace [String, nil]
    # @return [Array<Hash>] for each user what those who listen are told
    def payloads(namespace)
      @user_ids.each_with_index.map do |id, index|
        reason, lateness = @details ? @details[index] : [:heartbeat, 0.0]
        { id:, reason:, lateness:, namespace: }
      end
    end

    private

    def versions = @versions ||= @user_ids.map { self.class.next_version }
  end
end
