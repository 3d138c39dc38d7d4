# frozen_string_literal: true

require_relative "callback_invoker"
require_relative "integration"
require_relative "latch"
require_relative "watchdog"

class OnlineManager
  # Delivers the transitions of the store `:memory` to the config, in order for each user, until a stop is done. A first
  # `online` runs on the heartbeat's thread; the reactor calls the others, one at a time.
  #
  # It is the callback target of a NativeTracker, which calls `ready`, `timeout` and the callbacks (`online`,
  # `online_all`, `rejoin`, `offline`, `offline_all`); a reactor calls `deliver`, `drain` and `finish`.
  #
  # @private
  class Delivery
    include CallbackInvoker

    # Seconds of callbacks after which the reactor gets to do other things. With less, delivery collapses beside a busy
    # thread, which keeps the GVL for 100 ms each time; with more, the reactor's other work stalls.
    SLICE = 0.005

    # Whether the current thread runs a trap handler: there a Mutex raises ThreadError, so nothing may wait.
    def self.in_trap_handler?
      Mutex.new.synchronize { false }
    rescue ThreadError
      true
    end

    # @return [NativeTracker, NativeMember] the tracker, or the member of a shared store
    attr_reader :native
    # @return [Config]
    attr_reader :config
    # @return [Reactor::Base, nil] nil until the manager is set up
    attr_accessor :reactor

    # @param config [Config]
    # @param namespace [String, nil]
    # @yield once, when a stop is done, on the thread that finds that out
    def initialize(config, namespace, &on_finish)
      @config = config
      @namespace = namespace
      @on_finish = on_finish
      @finished = Latch.new
      @native = build_native
      @watchdog = Watchdog.new(@config.method(:name)) { @delivering }
      @stopping = false
      @errors = 0
    end

    # @return [IO] the wakeup pipe, readable while `deliver` has something to do. Each process has its own.
    def pipe
      @pipe = nil unless @pipe_owner == Process.pid
      @pipe_owner = Process.pid
      @pipe ||= IO.for_fd(@native.pipe)
    end

    # Calls the callbacks that are due, for SLICE seconds. Runs on the reactor.
    #
    # @return [Symbol] :idle if nobody is due, :busy if the time is up, :finished if a stop is done
    def deliver
      @watchdog.wake
      stop_at = Latch.now + SLICE
      loop do
        # Read before the claim: if a stop came before an empty claim, no user remains.
        stopping = @stopping
        if deliver_next
          return :busy if Latch.now >= stop_at
        elsif stopping
          return drained? ? :finished : :idle
        elsif !@stopping
          # A stop that comes later makes the pipe readable again. For one that came since the claim, the claim has
          # taken the byte out of the pipe: then it must claim once more, whatever the time.
          return :idle
        end
      end
    end

    # Sets the remaining users offline, on the current thread. An `exit` in a callback is raised after the others have
    # been called; a signal ends it at once.
    #
    # @param timeout [Float, nil] seconds after which no further callback is called; nil sets no limit
    # @return [Boolean] whether all of them are offline
    def drain(timeout = nil)
      stop
      @draining = true
      exit = nil
      stop_at = timeout && (Latch.now + timeout)
      begin
        nil until (state = deliver) == :finished || (stop_at && Latch.now >= stop_at)
      rescue SystemExit => e
        exit ||= e
        retry
      end
      raise exit if exit

      state == :finished
    ensure
      @draining = false
    end

    # @return [Integer] how many users have not been set offline yet
    def remaining = @native.size

    # Checks a shared store before `setup`; `:memory` needs no check.
    def check_store; end

    # Called before the config's `setup`.
    def before_setup; end

    # Begins a stop: ignores heartbeats from now on, and makes every user due. Safe in a trap handler.
    def stop
      @native.stop
      @stopping = true
      # A reactor that claimed between the two lines above found nobody, and would sleep on without this.
      @native.wake
    end

    def stopping? = @stopping

    # Ends a stop: wakes the threads that wait for it. Called by the reactor, when `deliver` has returned :finished.
    def finish
      return if finished?

      @watchdog.finish
      @on_finish.call
      @finished.open
    end

    def finished? = @finished.open?

    # Waits for the end of a stop.
    #
    # @param timeout [Float, nil] seconds; nil sets no limit
    # @return [Boolean] whether it is done
    def wait(timeout) = @finished.wait(timeout)

    # @return [Hash] the part of the manager's `stats` about callbacks
    def stats
      method, since = @delivering
      { errors: @errors, delivering: method, delivering_for: since && (Latch.now - since) }
    end

    # -- called by NativeTracker -----------------------------------------------------------------

    # Starts the reactor. Called for the first heartbeat in this process, on the thread that reports it.
    #
    # @raise [Error] if the manager is not set up yet
    def ready
      raise Error, "a heartbeat came before the manager was set up: call setup or run first" unless @reactor

      @reactor = @reactor.successor unless @reactor.usable?
      warn_if_not_alone
      @reactor.start
    end

    # @return [Integer] nanoseconds
    def timeout = Integration.current.around_heartbeat { @config.timeout }

    def online(user_id) = call_at_heartbeat(Call.new(:online, [user_id]))

    def online_all(user_ids) = call_at_heartbeat(Call.new(:online, user_ids, batch: true))

    # Calls `online` on the reactor, for a user who sent a heartbeat during its `offline`.
    def rejoin(user_id, entered, details) = deliver_call(Call.new(:online, [user_id], details:), entered)

    def offline(user_id, entered, details) = deliver_call(Call.new(:offline, [user_id], details:), entered)

    def offline_all(user_ids, entered, details)
      deliver_call(Call.new(:offline, user_ids, batch: true, details:), entered)
    end

    private

    def build_native = NativeTracker.new(self)

    # Calls the next callback.
    #
    # @return [Boolean] whether there was one
    def deliver_next = @native.deliver(@config.offline_all?, Integration.current.notify?(:offline))

    def warn_if_not_alone = Integration.current.warn_if_not_alone(@namespace)

    # @return [Boolean] whether a stop is done once no callback is due
    def drained? = true

    def warn(message) = Integration.current.warn(message)
  end
end
