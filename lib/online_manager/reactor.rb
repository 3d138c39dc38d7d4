# frozen_string_literal: true

require_relative "forks"

class OnlineManager
  # The reactors: each decides on which thread callbacks run. Every one waits until the delivery's pipe is readable, and
  # then calls Lifecycle#deliver, which returns after a bounded time; they differ in how they wait, and where.
  #
  # @private
  module Reactor
    NAMES = %i[thread eventmachine fiber].freeze

    # The base class of the reactors.
    #
    # @private
    class Base
      # Seconds between two checks of a waiting stop whether the reactor still runs.
      POLL_INTERVAL = 0.1

      # @param delivery [Delivery]
      def initialize(delivery)
        @delivery = delivery
        @lifecycle = delivery.lifecycle
        @owner = Process.pid
      end

      # @return [Boolean] whether it can deliver in this process
      def usable? = same_process?

      # @return [Base] the reactor that replaces it when it is no longer usable
      def successor = Reactor.after_fork(@delivery)

      # Starts delivering. Called for the first heartbeat in a process, on the thread that reports it; not before, so
      # that a preloading master has no thread that its children would miss.
      def start; end

      # Waits until a stop is done.
      #
      # @param timeout [Float, nil] seconds; nil sets no limit
      def finish(timeout)
        # In a child without heartbeats (with one it would have its own reactor) there is nobody to set offline.
        same_process? ? wait(timeout) : @lifecycle.finish
      end

      # Sees to the end of a stop on another thread, since the current one is inside a callback of another manager.
      def finish_in_background
        return if @finisher&.alive?

        @finisher = own(::Thread.new { finish(nil) }, "online_manager stop")
      rescue ThreadError
        # The system has no thread to give: the reactor goes on if it runs, else the users are set offline at exit.
      end

      # @return [Boolean] whether exceptions of callbacks go to the reactor's own handler, if the config has no
      #   `on_error`
      def raises_errors? = false

      # @return [Boolean] whether what the reactor runs on reads heartbeats too, so that they wait while a callback runs
      def reads_heartbeats? = false

      # @return [Boolean] whether the reactor raises such an exception to end what runs on it. It may interrupt a
      #   callback, but is not that callback's error.
      def shutdown_exception?(_exception) = false

      # Calls the block, which drains. Holds back what would cut off its callbacks, but for signals.
      #
      # @param is_ending [Boolean] whether the reactor ends
      def uninterrupted(is_ending: false) = yield # rubocop:disable Lint/UnusedMethodArgument

      private

      # @return [Thread] the same thread, named; the process waits for its end when it exits
      def own(thread, name)
        Registry.own(thread, @lifecycle)
        thread.name = name
        Forks.fork_safe(thread)
      end

      # Waits for the end of a stop, and drains if nobody else will. In short steps: nobody wakes this thread when a
      # fiber or a continuation has left the reactor.
      #
      # @param timeout [Float, nil] seconds; nil sets no limit
      # @yieldreturn [Boolean] whether the reactor has ended
      def wait_or_drain(timeout, &ended)
        stop_at = timeout && (Latch.now + timeout)
        loop do
          remaining = stop_at && [stop_at - Latch.now, 0].max
          return drain_here(remaining) if yield || @lifecycle.left?
          return if @lifecycle.wait([remaining, POLL_INTERVAL].compact.min, &ended) || remaining&.zero?
        end
      end

      # Waits for the end of the manager in a child that a callback has forked: there another reactor delivers, or none
      # yet. In short steps: Ruby ends a process whose only thread waits without a limit.
      def wait_in_child
        # Nobody else would: a stop that had begun bars heartbeats, and the users are the parent's.
        @lifecycle.finish if @lifecycle.stopping?
        nil until @lifecycle.wait(POLL_INTERVAL)
      end

      # @return [Boolean] whether this is the process that created it, and not a forked child
      def same_process? = @owner == Process.pid

      # Sets the remaining users offline on the current thread, unless that has been done.
      #
      # @param timeout [Float, nil] seconds after which it gives up; nil sets no limit
      def drain_here(timeout = nil)
        # A callback has forked, and the child leaves it, by `exit` for example: the child has its own reactor, or no
        # users.
        @lifecycle.drain(timeout) if same_process?
      end
    end

    class << self
      # @param name [Symbol, nil] one of NAMES; nil chooses one
      # @param delivery [Delivery]
      # @return [Base] for a `setup` on the current thread
      def for_setup(name, delivery)
        build(name || name_for_setup, delivery)
      end

      # @param (see .for_setup)
      # @return [Base] for a `run` on the current thread
      def for_run(name, delivery)
        build(name || name_for_run, delivery)
      end

      # @return [Base] for a forked child, or in place of a reactor that has ended
      def after_fork(delivery)
        build(event_machine_running? ? :eventmachine : :thread, delivery)
      end

      def event_machine_running?
        defined?(::EventMachine) ? ::EventMachine.reactor_running? : false
      end

      private

      def name_for_setup
        return :eventmachine if on_event_machine_thread?
        return :fiber if ::Fiber.current_scheduler && Integration.current.uses_fibers?

        event_machine_running? ? :eventmachine : :thread
      end

      def name_for_run
        return :eventmachine if on_event_machine_thread?
        return :fiber if ::Fiber.current_scheduler

        # Version 0.0.3 required EventMachine itself, so applications that used it have it in their bundle.
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
