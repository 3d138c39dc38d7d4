# frozen_string_literal: true

class OnlineManager
  # Keeps what must not cross a fork away from it: connections to a store, and the threads that use them. They end
  # before each fork; afterwards the parent goes on, and the child starts anew when it takes part.
  #
  # @private
  module Forks
    # Seconds between two looks whether all threads have ended.
    POLL_INTERVAL = 0.001

    # Comes before Ruby's own method, through which `fork` and the like go.
    #
    # @private
    module Hook
      def _fork
        Forks.around_fork { super }
      end
    end

    # Who has something to lose. A new Array each time, so that nobody goes through one that changes.
    @deliveries = [].freeze
    # How many forks are going on, on different threads. (No other thread runs in the middle of counting.)
    @in_progress = 0

    class << self
      # From now on a delivery is told of forks, in this process and its children.
      #
      # @param delivery [SharedDelivery]
      def add(delivery)
        ::Process.singleton_class.prepend(Hook) unless ::Process.singleton_class.include?(Hook)
        @deliveries = [*@deliveries, delivery].freeze
      end

      # Says of a thread that a child of fork loses nothing with it: it starts one of its own when it needs it. Puma
      # warns of threads that a preloading master has, unless they say so.
      #
      # @param thread [Thread]
      # @return [Thread]
      def fork_safe(thread) = thread.tap { thread.thread_variable_set(:fork_safe, true) }

      def remove(delivery)
        @deliveries = (@deliveries - [delivery]).freeze
      end

      # @return [Boolean] whether a thread that was started now might be lost in a child
      def in_progress? = @in_progress.positive?

      # @yieldreturn [Integer] what `_fork` answers
      def around_fork
        deliveries = @deliveries
        @in_progress += 1
        begin
          deliveries.each { |delivery| delivery.native.pause }
          sleep POLL_INTERVAL until deliveries.all? { |delivery| delivery.native.paused? }
          pid = yield
        ensure
          pid&.zero? ? @in_progress = 0 : @in_progress -= 1
          after_fork = pid&.zero? ? :after_fork_in_child : :after_fork_in_parent
          deliveries.each(&after_fork) unless in_progress?
        end
        pid
      end
    end
  end
end
