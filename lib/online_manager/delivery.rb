# frozen_string_literal: true

require_relative "callback_invoker"
require_relative "integration"
require_relative "latch"
require_relative "lifecycle"
require_relative "store_option"
require_relative "watchdog"

class OnlineManager
  # Delivers the transitions of the store `:memory` to the config, in order for each user. A first `online` runs on the
  # heartbeat's thread; the reactor calls the others, one at a time.
  #
  # It is the callback target of a NativeTracker, which calls `ready`, `timeout` and the callbacks (`online`,
  # `online_all`, `rejoin`, `offline`, `offline_all`). Its Lifecycle calls `deliver` and `deliver_rest`, and decides who
  # delivers until when.
  #
  # @private
  class Delivery
    include CallbackInvoker

    # Whether the current thread runs a trap handler: there a Mutex raises ThreadError, so nothing may wait.
    def self.in_trap_handler?
      Mutex.new.synchronize { false }
    rescue ThreadError
      true
    end

    # @return [Lifecycle]
    attr_reader :lifecycle
    # @return [NativeTracker, NativeMember] the tracker, or the member of a shared store
    attr_reader :native
    # @return [Config]
    attr_reader :config
    # @return [Integer] how many callbacks have been called on the reactor
    attr_reader :calls
    # @return [Reactor::Base, nil] nil until the manager is set up
    attr_accessor :reactor

    # @param config [Config]
    # @param namespace [String, nil]
    # @param max_sessions [Integer, nil] how many sessions a user may have; nil if the store keeps none
    # @yield once, when the manager has stopped, on the thread that finds that out
    def initialize(config, namespace, max_sessions = nil, &on_stopped)
      @config = config
      @namespace = namespace
      @max_sessions = max_sessions
      @lifecycle = Lifecycle.new(self, &on_stopped)
      @native = build_native
      @watchdog = Watchdog.new(@config.method(:name)) { @delivering }
      @errors = 0
      @calls = 0
    end

    # @return [IO] the wakeup pipe, readable while `deliver` has something to do. Each process has its own.
    def pipe
      unless @pipe_owner == Process.pid
        # Forks of forks would run out of descriptors before the garbage collector runs.
        @pipe&.close
        @pipe = nil
        @pipe_owner = Process.pid
      end
      @pipe ||= IO.for_fd(@native.pipe)
    end

    # Calls the callbacks that are due, until a stop.
    #
    # @param stop_at [Float] seconds of the monotonic clock
    # @return [Symbol] :idle if nobody is due, :busy if the time is up, :stopping if a stop has begun
    def deliver(stop_at)
      @watchdog.wake
      until @lifecycle.stopping?
        if deliver_next
          return :busy if Latch.now >= stop_at
        elsif !@lifecycle.stopping?
          # A stop that comes later makes the pipe readable again. For one that came since the claim, the claim has
          # taken the byte out of the pipe.
          return :idle
        end
      end
      :stopping
    end

    # Calls the callbacks of everybody who is left, after a stop.
    #
    # @param stop_at [Float, nil] seconds of the monotonic clock; nil sets no limit
    # @return [Symbol] :finished, or :busy if the time is up, or :idle if it has to wait for more
    def deliver_rest(stop_at)
      @watchdog.wake
      until @lifecycle.stopped?
        return drained? ? :finished : :idle unless deliver_next
        return :busy if stop_at && Latch.now >= stop_at
      end
      :finished
    end

    # Waits for more to deliver. The memory store has everybody at hand.
    def wait_for_more; end

    # @return [Integer] how many users have not been set offline yet
    def remaining = @native.size

    # Checks a shared store before `setup`; `:memory` needs no check.
    def check_store; end

    # Called before the config's `setup`.
    #
    # @param timeout [Integer, nil] the config's timeout in nanoseconds; nil if it has none yet
    def before_setup(timeout); end

    # Ignores heartbeats from now on, and makes every user due. Safe in a trap handler.
    def bar_heartbeats = @native.stop

    # Called once the manager has stopped.
    def close = @watchdog.finish

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
      # A child that was forked at exit has inherited no at_exit block.
      Registry.stop_all_at_exit
      @reactor.start
    end

    # @return [Integer] nanoseconds
    def timeout = Integration.current.around_heartbeat { @config.timeout }

    # @param user_id [Object]
    # @param seen_ago [Float] how many seconds ago the heartbeat came
    def online(user_id, seen_ago) = call_at_heartbeat(Call.new(:online, [user_id], seen_ago: [seen_ago]))

    # @param user_ids [Array]
    # @param seen_ago [Float] how many seconds ago their heartbeats came
    def online_all(user_ids, seen_ago)
      call_at_heartbeat(Call.new(:online, user_ids, batch: true, seen_ago: Array.new(user_ids.size, seen_ago)))
    end

    # Calls `online` on the reactor, for a user who sent a heartbeat during its `offline`.
    def rejoin(user_id, entered, details, seen_ago)
      deliver_call(Call.new(:online, [user_id], details:, seen_ago:), entered)
    end

    def offline(user_id, entered, details, seen_ago)
      deliver_call(Call.new(:offline, [user_id], details:, seen_ago:), entered)
    end

    def offline_all(user_ids, entered, details, seen_ago)
      deliver_call(Call.new(:offline, user_ids, batch: true, details:, seen_ago:), entered)
    end

    private

    def build_native = NativeTracker.new(self, @max_sessions)

    # @return [Integer] what a version has to be below
    def max_version = StoreOption::MAX_VERSIONS[:memory]

    def last_version=(version)
      Call.last_version = version
    end

    # Calls the next callback.
    #
    # @return [Boolean] whether there was one
    def deliver_next
      claim_and_call
    rescue Config::Changed
      true # nobody was called, and the next claim goes by the new config
    end

    def claim_and_call
      together = @config.offline_all?
      dated = @config.dated?(:online) || @config.dated?(together ? :offline_all : :offline)
      @native.deliver(together, Integration.current.notify?(:offline), dated, @reactor&.reads_heartbeats? || false)
    end

    def warn_if_not_alone = Integration.current.warn_if_not_alone(@namespace)

    # @return [Boolean] whether a stop is done once no callback is due
    def drained? = true

    def warn(message) = Integration.current.warn(message)
  end
end
