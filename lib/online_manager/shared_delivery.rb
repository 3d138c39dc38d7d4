# frozen_string_literal: true

require_relative "delivery"
require_relative "forks"
require_relative "shared"

class OnlineManager
  # Delivers the events of a shared store's log, which may be of users who beat in other processes. Whatever a callback
  # raises, the event comes again, so an error goes to `on_error` or is reported, and never into the reactor.
  #
  # It is the callback target of a Shared, which calls `ready`, `start_member`, `timeout`, `deliver_events` and
  # `store_failed`.
  #
  # @private
  class SharedDelivery < Delivery
    # Seconds between two looks whether everything has been written, while a stop waits for it.
    POLL_INTERVAL = 0.05
    # Seconds until the timeout is asked for again, if it could not be told at `setup`.
    TIMEOUT_RETRY_DELAY = 1

    # @param config [Config]
    # @param store [StoreOption]
    # @param namespace [String, nil]
    def initialize(config, store, namespace, &on_finish)
      @store = store
      super(config, namespace, &on_finish)
    end

    # Opens the store once, and warns if it is away, or not as it should be.
    #
    # @raise [StoreError] if it is misconfigured
    def check_store
      @native.check.each { |warning| warn(warning) }
    end

    # From now on the process takes part after one timeout, if no heartbeat comes before.
    def before_setup
      Forks.add(self)
      schedule_start
    end

    def finish
      super
      Forks.remove(self)
    end

    # A fork has ended, and this is the parent. If it never beat, it stands down: it was there to be forked,
    # however long that took.
    def after_fork_in_parent
      @start_timer&.kill
      @native.resume
    end

    # A fork has ended, and this is the child.
    def after_fork_in_child
      schedule_start unless stopping?
    end

    # Sets nobody offline, but waits until what is left is written.
    def drain(timeout = nil)
      stop
      stop_at = timeout && (Latch.now + timeout)
      until (state = deliver) == :finished || (stop_at && Latch.now >= stop_at)
        pipe.wait_readable(POLL_INTERVAL) if state == :idle
      end
      state == :finished
    end

    def stop
      @start_timer&.kill unless @start_timer == ::Thread.current
      super
    end

    # A stop sets nobody offline here, so nobody is left to be.
    def remaining = 0

    # @return [Hash] see {Delivery#stats}
    def stats = super.merge(@native.status)

    # -- called by Shared ------------------------------------------------------------------------

    def ready
      super
      start_member
    end

    # It is not alone.
    def warn_if_not_alone; end

    # Starts what takes part, unless a fork is going on: then it starts after that.
    def start_member
      @native.start_member unless Forks.in_progress?
    end

    # @param transition [Symbol] :online or :offline
    # @param user_ids [Array] one, unless the config has the `_all` form
    # @param versions [Array<Integer>]
    # @param entered [Array] see {Delivery#deliver_call}
    # @param details [Array] see {Call}
    # @return [true, String] what the callback raised, or true
    def deliver_events(transition, user_ids, versions, entered, details)
      @raised = nil
      batch = @config.batch?(transition)
      deliver_call(Call.new(transition, user_ids, batch:, details:, versions:), entered) || @raised
    end

    # The store has failed, for the first time since it last worked.
    def store_failed(message)
      error = StoreError.new(message)
      return report_to_config(error, nil) if @config.on_error?

      warn("the store has failed and will be tried again: #{message}")
    ensure
      @delivering = nil
    end

    private

    def build_native = @store.open(self, @namespace.to_s)

    def deliver_next = @native.deliver(@config.online_all?, @config.offline_all?)

    def drained? = @native.ended?

    def handle_error(error, call)
      @raised = "#{error.class}: #{error.message}"
      @errors += 1
      return report_to_config(error, call.argument) if @config.on_error?

      Integration.current.report(error, "#{callback_name(call)} raised, and will be tried again", call.argument)
    end

    # A thread that does nothing but sleep: none that a preloading master could lose.
    def schedule_start
      @start_timer = Forks.fork_safe(::Thread.new { start_after_timeout })
      @start_timer.name = "online_manager start timer"
    end

    def start_after_timeout
      sleep timeout / 1e9
      @native.start if Integration.current.participates?
    rescue Error => e
      warn("could not begin to take part in the store: #{e.message}")
    rescue StandardError
      # `setup` may still have to set the timeout, and until then nobody can expire.
      sleep TIMEOUT_RETRY_DELAY
      retry
    end
  end
end
