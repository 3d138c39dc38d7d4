# frozen_string_literal: true

require_relative "callbacks"
require_relative "latch"
require_relative "watchdog"

class OnlineManager
  # Calls the config's methods, one user at a time and in order, and decides what an exception does.
  #
  # It is the host of a Native: that calls `ready`, `timeout` and the callbacks (`online`, `online_all`,
  # `revive`, `offline`, `offline_all`); a reactor calls `deliver`, `drain` and `finish`.
  class Delivery
    # Seconds of callbacks after which a reactor gets to do other things. Shorter, and delivery
    # collapses beside a busy thread, which takes 100 ms at each turn; longer, and the others stall.
    SLICE = 0.005

    # Whether the present thread runs a trap handler, where nothing may be waited for.
    def self.trap_handler?
      Mutex.new.synchronize { false }
    rescue ThreadError
      true
    end

    attr_reader :native, :config
    attr_accessor :reactor

    # @param config [Config]
    # @yield once nobody is left after a stop, on the thread that found that out
    def initialize(config, &on_finish)
      @config = config
      @on_finish = on_finish
      @finished = Latch.new
      @native = new_native
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
      @watchdog.look
      stop_at = Latch.now + SLICE
      loop do
        # Read before each claim: if that finds nobody, nobody was left after the stop.
        stopping = @stopping
        if deliver_next
          return :busy if Latch.now >= stop_at
        elsif stopping
          return nobody_left? ? :finished : :idle
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
    def launched; end

    # Bars new users and makes everybody due.
    def stop
      @native.stop
      @stopping = true
      # Whoever has looked in between has found nobody, and waits.
      @native.rouse
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

    # @return [Boolean] whether the present fiber is in one of this manager's callbacks
    def callback? = Callbacks.of_present_fiber.include?(self)

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
      @reactor.start
    end

    # @return [Integer] nanoseconds
    def timeout = @config.timeout

    def online(user_id)
      callback { @config.online(user_id) }
    end

    def online_all(user_ids)
      callback { @config.online_all(user_ids) }
    end

    # `online` on the reactor, for a user who beat during its `offline`.
    def revive(user_id, entered)
      deliver_one(:online, user_id, entered) { |config| config.online(user_id) }
    end

    def offline(user_id, entered)
      deliver_one(:offline, user_id, entered) { |config| config.offline(user_id) }
    end

    def offline_all(user_ids, entered)
      deliver_one(:offline_all, user_ids, entered) { |config| config.offline_all(user_ids) }
    end

    private

    def new_native = Native.new(self)

    # Calls the next callback, if there is one to be called.
    def deliver_next = @native.deliver(@config.offline_all?)

    # Whether a stop is done when there is no callback to be called.
    def nobody_left? = true

    # @yield what calls the config's method, first of all: Ruby looks for Thread#kill and the like when
    #   one of its methods returns or branches. None does between the mark in `entered` and that call,
    #   so the mark tells exactly whether there was a call
    # @yieldparam config [Object]
    # @return [Boolean] whether that call returned
    def deliver_one(method, user_id, entered)
      callback do
        config = @config.object
        @delivering = [method, Latch.now]
        entered << true
        yield config
      end
      true
    rescue SystemExit, SignalException
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, the others are still called
      # Raised into this thread before there was a call: not the callback's, and not for its handler.
      raise if entered.empty? || passing_by?(e)

      handle(e, method, user_id)
      false
    ensure
      @delivering = nil
    end

    def callback
      callbacks = Callbacks.of_present_fiber
      callbacks.push(self)
      yield
    ensure
      callbacks&.pop
    end

    def handle(error, method, user_id)
      @errors += 1
      if @config.on_error?
        report_to_config(error, user_id)
      elsif @reactor.raises_errors? && !@draining
        raise error
      else
        warn("#{@config.name}##{method} raised:\n#{error.full_message(highlight: false)}")
      end
    end

    def report_to_config(error, user_id)
      @delivering = [:on_error, Latch.now]
      callback { @config.on_error(error, user_id) }
    rescue SystemExit, SignalException
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException -- as above
      raise if passing_by?(e)

      warn("#{@config.name}#on_error raised:\n#{e.full_message(highlight: false)}" \
           "while it was told of:\n#{error.full_message(highlight: false)}")
    end

    # Whether the exception is not the callback's, though it comes in the middle of it: how the reactor
    # ends, or a Timeout around `run`. (One within the callback is a Timeout::Error where it comes out.)
    def passing_by?(error)
      @reactor.ends_with?(error) ||
        (defined?(::Timeout::ExitException) && error.is_a?(::Timeout::ExitException))
    end

    def warn(message) = Kernel.warn("OnlineManager: #{message}")
  end
end
