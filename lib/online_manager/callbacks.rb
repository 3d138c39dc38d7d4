# frozen_string_literal: true

class OnlineManager
  # The callbacks that each fiber is running. A stop inside a callback must not wait for that callback, and a thread
  # must not be killed in the middle of one.
  #
  # @private
  module Callbacks
    # Fiber-local variable: the process id, and the deliveries whose callbacks the fiber is running, innermost last.
    KEY = :online_manager_callbacks
    private_constant :KEY

    class << self
      # @return [Boolean] whether the thread's current fiber is running a callback of any manager
      def any_on?(thread) = !of(thread).to_a.empty?

      # @return [Array<Delivery>] of the current fiber, which pushes and pops
      def of_current_fiber
        of(Thread.current) || (Thread.current[KEY] = [Process.pid, []]).last
      end

      private

      # Compares the process: a child that was forked in a callback has a copy of its parent's fiber, but runs no
      # callback.
      def of(thread)
        process, callbacks = thread[KEY]
        callbacks if process == Process.pid
      end
    end
  end
end
