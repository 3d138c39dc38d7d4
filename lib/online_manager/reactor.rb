# frozen_string_literal: true

class OnlineManager
  # On which thread callbacks run. Every reactor waits until the delivery's pipe is readable and then
  # lets it deliver, a bounded batch at a time; what differs is how it waits and where.
  #
  # @private
  module Reactor
    NAMES = %i[thread eventmachine fiber].freeze

    # What all reactors have in common.
    #
    # @private
    class Base
      # @param delivery [Delivery]
      def initialize(delivery)
        @delivery = delivery
        @owner = Process.pid
      end

      # @return [Boolean] whether it can still deliver, in this process
      def usable? = same_process?

      # @return [Base] what takes over when it is not usable any more
      def successor = Reactor.after_fork(@delivery)

      # Called at the first heartbeat in a process, on the thread that beats. Before that nothing is
      # started, so a preloading master has no thread to lose.
      def start; end

      # Waits until everybody has been set offline, for `timeout` seconds at the most (nil: for ever).
      def finish(timeout)
        # In a child that nobody has beaten in: otherwise it would have a reactor of its own.
        same_process? ? wait(timeout) : @delivery.finish
      end

      # Whether what a callback raises goes to the reactor's own handler, if the config has none.
      def raises_errors? = false

      # Whether the exception is how the reactor ends what runs on it: no callback's error, though it
      # may come in the middle of one.
      def shutdown_exception?(_exception) = false

      private

      # Whether this is the process that made it, and not a child.
      def same_process? = @owner == Process.pid

      # Sets the remaining users offline on the present thread, unless that has been done, or until the
      # timeout.
      def drain_here(timeout = nil)
        # A callback has forked, and the child leaves it by `exit`, say: it has a reactor of its own, or
        # no users.
        return unless same_process?

        is_over = true # whatever it is ended by, except the timeout
        is_over = @delivery.drain(timeout) unless @delivery.finished?
      ensure
        @delivery.finish if is_over
      end
    end

    class << self
      # @param name [Symbol, nil] one of NAMES; nil finds out
      # @return [Base] for a `setup` on the present thread
      def for_setup(name, delivery)
        build(name || name_for_setup, delivery)
      end

      # @return [Base] for a `run` on the present thread
      def for_run(name, delivery)
        build(name || name_for_run, delivery)
      end

      # @return [Base] for a child process, or for a reactor that has ended
      def after_fork(delivery)
        build(event_machine_running? ? :eventmachine : :thread, delivery)
      end

      def event_machine_running?
        defined?(::EventMachine) ? ::EventMachine.reactor_running? : false
      end

      private

      def name_for_setup
        return :eventmachine if on_event_machine_thread?
        return :fiber if ::Fiber.current_scheduler

        event_machine_running? ? :eventmachine : :thread
      end

      def name_for_run
        return :eventmachine if on_event_machine_thread?
        return :fiber if ::Fiber.current_scheduler

        # 0.0.3 required it itself; its users have it in their bundle.
        defined?(::EventMachine) || ::Gem.loaded_specs.key?("eventmachine") ? :eventmachine : :thread
      end

      def on_event_machine_thread?
        event_machine_running? && ::EventMachine.reactor_thread?
      end

      def build(name, delivery)
        case name
        when :thread
          require_relative "reactor/thread"
          Thread.new(delivery)
        when :eventmachine
          require_relative "reactor/event_machine"
          EventMachine.new(delivery)
        when :fiber
          require_relative "reactor/fiber"
          Fiber.new(delivery)
        end
      end
    end
  end
end
