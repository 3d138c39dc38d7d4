# frozen_string_literal: true

require_relative "callback_invoker"
require_relative "integration"
require_relative "latch"
require_relative "watchdog"

class OnlineManager
  # Calls the config's methods, one user at a time and in order, until a stop is done.
  #
  # It is the callback target of a Native, which calls `ready`, `timeout` and the callbacks (`online`, `online_all`,
  # `rejoin`, `offline`, `offline_all`); a reactor calls `deliver`, `drain` and `finish`.
  #
  # @private
  class Delivery
    include CallbackInvoker

    # Seconds of callbacks after which a reactor gets to do other things. Shorter, and delivery
    # collapses beside a busy thread, which takes 100 ms at each turn; longer, and the others stall.
    SLICE = 0.005

    # Whether the present thread runs a trap handler, where nothing may be waited for.
    def self.in_trap_handler?
      Mutex.new.synchronize { false }
    rescue ThreadError
      true
    end

    attr_reader :native, :config
    attr_accessor :reactor

    # @param config [Config]
    # @param namespace [String, nil]
    # @yield once nobody is left after a stop, on the thread that found that out
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

    # A descriptor to wait on: readable while `deliver` has something to do. One for each process.
    def pipe
      @pipe = nil unless @pipe_owner == Process.pid
      @pipe_owner = Process.pid
      @pipe ||= IO.for_fd(@native.pipe)
    end

    # Calls the callbacks of who is due, for SLICE at the most.
    #
    # @return [Symbol] :idle when nobody is due, :busy when time was up, :finished when a stop has been
    #   asked for and nobody is left
    def deliver
      @watchdog.wake
      stop_at = Latch.now + SLICE
      loop do
        # Read before each claim: if that finds nobody, nobody was left after the stop.
        stopping = @stopping
        if deliver_next
          return :busy if Latch.now >= stop_at
        elsif stopping
          return drained? ? :finished : :idle
        elsif !@stopping
          # A stop that comes later makes the pipe readable again; for one that has just come, this has
          # taken the byte, so look once more, whatever the time.
          return :idle
        end
      end
    end

    # Sets the remaining users offline on the present thread. An `exit` in a callback does not keep
    # the others from being called and is raised at the end; a signal ends it at once.
    #
    # @param timeout [Float, nil] seconds after which no further callback is called; nil sets no limit
    # @return [Boolean] whether nobody is left
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

    # How many users have not been set offline yet.
    def remaining = @native.size

    # Checks the store, if it is one that could be away.
    def check_store; end

    # The manager is about to be set up.
    def before_setup; end

    # Bars new users and makes everybody due.
    def stop
      @native.stop
      @stopping = true
      # Whoever has looked in between has found nobody, and waits.
      @native.wake
    end

    def stopping? = @stopping

    # Tells whoever waits for a stop that nobody is left. Called by the reactor, last of all.
    def finish
      return if finished?

      @watchdog.finish
      @on_finish.call
      @finished.open
    end

    def finished? = @finished.open?

    # @return [Boolean] whether it finished in time
    def wait(timeout) = @finished.wait(timeout)

    # @return [Hash] what the manager's `stats` say about callbacks
    def stats
      method, since = @delivering
      { errors: @errors, delivering: method, delivering_for: since && (Latch.now - since) }
    end

    # -- called by Native ------------------------------------------------------------------------

    # The first heartbeat in this process has come.
    def ready
      raise Error, "the manager does not run yet: call setup or run before its first heartbeat" unless @reactor

      @reactor = @reactor.successor unless @reactor.usable?
      warn_if_not_alone
      @reactor.start
    end

    # @return [Integer] nanoseconds
    def timeout = Integration.current.around_heartbeat { @config.timeout }

    def online(user_id) = call_at_heartbeat(Call.new(:online, [user_id]))

    def online_all(user_ids) = call_at_heartbeat(Call.new(:online, user_ids, batch: true))

    # `online` on the reactor, for a user who beat during its `offline`.
    def rejoin(user_id, entered, details) = deliver_call(Call.new(:online, [user_id], details:), entered)

    def offline(user_id, entered, details) = deliver_call(Call.new(:offline, [user_id], details:), entered)

    def offline_all(user_ids, entered, details)
      deliver_call(Call.new(:offline, user_ids, batch: true, details:), entered)
    end

    private

    def build_native = Native.new(self)

    # Calls the next callback, if there is one to be called.
    def deliver_next = @native.deliver(@config.offline_all?, Integration.current.notify?(:offline))

    def warn_if_not_alone = Integration.current.warn_if_not_alone(@namespace)

    # Whether a stop is done when there is no callback to be called.
    def drained? = true

    def warn(message) = Integration.current.warn(message)
  end
end
