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
    class EventMachine < Base
      EM = ::EventMachine
      private_constant :EM

      # Seconds after which a `setup` that keeps the reactor from running is named.
      PATIENCE = 10

      # Tells the reactor that the pipe is readable, and again at each of its turns while it is so.
      class Watch < EM::Connection
        def initialize(reactor)
          super()
          @reactor = reactor
        end

        def notify_readable = @reactor.turn
      end
      private_constant :Watch

      def name = :eventmachine

      # In 0.0.3 an exception in `offline` came out of a timer: out of EM.run, or to EM.error_handler.
      def raises_errors? = true

      def usable? = super && EM.reactor_running?

      # Calls the block on the present thread, which may be the reactor's or another one.
      def setup(&setup)
        unless EM.reactor_running?
          raise Error, "no EventMachine reactor runs: call setup inside EM.run, or call run instead"
        end

        EM.reactor_thread? ? watch_over(&setup) : yield
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
            watch_over(&setup)
          end
        ensure
          drain_here
        end
      end

      def start
        if Delivery.trap_handler? && !EM.reactor_thread?
          # EM.schedule takes a Mutex, which a trap handler must not.
          ::Thread.new { EM.schedule { attach } }
        else
          EM.schedule { attach }
        end
      end

      # The pipe is readable.
      def turn
        return if @delivery.finished? || @delivery.deliver != :finished

        detach
        @delivery.finish
        EM.stop if @runs_reactor
      end

      private

      def wait(timeout)
        return drain_and_detach(timeout) if !usable? || EM.reactor_thread?

        # Who watches the pipe is told by it. Nobody does before the first heartbeat, and then nobody is online.
        EM.schedule { drain_and_detach unless @watch || @delivery.finished? }
        @delivery.wait(timeout)
      end

      def attach
        return if @watch || @delivery.finished?

        @watch = EM.watch(@delivery.pipe, Watch, self)
        @watch.notify_readable = true
        # EventMachine's API still works in there; after EM.run it does not.
        # A child of fork has a copy of the hook.
        EM.add_shutdown_hook { drain_and_detach if usable? }
      end

      def drain_and_detach(timeout = nil)
        drain_here(timeout)
      ensure
        # After a timeout the rest are called as before.
        if @delivery.finished?
          detach
          EM.stop if @runs_reactor && usable?
        end
      end

      # Before the pipe is closed, and never in a child, whose reactor is not the one that watches.
      def detach
        watch = @watch
        @watch = nil
        watch.detach if watch && usable?
      end

      # The reactor serves nobody while its thread is in the block.
      def watch_over
        watcher = ::Thread.new do
          sleep PATIENCE
          Kernel.warn("OnlineManager: #{@delivery.config.name}#setup has kept the EventMachine reactor from " \
                      "running for #{PATIENCE} s, so nobody can be set offline. If it is meant to block, " \
                      "pass `reactor: :thread`")
        end
        yield
      ensure
        watcher&.kill
      end
    end
  end
end
