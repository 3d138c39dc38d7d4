# frozen_string_literal: true

class OnlineManager
  # The managers that run in this process. Keeps them from being garbage-collected, and stops them when the process
  # exits.
  #
  # @private
  module Registry
    @managers = [].freeze
    @mutex = Mutex.new

    # How often the stop of a manager is begun anew at exit, after something was raised in the main thread meanwhile.
    MAX_ATTEMPTS = 3

    class << self
      # @return [Boolean] whether the managers are being stopped since the process exits
      def exiting? = @exiting

      def add(manager)
        @mutex.synchronize do
          @managers = [*@managers, manager].freeze
          stop_all_at_exit
        end
      end

      def remove(manager)
        @mutex.synchronize { @managers = (@managers - [manager]).freeze }
      end

      # Makes every manager load its config again. Called after a code reload.
      def invalidate_configs
        @managers.each(&:invalidate_config)
      end

      # @return [Boolean] whether a manager is in the middle of a callback that goes on only after the current fiber
      def delivers_below? = @managers.any? { |manager| manager.lifecycle.delivers_below? }

      # Takes no lock, so that it works in a trap handler.
      #
      # @return [OnlineManager, nil] the manager that was set up last in that namespace
      def current(namespace)
        @managers.reverse_each.find { |manager| manager.namespace == namespace }
      rescue Ractor::IsolationError
        raise Ractor::UnsafeError, "OnlineManager.current may only be called from the main Ractor", cause: nil
      end

      private

      # Registers the hook once; and again for managers that are set up in an `at_exit` block that runs after it, as the
      # tests of `minitest/autorun` and `rspec/autorun` do.
      def stop_all_at_exit
        return if @at_exit

        @at_exit = true
        at_exit { stop_all }
      end

      def stop_all
        @at_exit = false
        return stop_each unless ::Fiber.current_scheduler

        # A child that was forked in a fiber still runs in it, but nothing runs its scheduler: waiting would hang.
        ::Fiber.new(blocking: true) { stop_each }.resume
      end

      # Stops every manager. What a callback raises, or another thread in this one, goes on when all of them have
      # stopped; a signal at once.
      def stop_each
        @exiting = true
        managers = @managers.reverse
        # Ruby raises an `exit` of another thread in this one, where it would end the wait for the others.
        ::Thread.handle_interrupt(SystemExit => :never) do
          error = managers.filter_map { |manager| stop(manager) }.first
          raise error if error
        end
      ensure
        # Those that a signal has left: none of their threads may go on, or be replaced, while Ruby ends all threads.
        managers&.each { |manager| manager.lifecycle.finish }
        @exiting = false
      end

      # @return [Exception, nil] the first that interrupted it
      def stop(manager)
        error = nil
        MAX_ATTEMPTS.times do
          manager.stop
          break
        rescue SignalException
          raise
        rescue Exception => e # rubocop:disable Lint/RescueException -- it is raised when all managers have stopped
          error ||= e
        end
        error
      end
    end
  end
end
