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

      # Seconds until the warning of a `setup` that blocks the reactor: longer than any healthy one takes.
      WARN_AFTER = 10

      # Calls the reactor when the pipe is readable, in each tick while it is.
      #
      # EventMachine may keep this object for ever (a watch that ends in the tick in which it began), so `release` drops
      # the reference to the reactor.
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

      # Calls the reactor when EventMachine ends, while its API still works: after EM.run it does not.
      #
      # EventMachine keeps this object until then, so `release` drops the reference to the reactor.
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

      def reads_heartbeats? = true

      # As in version 0.0.3, where `offline` ran in a timer: its exceptions go to EM.error_handler, or out of EM.run.
      def raises_errors? = true

      # After an exception in a shutdown hook EventMachine counts as running for ever.
      def usable? = super && EM.reactor_running? && EM.reactor_thread.alive?

      # Calls the block on the current thread, which may be the reactor's or another one.
      def setup(&setup)
        unless EM.reactor_running?
          raise Error, "no EventMachine reactor runs: call setup inside EM.run, or call run instead"
        end

        EM.reactor_thread? ? warn_if_setup_blocks(&setup) : yield
      end

      # Starts an EventMachine reactor and calls the block in it. Inside a running one it only calls the block, as a
      # nested EM.run does.
      def run(&setup)
        return setup(&setup) if EM.reactor_running?

        @runs_reactor = true
        begin
          EM.run do
            # First, since a stop in a trap handler can only make the pipe readable.
            attach
            # A stop before `attach` found no reactor to end.
            @lifecycle.stopping? ? drain_and_detach : warn_if_setup_blocks(&setup)
          end
        ensure
          drain_and_detach
          raise @exit if @exit
        end
      end

      def start
        # Here and not only in `attach`: the reactor may end before it runs that.
        @shutdown_hook ||= ShutdownHook.new(self)
        if Delivery.in_trap_handler? && !EM.reactor_thread?
          # EM.schedule locks a Mutex, which a trap handler cannot.
          ::Thread.new { EM.schedule { attach } }
        else
          EM.schedule { attach }
        end
      end

      # Delivers. Called by EventMachine when the pipe is readable.
      def pipe_readable
        return unless @lifecycle.stopped? || @lifecycle.deliver == :finished

        detach
        EM.stop if @runs_reactor
      end

      # Sets the remaining users offline. Called by EventMachine at its end; also by the copy of the hook in a forked
      # child, which must do nothing.
      def shut_down
        drain_and_detach if usable?
      rescue SystemExit, SignalException => e
        raise unless @runs_reactor

        # Raised here, it would keep EventMachine from cleaning up, and from ever running again. `run` raises it later.
        @exit = e
      end

      private

      # Whether the current thread is the running reactor's, so that EventMachine's API may be called.
      def on_reactor_thread? = usable? && EM.reactor_thread?

      def wait(timeout)
        return drain_and_detach(timeout) if EM.reactor_thread?
        # Its `run` notices a stop by the pipe, or ends with its reactor; that reactor may not have started yet.
        return wait_or_drain(timeout) { false } if @runs_reactor

        wait_for_reactor(timeout && (Latch.now + timeout))
      end

      # Waits in short steps: the reactor may end at any moment, and then drops scheduled blocks.
      def wait_for_reactor(stop_at)
        loop do
          remaining = stop_at && [stop_at - Latch.now, 0].max
          return drain_and_detach(remaining) if !usable? || @lifecycle.left?

          # With a watch the pipe has woken the reactor. Without one there was no heartbeat, so the drain ends at once.
          EM.schedule { drain_and_detach unless @watch || @lifecycle.stopped? }
          return if @lifecycle.wait([remaining, POLL_INTERVAL].compact.min) || remaining&.zero?
        end
      end

      def attach
        return if @watch || @lifecycle.stopped?

        @shutdown_hook ||= ShutdownHook.new(self)
        @watch = EM.watch(@delivery.pipe, PipeWatch, self)
        @watch.notify_readable = true
      end

      def drain_and_detach(timeout = nil)
        drain_here(timeout)
      ensure
        # Not after a timeout: then the reactor goes on delivering.
        if @lifecycle.stopped?
          detach
          EM.stop if @runs_reactor && on_reactor_thread?
        end
      end

      # Ends the watch, before the pipe is closed; not in a forked child, whose EventMachine is not the one that
      # watches.
      def detach
        @shutdown_hook&.release
        watch = @watch
        @watch = nil
        return unless watch

        watch.release
        watch.detach if on_reactor_thread?
      end

      # Calls the block on the reactor's thread, and warns if it does not return: the reactor serves nothing meanwhile.
      def warn_if_setup_blocks
        timer = ::Thread.new do
          sleep WARN_AFTER
          Integration.current.warn("#{@delivery.config.name}#setup has blocked the EventMachine reactor for " \
                                   "#{WARN_AFTER} s, so no user can be set offline: let it return, or pass " \
                                   "`reactor: :thread` if it has to block")
        end
        yield
      ensure
        timer&.kill
      end
    end
  end
end
