# frozen_string_literal: true

class OnlineManager
  # The managers that run in this process. Keeps them from being garbage-collected, and stops them when the process
  # exits.
  #
  # @private
  module Registry
    @managers = [].freeze
    @mutex = Mutex.new

    # Interruptions of the stop of a manager in a row without an `offline` between them, after which it is left to
    # itself. Each is the exception of another thread, so only an error of the stop itself comes as often.
    MAX_FAILURES = 100

    # Seconds that threads get to end after the last callback. They have nothing left to do.
    END_TIMEOUT = 1

    # Thread variable: the lifecycle of the manager whose callbacks the thread calls.
    KEY = :online_manager_lifecycle
    private_constant :MAX_FAILURES, :END_TIMEOUT, :KEY

    class << self
      # @return [Boolean] whether the managers are being stopped since the process exits; not in a child that is forked
      #   meanwhile
      def exiting? = @exiting == Process.pid

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

      # Registers the hook once; and again for managers that are set up in an `at_exit` block that runs after it, as the
      # tests of `minitest/autorun` and `rspec/autorun` do. Takes no lock, as a heartbeat may come in a trap handler.
      def stop_all_at_exit
        return if @at_exit

        @at_exit = hook = Object.new
        at_exit do
          in_own_context { masked { stop_all } }
        ensure
          # What another thread raises in this one may come before the mask.
          in_own_context { masked { stop_all } } if @at_exit.equal?(hook)
        end
      end

      # @param thread [Thread] waited for when the process exits, if the manager has stopped
      # @param lifecycle [Lifecycle]
      def own(thread, lifecycle) = thread.thread_variable_set(KEY, lifecycle)

      private

      # Yields where a Mutex can be locked: not in a trap handler, which a child that was forked there ends in.
      def in_own_context(&block) = Delivery.in_trap_handler? ? ::Thread.new(&block).join : yield

      # Yields without what other threads raise in this one.
      def masked(&block) = ::Thread.handle_interrupt(Object => :never, &block)

      # Stops every manager. What a callback raises, or another thread in this one, goes on when all of them have
      # stopped; a signal at once. Of several exits the first goes on: each further one would end an `at_exit` block of
      # the application before its first line.
      def stop_all
        @at_exit = nil
        # A child that was forked in a fiber still runs in it, but nothing runs its scheduler: waiting would hang.
        ::Fiber.current_scheduler ? ::Fiber.new(blocking: true) { stop_each }.resume : stop_each
      rescue SignalException
        is_signal = true
        raise
      ensure
        wait_for_threads unless is_signal
        exit = take_exits.first
        raise exit if exit && !is_signal
      end

      def stop_each
        process = @exiting = Process.pid
        managers = @managers.reverse
        error = managers.filter_map { |manager| stop(manager) }.first
        raise error if error
      ensure
        # In a child that an `offline` has forked, and that goes on in here, the managers live on.
        if process == Process.pid
          # Those that a signal has left: none of their threads may go on, or be replaced, while Ruby ends all threads.
          managers&.each { |manager| manager.lifecycle.finish }
          @exiting = nil
        end
      end

      # @return [Exception, nil] the first that interrupted it
      def stop(manager)
        error = nil
        failures = 0
        while failures < MAX_FAILURES
          remaining = manager.lifecycle.remaining
          begin
            # Ruby raises an `exit` of another thread in this one, where it would end the wait for the others.
            ::Thread.handle_interrupt(Object => :immediate, SystemExit => :never) { manager.lifecycle.stop_and_wait }
            break
          rescue SignalException
            raise
          rescue Exception => e # rubocop:disable Lint/RescueException -- it is raised when all managers have stopped
            error ||= e
            failures = manager.lifecycle.remaining < remaining ? 0 : failures + 1
          end
        end
        error
      end

      # Waits for the threads of managers that have stopped: one that an `exit` ends raises that in this thread.
      def wait_for_threads
        stop_at = Latch.now + END_TIMEOUT
        threads = ::Thread.list.select { |thread| thread.thread_variable_get(KEY)&.stopped? } - [::Thread.current]
        sleep 0.001 while threads.any?(&:alive?) && Latch.now < stop_at
      end

      # @return [Array<SystemExit>] those that other threads have raised in this one
      def take_exits
        exits = []
        loop do
          ::Thread.handle_interrupt(SystemExit => :immediate) { ::Thread.pass }
          return exits
        rescue SystemExit => e
          exits << e
        end
      end
    end
  end
end
