# frozen_string_literal: true

require_relative "setup_thread"

class OnlineManager
  module Reactor
    # A Ruby thread: the one that called `run`, or a background thread named "online_manager".
    #
    # @private
    class Thread < Base
      # How many background threads in a row may end without having called a callback. After that each one pauses
      # first, for PAUSE seconds: what ended the others may end this one too, and so on.
      MAX_FRUITLESS = 100
      PAUSE = 1

      def initialize(delivery)
        super
        @is_background = false
        @fruitless = 0
        @pause_ends_at = 0
      end

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

      # Ruby raises an `exit` of another thread in the main thread, where it would cut off a callback. Not held back in
      # a fiber: one that leaves a callback for good would leave the whole thread like that.
      def uninterrupted(is_ending: false, &drain) # rubocop:disable Lint/UnusedMethodArgument
        return yield unless ::Thread.current == ::Thread.main && ::Fiber.current.blocking?

        ::Thread.handle_interrupt(SystemExit => :never, &drain)
      end

      def start
        return if @thread&.alive?

        @is_background = true
        # The thread inherits this mask: Thread#kill and Thread#raise take effect only where `deliver_in_background` can
        # restart it.
        ::Thread.handle_interrupt(Object => :never) do
          @thread = own(::Thread.new { deliver_in_background }, "online_manager")
        end
      end

      private

      def wait(timeout)
        # Waiting here would keep the loop from going on. If a fiber or a continuation has left it, nobody else drains.
        return drain_here(timeout) if @thread == ::Thread.current

        # There may be no thread to wait for: no heartbeat has come, or the system had no thread to give. And while the
        # application boots, the background thread asks it for nothing.
        wait_or_drain(timeout) { !@thread&.alive? || (@is_background && Integration.current.booting?) }
      end

      def deliver_until_finished
        pipe = @delivery.pipe
        until (state = @lifecycle.deliver) == :finished
          return wait_in_child unless usable?

          yield if block_given?
          state == :idle ? pipe.wait_readable : ::Thread.pass
        end
      end

      def deliver_in_background
        ::Thread.current.report_on_exception = false
        calls = nil
        ::Thread.handle_interrupt(Object => :immediate) do
          Integration.current.wait_for_boot { @lifecycle.stopped? }
          sleep POLL_INTERVAL while Latch.now < @pause_ends_at && !@lifecycle.stopping?
          calls = @delivery.calls
          deliver_until_finished
        end
        is_done = true
      ensure
        error = $ERROR_INFO
        # In a child that was forked in a callback there is another reactor.
        @lifecycle.reactor_ended { restart(error, calls) } unless is_done || !usable?
        warn_about_remaining(error) if error.is_a?(SignalException) && @lifecycle.stopped?
      end

      # Replaces a thread that was killed, or ended by an exception: users who are due must not wait for the next
      # heartbeat.
      #
      # @param calls [Integer, nil] how many callbacks had been called when it began; nil if it ended before
      def restart(error, calls)
        pause_next_after(calls) if calls
        replace
        return if error.is_a?(SystemExit) # which Ruby raises in the main thread

        by = error ? error.inspect : "Thread#kill"
        warn("the thread that calls offline was ended by #{by}: it has been restarted, and no callback is lost; " \
             "leave the thread named online_manager alone, also in callbacks")
      end

      def pause_next_after(calls)
        @fruitless = @delivery.calls == calls ? @fruitless + 1 : 0
        @pause_ends_at = Latch.now + PAUSE if @fruitless > MAX_FRUITLESS
      end

      def replace
        @thread = nil
        start
      ensure
        # The system may have no thread to give. Then those who wait for this one drain.
        @lifecycle.wake
      end

      # A callback raised a signal during the drain, which has ended it, and nobody but this thread knows.
      def warn_about_remaining(error)
        users = @delivery.remaining
        return if users.zero?

        warn("a callback raised #{error.inspect} during a stop, which is over now: #{users} " \
             "#{users == 1 ? "user has" : "users have"} not been set offline; rescue signals in callbacks")
      end

      # Writing a warning may block on a full pipe; then Thread#kill must still work, or the process could not exit.
      def warn(message)
        ::Thread.handle_interrupt(Object => :on_blocking) { Integration.current.warn(message) }
      end

      def drain_here_and_end(setup_thread)
        drain_here
      ensure
        setup_thread&.finish
      end
    end
  end
end
