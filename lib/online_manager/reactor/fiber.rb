# frozen_string_literal: true

class OnlineManager
  module Reactor
    # A fiber of the scheduler that the thread has, Async's for example.
    #
    # @private
    class Fiber < Base
      def initialize(delivery)
        super
        @scheduler = ::Fiber.current_scheduler
        @thread = ::Thread.current
        return if @scheduler

        raise Error, "the reactor :fiber needs a fiber scheduler on this thread: call it inside `Async { }`, " \
                     "or in a fiber of another scheduler"
      end

      def name = :fiber

      # Calls the block on the present fiber. Another one waits from now on: a heartbeat may come from a
      # thread that could not start it.
      def setup
        spawn { deliver_until_finished }
        yield
      end

      # Delivers on the present fiber until the manager is stopped; the block is called on another one.
      def run(&setup)
        setup_task = spawn { call_setup(&setup) }
        deliver_until_finished
      ensure
        # Ctrl-C may have come in the setup fiber, before there was anything to deliver.
        drain_here
        setup_task.stop if setup_task.respond_to?(:stop)
      end

      # Async stops its tasks so.
      def shutdown_exception?(exception) = defined?(::Async::Stop) ? exception.is_a?(::Async::Stop) : false

      private

      def wait(timeout)
        scheduler_ended? ? drain_here(timeout) : @delivery.wait(timeout)
      end

      # Whether the scheduler runs no fiber any more. Ruby does not say so of the scheduler of another
      # thread that goes on without it; Async's has stopped the fiber then.
      def scheduler_ended?
        !@thread.alive? || (@thread == ::Thread.current && !::Fiber.scheduler.equal?(@scheduler))
      end

      def deliver_until_finished
        pipe = @delivery.pipe
        until (state = @delivery.deliver) == :finished
          # A callback has forked, and this is the child: here another reactor delivers.
          return @delivery.wait(nil) unless usable?

          raise_setup_error
          # `sleep 0` lets the other fibers run.
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

      # A task that is transient keeps no Async reactor from ending.
      def spawn(&block)
        task = defined?(::Async::Task) && ::Async::Task.current?
        task ? task.async(transient: true) { block.call } : ::Fiber.schedule(&block)
      end
    end
  end
end
