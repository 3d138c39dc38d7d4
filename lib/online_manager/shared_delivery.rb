# frozen_string_literal: true

require_relative "delivery"
require_relative "forks"
require_relative "native_member"

class OnlineManager
  # Delivers the events of a shared store to the config; their heartbeats may have come in other processes. An event
  # whose callback raises is delivered again, so the error goes to `on_error` or is reported, and never into the
  # reactor.
  #
  # It is the callback target of a NativeMember, which calls `ready`, `start_member`, `timeout`, `ask_for_member`,
  # `deliver_events` and `store_failed`.
  #
  # @private
  class SharedDelivery < Delivery
    # Seconds between two checks, while a stop waits, whether everything has been written.
    POLL_INTERVAL = 0.05
    # Seconds until the config's timeout is read again, if it raised.
    TIMEOUT_RETRY_DELAY = 1

    # @param config [Config]
    # @param store [StoreOption]
    # @param namespace [String, nil]
    def initialize(config, store, namespace, &on_stopped)
      @store = store
      super(config, namespace, &on_stopped)
    end

    # Opens the store once, and warns if it cannot be reached, or is set up in a way that loses data. Creates nothing.
    # A process that does not participate, such as a rake task, does not need the store.
    #
    # @raise [StoreError] if it is misconfigured
    def check_store
      return unless Integration.current.participates?

      @native.check.each { |warning| warn(warning) }
    end

    # Makes the process a member one timeout after now, or after the boot of the application, if no heartbeat comes
    # before: events of other processes are delivered then too.
    def before_setup(timeout)
      @start_delay = timeout ? timeout / 1e9 : TIMEOUT_RETRY_DELAY
      Forks.add(self)
      schedule_start
    end

    def close
      super
      Forks.remove(self)
    end

    # Called in the parent after a fork. A parent without heartbeats does not become a member by itself any more: it is
    # a preloading master, which only forks.
    def after_fork_in_parent
      @start_timer&.kill
      @native.resume
    end

    # Called in the child after a fork.
    def after_fork_in_child
      schedule_start unless @lifecycle.stopping?
    end

    # Waits for the member, which writes the remaining heartbeats. Nobody is set offline: other processes share the
    # store.
    def wait_for_more = pipe.wait_readable(POLL_INTERVAL)

    def bar_heartbeats
      @start_timer&.kill unless @start_timer == ::Thread.current
      super
    end

    # @return [Integer] 0, since a stop sets nobody offline
    def remaining = 0

    # @return [Hash] see {Delivery#stats}
    def stats = super.merge(@native.status)

    # -- called by NativeMember ------------------------------------------------------------------

    def ready
      super
      start_member
    end

    # @return [Integer] nanoseconds; not less than the store can keep
    def timeout
      timeout = super
      return timeout if timeout >= @store.min_timeout

      warn_of_short_timeout(timeout)
      @store.min_timeout
    end

    # Nothing to warn of: processes share the store.
    def warn_if_not_alone; end

    # Starts the member's threads, unless a fork is in progress: then they start after it. They leave the store alone
    # until the reactor has asked the config for its last version.
    def start_member
      return if Forks.in_progress?

      @native.await_last_version if @config.last_version?
      @native.start_member
    end

    # Asks the config for its last version, for the member to begin. It begins in any case.
    def ask_for_member
      Integration.current.around_delivery do
        track_callback { ask_last_version { @delivering = [:last_version, Latch.now] } }
      end
    rescue Unloadable => e
      report_last_version_error(e)
    ensure
      @delivering = nil
      # If there is none.
      @native.last_version = 0
    end

    # Calls the config for events of the log.
    #
    # @param transition [Symbol] :online or :offline
    # @param user_ids [Array] one id, unless the config has the `_all` form
    # @param versions [Array<Integer>] in the order of the users
    # @param entered [Array] see {CallbackInvoker#deliver_call}
    # @param details [Array] see {Call}
    # @param seen_ago [Array<Float>] see {Call}
    # @return [true, String] true if the callback returned; the class and message of what it raised
    def deliver_events(transition, user_ids, versions, entered, details, seen_ago) # rubocop:disable Metrics/ParameterLists
      @raised = nil
      # Several were claimed for a batch, whatever the config has by now.
      batch = user_ids.size > 1 || @config.batch?(transition)
      deliver_call(Call.new(transition, user_ids, batch:, details:, versions:, seen_ago:), entered) || @raised
    end

    # Reports that the store has failed. Called once for each outage, and again if it turns out to be permanent.
    def store_failed(message)
      error = StoreError.new(message)
      return report_to_config(error, nil) if @config.on_error?

      warn("the store has failed, and is tried again until it works; heartbeats are kept meanwhile: #{message}")
    ensure
      @delivering = nil
    end

    private

    def build_native = @store.open(self, @namespace.to_s)

    def max_version = @store.max_version

    def last_version=(version)
      @native.last_version = version
    end

    def claim_and_call
      @native.deliver(@config.online_all?, @config.offline_all?, @reactor&.reads_heartbeats? || false)
    end

    def drained? = @native.ended?

    def handle_error(error, call)
      @raised = "#{error.class}: #{error.message}"
      @errors += 1
      return report_to_config(error, call.argument) if @config.on_error?

      Integration.current.report(error, "#{callback_name(call)} raised, and will be called again", call.argument)
    end

    # Warns once.
    def warn_of_short_timeout(timeout)
      return if @warned_of_short_timeout

      @warned_of_short_timeout = true
      warn("#{@config.name}#timeout is #{timeout / 1e9} s, shorter than the store #{@store.name} can keep: " \
           "#{@store.min_timeout / 1e9} s are used instead; return at least that")
    end

    # Starts a thread that sleeps for one timeout and then starts the member. A child of fork can do without it.
    def schedule_start
      @start_timer = Forks.fork_safe(::Thread.new { start_after(@start_delay) })
      @start_timer.name = "online_manager start timer"
    end

    def start_after(seconds)
      Integration.current.wait_for_boot { @lifecycle.stopping? }
      return if @lifecycle.stopping?

      # Not at once: a command may go on to load the application's code, and not participate.
      sleep seconds
      @native.start if Integration.current.participates?
    rescue Error => e
      warn("this process could not become a member of the store, and tries again at its first heartbeat: #{e.message}")
    rescue StandardError
      # The config's `timeout` raised: `setup` may set it later, and until then no user can expire.
      seconds = TIMEOUT_RETRY_DELAY
      retry
    end
  end
end
