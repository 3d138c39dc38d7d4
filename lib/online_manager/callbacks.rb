# frozen_string_literal: true

class OnlineManager
  # Which callbacks a fiber is in: a stop in there must not wait for itself, and a thread that is to be
  # ended is not ended in the middle of one.
  #
  # @private
  module Callbacks
    # Fiber-local: the process, and the deliveries whose callbacks the fiber is in, innermost last.
    KEY = :online_manager_callbacks
    private_constant :KEY

    class << self
      # @return [Boolean] whether the thread's present fiber is in a callback of any manager
      def any_on?(thread) = !of(thread).to_a.empty?

      # @return [Array<Delivery>] for the present fiber to change
      def of_current_fiber
        of(Thread.current) || (Thread.current[KEY] = [Process.pid, []]).last
      end

      private

      # A child that is forked in a callback is in none, although it has a copy of its parent's fiber.
      def of(thread)
        process, callbacks = thread[KEY]
        callbacks if process == Process.pid
      end
    end
  end
end
