# frozen_string_literal: true

class OnlineManager
  module Reactor
    # The thread that calls the config's `setup`, while the thread that called `run` delivers. It waits for the end of
    # the application's boot, unless that waits for `run`.
    #
    # @private
    class SetupThread
      # Raised in the thread to end it. Not a StandardError, so that a `rescue` in `setup` does not swallow it.
      Shutdown = Class.new(Exception) # rubocop:disable Lint/InheritException
      private_constant :Shutdown

      # Seconds that the thread gets for its `ensure` blocks, before it is killed.
      JOIN_TIMEOUT = 1

      # Starts the thread.
      #
      # @param delivery [Delivery] woken when the block raises
      # @yield on the thread; calls `setup`
      def initialize(delivery, &setup)
        @delivery = delivery
        is_boot_thread = Integration.current.boot_thread?
        # The thread inherits this mask: a Shutdown that came before its `rescue` would be raised out of `join`.
        @thread = ::Thread.handle_interrupt(Shutdown => :never) do
          ::Thread.new do
            ::Thread.current.report_on_exception = false
            ::Thread.handle_interrupt(Shutdown => :immediate) do
              Integration.current.wait_for_boot { is_boot_thread }
              setup.call
            end
          rescue Shutdown
            nil
          rescue Exception => e # rubocop:disable Lint/RescueException -- `exit` too: it is raised again where `run` was called
            @error = e
            @delivery.native.wake
          end
        end
        @thread.name = "online_manager setup"
      end

      # Raises the exception of the block, once, with its backtrace.
      def raise_error
        error = @error
        @error = nil
        raise error if error
      end

      # Ends the thread, unless it is in the middle of an `online`: then it ends by itself after that.
      def finish
        return if @thread == ::Thread.current

        stop_at = Latch.now + JOIN_TIMEOUT
        @thread.raise(Shutdown) if @thread.alive? && !Callbacks.any_on?(@thread)
        @thread.join(JOIN_TIMEOUT)
        @thread.kill if @thread.alive? && Latch.now >= stop_at && !Callbacks.any_on?(@thread)
      end
    end
  end
end
