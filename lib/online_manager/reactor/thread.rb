# frozen_string_literal: true

require_relative "../forks"
require_relative "setup_thread"

class OnlineManager
  module Reactor
    # A Ruby thread: the one that called `run`, or a named one in the background.
    #
    # @private
    class Thread < Base
      def name = :thread

      # Calls the block on the present thread. The background thread is started by the first heartbeat.
      def setup = yield

      # Delivers on the present thread until the manager is stopped, so that `exit`, `throw` and Ctrl-C
      # work as anywhere; the block is called on a thread of its own, so it may block.
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

        # It is born with interrupts barred: Thread#kill and Thread#raise find it at work, where what
        # they do is made good, or not at all.
        ::Thread.handle_interrupt(Object => :never) do
          @thread = Forks.fork_safe(::Thread.new { deliver_in_background })
          @thread.name = "online_manager"
        end
      end

      private

      def wait(timeout)
        # A fiber that a callback has started: the loop goes on when the callback has returned.
        return if @thread == ::Thread.current
        # Nobody to wait for: no heartbeat has come, or an `exit` in a callback has ended the thread.
        return drain_here(timeout) unless @thread&.alive?

        @delivery.wait(timeout)
      end

      def deliver_until_finished
        pipe = @delivery.pipe
        until (state = @delivery.deliver) == :finished
          # A callback has forked, and this is the child: here another reactor delivers.
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

      # Somebody has killed the thread, or raised something into it. Whoever is due must not wait for
      # the next heartbeat.
      def restart(error)
        # An exit in a callback, or the end of the process: what is left is done there.
        return if error.is_a?(SystemExit) || Registry.exiting? || !usable?

        @thread = nil
        start
        # What is said may wait for whoever reads it, and must not keep the process from ending.
        ::Thread.handle_interrupt(Object => :on_blocking) do
          by = error ? error.inspect : "Thread#kill"
          Integration.current.warn("the thread that calls offline was ended from outside (#{by}); " \
                                   "it has been restarted, and nobody is lost")
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
