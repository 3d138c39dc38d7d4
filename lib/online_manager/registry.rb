# frozen_string_literal: true

class OnlineManager
  # The managers that run in this process. Keeps them from being garbage-collected, and stops them when the process
  # exits.
  #
  # @private
  module Registry
    @managers = [].freeze
    @mutex = Mutex.new
    @exiting = false

    class << self
      # @return [Boolean] whether the process is exiting, so that no thread may be restarted
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
        @exiting = false
        at_exit { stop_all }
      end

      def stop_all
        @exiting = true
        @at_exit = false
        return stop_each unless ::Fiber.current_scheduler

        # A child that was forked in a fiber still runs in it, but nothing runs its scheduler: waiting would hang.
        ::Fiber.new(blocking: true) { stop_each }.resume
      end

      def stop_each
        @managers.reverse_each(&:stop_at_exit)
      end
    end
  end
end
