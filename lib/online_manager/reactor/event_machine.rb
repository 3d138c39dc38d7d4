# frozen_string_literal: true

begin
  require "eventmachine"
rescue LoadError
  raise OnlineManager::Error, "the reactor :eventmachine needs the gem eventmachine: " \
                              "add `gem \"eventmachine\"` to your Gemfile beside online_manager"
end

class OnlineManager
  module Reactor
    # An EventMachine reactor: one that `run` starts, or one that runs already.
    #
    # @private
    class EventMachine < Base
      EM = ::EventMachine
      private_constant :EM

      # Seconds after which a `setup` that keeps the reactor from running is named.
      WARN_AFTER = 10

      # Seconds after which a stop that waits for the reactor looks whether that still runs.
      POLL_INTERVAL = 0.1

      # Tells the reactor that the pipe is readable, and again at each of its turns while it is so.
      #
      # EventMachine may keep it longer than we do: a watch that ends in the tick in which it began, for ever.
      #
      # @private
      class PipeWatch < EM::Connection
        def initialize(reactor)
          super()
          @reactor = reactor
        end

        def notify_readable = @reactor&.pipe_readable

        def release = @reactor = nil
      end

      # Tells the reactor that EventMachine ends, while its API still works: after EM.run it does not.
      #
      # EventMachine keeps it until then, and so it must not keep the manager.
      #
      # @private
      class ShutdownHook
        def initialize(reactor)
          @reactor = reactor
          EM.add_shutdown_hook(&method(:call))
        end

        def call = @reactor&.shut_down

        def release = @reactor = nil
      end
      private_constant :PipeWatch, :ShutdownHook

      def name = :eventmachine

      # In 0.0.3 an exception in `offline` came out of a timer: out of EM.run, or to EM.error_handler.
      def raises_errors? = true

      def usable? = super && EM.reactor_running?

      # Calls the block on the present thread, which may be the reactor's or another one.
      def setup(&setup)
        unless EM.reactor_running?
          raise Error, "no EventMachine reactor runs: call setup inside EM.run, or call run instead"
        end

        EM.reactor_thread? ? warn_if_setup_blocks(&setup) : yield
      end

      # Starts a reactor and calls the block in it; in a reactor that runs, as a nested EM.run does,
      # it only calls the block.
      def run(&setup)
        return setup(&setup) if EM.reactor_running?

        @runs_reactor = true
        begin
          EM.run do
            # A stop in a trap handler can do no more than make the pipe readable.
            attach
            # A stop that came before that did not know of the reactor.
            @delivery.stopping? ? drain_and_detach : warn_if_setup_blocks(&setup)
          end
        ensure
          drain_and_detach
          raise @exit if @exit
        end
      end

      def start
        # Not only where the pipe is watched: the reactor may end before it gets to that.
        @shutdown_hook ||= ShutdownHook.new(self)
        if Delivery.in_trap_handler? && !EM.reactor_thread?
          # EM.schedule takes a Mutex, which a trap handler must not.
          ::Thread.new { EM.schedule { attach } }
        else
          EM.schedule { attach }
        end
      end

      # The pipe is readable.
      def pipe_readable
        return unless @delivery.finished? || @delivery.deliver == :finished

        detach
        @delivery.finish
        EM.stop if @runs_reactor
      end

      # EventMachine ends. A child of fork has a copy of the hook.
      def shut_down
        drain_and_detach if usable?
      rescue SystemExit => e
        raise unless @runs_reactor

        # It would keep EventMachine from cleaning up behind itself, and from running ever again: so it waits for that.
        @exit = e
      end

      private

      # Whether the present thread is in the reactor that runs, so that it may be told something.
      def on_reactor_thread? = usable? && EM.reactor_thread?

      def wait(timeout)
        return drain_and_detach(timeout) if EM.reactor_thread?
        # `run` is told by its watch, or ends with its reactor; the one that it starts may be yet to come.
        return @delivery.wait(timeout) if @runs_reactor

        wait_for_reactor(timeout && (Latch.now + timeout))
      end

      # The reactor may end at any moment, and drops what has been scheduled.
      def wait_for_reactor(stop_at)
        loop do
          remaining = stop_at && [stop_at - Latch.now, 0].max
          return drain_and_detach(remaining) unless usable?

          # Who watches the pipe is told by it. Nobody does before the first heartbeat, and then nobody is online.
          EM.schedule { drain_and_detach unless @watch || @delivery.finished? }
          return if @delivery.wait([remaining, POLL_INTERVAL].compact.min) || remaining&.zero?
        end
      end

      def attach
        return if @watch || @delivery.finished?

        @shutdown_hook ||= ShutdownHook.new(self)
        @watch = EM.watch(@delivery.pipe, PipeWatch, self)
        @watch.notify_readable = true
      end

      def drain_and_detach(timeout = nil)
        drain_here(timeout)
      ensure
        # After a timeout the rest are called as before.
        if @delivery.finished?
          detach
          EM.stop if @runs_reactor && on_reactor_thread?
        end
      end

      # Before the pipe is closed, and never in a child, whose reactor is not the one that watches.
      def detach
        @shutdown_hook&.release
        watch = @watch
        @watch = nil
        return unless watch

        watch.release
        watch.detach if on_reactor_thread?
      end

      # The reactor serves nobody while its thread is in the block.
      def warn_if_setup_blocks
        timer = ::Thread.new do
          sleep WARN_AFTER
          Integration.current.warn("#{@delivery.config.name}#setup has kept the EventMachine reactor from running " \
                                   "for #{WARN_AFTER} s, so nobody can be set offline. If it is meant to block, pass " \
                                   "`reactor: :thread`")
        end
        yield
      ensure
        timer&.kill
      end
    end
  end
end
