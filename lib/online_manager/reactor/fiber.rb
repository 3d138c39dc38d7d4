# frozen_string_literal: true

class OnlineManager
  module Reactor
    # A fiber of the current thread's fiber scheduler, such as Async's.
    #
    # @private
    class Fiber < Base
      def initialize(delivery)
        super
        @scheduler = ::Fiber.current_scheduler
        @thread = ::Thread.current
        return if @scheduler

        raise Error, "the reactor :fiber needs a fiber scheduler on this thread: call setup or run inside " \
                     "`Async { }`, or in a fiber of another scheduler"
      end

      def name = :fiber

      def reads_heartbeats? = true

      # Starts the fiber that delivers, and calls the block on the current fiber. Does not leave that to the first
      # heartbeat: it may come on another thread, which cannot start a fiber here.
      def setup
        spawn { deliver_until_finished }
        yield
      end

      # Delivers on the current fiber until the manager is stopped; calls the block on another fiber.
      def run(&setup)
        setup_task = spawn { call_setup(&setup) }
        deliver_until_finished
      ensure
        # Needed when Ctrl-C interrupted the fiber of `setup`, before `deliver_until_finished` began.
        drain_here
        setup_task.stop if setup_task.respond_to?(:stop)
      end

      # Async raises Async::Stop to stop a task.
      def shutdown_exception?(exception) = defined?(::Async::Stop) ? exception.is_a?(::Async::Stop) : false

      # Async 2 stops a task that waits again in each round of its loop, which would cut off one callback after another.
      # So here they block the thread; and Async holds signals back. (Ruby 3.1 has no `Fiber.blocking`, and async 1.)
      def uninterrupted(is_ending: false, &drain)
        return yield unless is_ending && ::Fiber.respond_to?(:blocking)

        ::Fiber.blocking { ::Thread.handle_interrupt(SignalException => :immediate, &drain) }
      end

      private

      # Waits in short steps: a scheduler may end at any moment without its fibers, and does not say so.
      def wait(timeout)
        stop_at = timeout && (Latch.now + timeout)
        loop do
          remaining = stop_at && [stop_at - Latch.now, 0].max
          return drain_here(remaining) if scheduler_ended?
          return if @lifecycle.wait([remaining, POLL_INTERVAL].compact.min) || remaining&.zero?
        end
      end

      # Whether the scheduler has ended. Ruby does not show the scheduler of another thread, so there only the end of
      # that thread is noticed; Async has stopped the fiber that delivers by then.
      def scheduler_ended?
        !@thread.alive? || (@thread == ::Thread.current && !::Fiber.scheduler.equal?(@scheduler))
      end

      def deliver_until_finished
        pipe = @delivery.pipe
        until (state = @lifecycle.deliver) == :finished
          return wait_in_child unless usable?

          raise_setup_error
          # With more to do, `sleep 0` lets the other fibers run first.
          state == :idle ? pipe.wait_readable : sleep(0)
        end
      ensure
        # Async stops the fiber when its reactor ends.
        drain_here
      end

      def call_setup
        yield
      rescue StandardError, ScriptError, SystemExit => e
        @setup_error = e
        @delivery.native.wake
      end

      def raise_setup_error
        error = @setup_error
        @setup_error = nil
        raise error if error
      end

      # Starts a fiber. With Async it is a transient task, which does not keep the Async reactor from ending.
      def spawn(&block)
        task = defined?(::Async::Task) && ::Async::Task.current?
        task ? task.async(transient: true) { block.call } : ::Fiber.schedule(&block)
      end
    end
  end
end
