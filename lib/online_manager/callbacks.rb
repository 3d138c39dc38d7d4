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

    @waiting = Mutex.new

    class << self
      # @return [Boolean] whether the thread's current fiber is running a callback of any manager
      def any_on?(thread) = !of(thread).to_a.empty? && tracked?(thread.backtrace_locations)

      # Yields to wait for the end of a manager. Of all callbacks only one waits at a time: two that stop each other's
      # managers would wait for each other.
      #
      # @return [Boolean] false if the current fiber is running a callback, and another callback waits
      def wait_alone
        is_callback = !of_current_fiber.empty? && tracked?(caller_locations)
        return false if is_callback && !@waiting.try_lock

        begin
          yield
        ensure
          @waiting.unlock if is_callback
        end
        true
      end

      # @return [Boolean] whether the current fiber is running a callback of the delivery
      def of?(delivery) = of_current_fiber.include?(delivery) && tracked?(caller_locations)

      # Yields to run a callback of the delivery.
      def track(delivery)
        callbacks = of_current_fiber
        depth = callbacks.size
        callbacks.push(delivery)
        yield
      ensure
        # With those that a continuation has left.
        callbacks&.slice!(depth..) if depth
      end

      private

      # Compares the process: a child that was forked in a callback has a copy of its parent's fiber, but runs no
      # callback.
      def of(thread)
        process, callbacks = thread[KEY]
        callbacks if process == Process.pid
      end

      def of_current_fiber
        of(Thread.current) || (Thread.current[KEY] = [Process.pid, []]).last
      end

      # @return [Boolean] whether a fiber with these frames is within {track}: no `ensure` runs when a continuation
      #   (`callcc`) leaves that
      def tracked?(frames)
        frames.to_a.any? { |frame| frame.base_label == "track" && frame.path == __FILE__ }
      end
    end
  end
end
