# frozen_string_literal: true

class OnlineManager
  module Reactor
    # The thread on which `run` calls the config's `setup`, while it delivers on its own.
    #
    # @private
    class SetupThread
      # Ends it. No StandardError, so that no `rescue` of the config's takes it for one of its own.
      Shutdown = Class.new(Exception) # rubocop:disable Lint/InheritException
      private_constant :Shutdown

      # Seconds that it gets to end.
      JOIN_TIMEOUT = 1

      # @param delivery [Delivery] is woken when the block has raised
      # @yield calls `setup`
      def initialize(delivery, &setup)
        @delivery = delivery
        # It is born with its end barred, which would come out of `join` if it came before the `rescue`.
        @thread = ::Thread.handle_interrupt(Shutdown => :never) do
          ::Thread.new do
            ::Thread.current.report_on_exception = false
            ::Thread.handle_interrupt(Shutdown => :immediate, &setup)
          rescue Shutdown
            nil
          rescue Exception => e # rubocop:disable Lint/RescueException -- `exit` too: it is raised again where `run` was called
            @error = e
            @delivery.native.wake
          end
        end
        @thread.name = "online_manager setup"
      end

      # Raises what the block has raised, once, with its backtrace.
      def raise_error
        error = @error
        @error = nil
        raise error if error
      end

      # Ends the thread, but not in the middle of an `online`: that one is left to end by itself.
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
