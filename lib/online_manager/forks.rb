# frozen_string_literal: true

class OnlineManager
  # Ends the threads and connections of shared stores before each fork: a child would inherit the sockets and file locks
  # of its parent, but not the threads. Afterwards the parent starts them again; the child starts its own when it needs
  # them.
  #
  # @private
  module Forks
    # Seconds between two checks whether all threads have ended: a fork is delayed by no more than this.
    POLL_INTERVAL = 0.001

    # Prepended to Process: `fork`, `Process.fork` and `IO.popen("-")` all call `_fork` since Ruby 3.1. (Process.daemon
    # does not.)
    #
    # @private
    module Hook
      def _fork
        Forks.around_fork { super }
      end
    end

    # The deliveries of shared stores. Replaced at each change, so that no thread iterates over an Array that changes.
    @deliveries = [].freeze
    # How many threads are forking. Needs no mutex: Ruby switches threads at no point within the counting.
    @in_progress = 0

    class << self
      # Pauses and resumes the delivery around forks from now on, in this process and its children.
      #
      # @param delivery [SharedDelivery]
      def add(delivery)
        ::Process.singleton_class.prepend(Hook) unless ::Process.singleton_class.include?(Hook)
        @deliveries = [*@deliveries, delivery].freeze
      end

      # Marks a thread that a forked child can do without, as it starts its own. Puma warns of threads without the mark
      # in a master that preloads the application.
      #
      # @param thread [Thread]
      # @return [Thread]
      def fork_safe(thread) = thread.tap { thread.thread_variable_set(:fork_safe, true) }

      def remove(delivery)
        @deliveries = (@deliveries - [delivery]).freeze
      end

      # @return [Boolean] whether a fork is in progress: a thread that is started now could be missing in the child
      def in_progress? = @in_progress.positive?

      # Forks in the block, with the deliveries paused.
      #
      # @yieldreturn [Integer] what `_fork` returned
      # @return [Integer] the same: the child's process id, or 0 in the child
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
