# frozen_string_literal: true

class OnlineManager
  # The managers that run in this process. It keeps them alive, and sets their users offline when the
  # process exits.
  #
  # @private
  module Registry
    @managers = [].freeze
    @mutex = Mutex.new
    @exiting = false

    class << self
      # @return [Boolean] whether the process is on its way out: nothing is restarted any more
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

      # The application's code has been loaded anew.
      def invalidate_configs
        @managers.each(&:invalidate_config)
      end

      # @return [OnlineManager, nil] the last one that was set up in that namespace. Takes no lock, so
      #   that it works in a trap handler.
      def current(namespace)
        @managers.reverse_each.find { |manager| manager.namespace == namespace }
      rescue Ractor::IsolationError
        raise Ractor::UnsafeError, "OnlineManager.current may only be called from the main Ractor", cause: nil
      end

      private

      # Once, and once more for managers that are set up in an `at_exit` that comes later than ours: the
      # tests of minitest and of RSpec run in one, if they start themselves.
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

        # A child that was forked in a fiber is in it still, and nobody runs its scheduler.
        ::Fiber.new(blocking: true) { stop_each }.resume
      end

      def stop_each
        @managers.reverse_each(&:stop_at_exit)
      end
    end
  end
end
