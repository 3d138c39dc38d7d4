# frozen_string_literal: true

require_relative "../forks"
require_relative "setup_thread"

class OnlineManager
  module Reactor
    # A Ruby thread: the one that called `run`, or a background thread named "online_manager".
    #
    # @private
    class Thread < Base
      def name = :thread

      # Calls the block on the current thread. The first heartbeat starts the background thread.
      def setup = yield

      # Delivers on the current thread until the manager is stopped, so that `exit`, `throw` and Ctrl-C in a callback
      # work as elsewhere. Calls the block on a thread of its own, so it may block.
      def run(&setup)
        @thread = ::Thread.current
        setup_thread = SetupThread.new(@delivery, &setup)
        deliver_until_finished { setup_thread.raise_error }
        setup_thread.raise_error
      ensure
        drain_here_and_end(setup_thread)
      end

      def start
        return if @thread&.alive?

        # The thread inherits this mask: Thread#kill and Thread#raise take effect only where `deliver_in_background` can
        # restart it.
        ::Thread.handle_interrupt(Object => :never) do
          @thread = Forks.fork_safe(::Thread.new { deliver_in_background })
          @thread.name = "online_manager"
        end
      end

      private

      def wait(timeout)
        # In a fiber that a callback has started: waiting here would keep the loop from going on.
        return if @thread == ::Thread.current
        # There is no thread to wait for: no heartbeat has come, or an `exit` in a callback has ended it.
        return drain_here(timeout) unless @thread&.alive?

        @delivery.wait(timeout)
      end

      def deliver_until_finished
        pipe = @delivery.pipe
        until (state = @delivery.deliver) == :finished
          # A callback has forked, and this is the child, where another reactor delivers.
          return @delivery.wait(nil) unless usable?

          yield if block_given?
          state == :idle ? pipe.wait_readable : ::Thread.pass
        end
      end

      def deliver_in_background
        ::Thread.current.report_on_exception = false
        ::Thread.handle_interrupt(Object => :immediate) { deliver_until_finished }
        is_done = true
      ensure
        if is_done
          @delivery.finish
        else
          restart($ERROR_INFO)
        end
      end

      # Replaces a thread that was killed, or ended by Thread#raise: users who are due must not wait for the next
      # heartbeat.
      def restart(error)
        # After an `exit` in a callback, and when the process exits, the at_exit hook sets the rest offline.
        return if error.is_a?(SystemExit) || Registry.exiting? || !usable?

        @thread = nil
        start
        # Writing the warning may block on a full pipe; then Thread#kill must still work, or the process could not exit.
        ::Thread.handle_interrupt(Object => :on_blocking) do
          by = error ? error.inspect : "Thread#kill"
          Integration.current.warn("the thread that calls offline was ended from outside by #{by}: it has been " \
                                   "restarted, and no callback is lost; leave the thread named online_manager alone")
        end
      end

      def drain_here_and_end(setup_thread)
        drain_here
      ensure
        setup_thread&.finish
      end
    end
  end
end
