# frozen_string_literal: true

# Over 400 lines: more than half of them document the public API.

require "English"
require "io/wait"

require_relative "online_manager/version"
require_relative "online_manager/error"

# Turns any rate of heartbeats into two callbacks: online and offline. A user is online from the first heartbeat, and
# offline once `timeout` seconds have passed without another one.
#
# A config is any object with these methods (version 0.0.3 asks for the same four):
#
# - `timeout`: seconds; whatever Kernel#Float accepts, finite and above 0. It is called again as heartbeats come, at
#   most every 10 ms.
# - `setup`: yields a user id for each heartbeat, or keeps its block and calls it later, on any thread. The block
#   returns what {#seen} returns.
# - `online(user_id)`: runs at the first heartbeat, on the thread that reports it, before the heartbeat returns. An
#   exception of it comes out of the heartbeat; the user is offline then, and the next heartbeat calls it again.
# - `offline(user_id)`: runs on the reactor: the thread that called {#run}, EventMachine's, a fiber of the scheduler, or
#   a background thread.
#
# With a shared store `online` runs on the reactor too, perhaps in another process.
#
# A config may also have these methods:
#
# - `online_all(user_ids)`: called instead of `online` for the users who come online in one {#seen_all}; with a shared
#   store, for all users whose events wait.
# - `offline_all(user_ids)`: called instead of `offline` for all users who are due at a time, even if that is one.
# - `on_error(exception, user_id)`: gets what a callback on the reactor raised. For the `_all` methods `user_id` is an
#   Array of ids; when a shared store fails, or `last_version`, it is nil.
# - `last_version`: returns the highest version that a callback has got, such as the maximum of a column, or nil; the
#   versions that follow are higher. Called in each process before the first callback, on its thread. What it raises
#   goes to `on_error` or is reported; the callback is called all the same, and `last_version` again before the next.
#
# A callback that declares the keyword `version:` also gets a number, which grows with each transition of a user. One
# that declares `last_seen:` gets the Time of the user's last heartbeat: for `online` of the one that brought the user
# online, for `offline` of the one after which no other came. The `_all` methods get an Array, in the order of the ids.
# A method with `**` gets the keywords that the method behind its `super` declares. Any other wrapper (SimpleDelegator,
# `method_missing`) hides them: it has to declare them itself.
#
# A user id is anything that can be a key of a Hash, and is compared as one: `1` and `"1"` are two users, `[7, 3]` is
# one. With a shared store it is an Integer, a String or a Symbol.
#
# A user may have several sessions: tabs, devices, connections. The user is online until the last of them is over. A
# session id is what a user id may be, except nil: heartbeats that name no session, and those of the block, are of the
# unnamed session. The store `:memory` keeps sessions; shared stores do not.
#
# For each user `online` and `offline` strictly alternate and never overlap, however many threads report heartbeats.
# Callbacks may call the manager.
#
# Every method may be called on any thread, and every one but {#run} and {#setup} in a trap handler; {#stop} returns at
# once there.
class OnlineManager
  # Stands for "session: was not given", which nil does not: that is the unnamed session.
  ALL_SESSIONS = Object.new.freeze
  private_constant :ALL_SESSIONS

  class << self
    # Creates a manager and {#run runs} it.
    #
    # @param (see #initialize)
    # @option (see #initialize)
    # @return (see #run)
    # @raise (see #initialize)
    # @raise (see #run)
    def run(config, **options) = new(config, **options).run

    # Creates a manager and {#setup sets it up}.
    #
    # @param (see #initialize)
    # @option (see #initialize)
    # @return (see #setup)
    # @raise (see #initialize)
    # @raise (see #setup)
    def setup(config, **options) = new(config, **options).setup

    # Finds the running manager of this process. Takes no lock.
    #
    # @param namespace [String, Symbol, nil] the option `namespace` of that manager
    # @return [OnlineManager, nil] the manager that runs in the namespace; of several the one that was set up last
    # @raise [Ractor::UnsafeError] outside the main Ractor
    def current(namespace = nil)
      Registry.current(namespace&.to_s)
    end
  end

  # @return [String, nil] the option `namespace`, as a String
  attr_reader :namespace

  # Creates a manager. Starts no thread, opens no store and does not call the config.
  #
  # @param config [Object] the config, see {OnlineManager}; or the name of its class (a String), or a Proc that returns
  #   it. A String or a Proc is resolved when the config is first needed: in Rails after initialization, and again after
  #   each code reload.
  # @param options [Hash]
  # @option options [Symbol] :reactor where callbacks run: `:thread`, `:eventmachine` or `:fiber`. Default: the
  #   EventMachine reactor or fiber scheduler that the caller is in (in Rails {#setup} takes a thread instead of a
  #   scheduler); for {#run} EventMachine, if it is loaded or in the bundle, as with version 0.0.3; else a thread.
  # @option options [Symbol, String, Array<String>] :store where presence is kept. `:memory` (the default) is this
  #   process; `"sqlite:PATH"` is a file that the processes of one machine share; `"redis://…"` (`"rediss://…"` with
  #   TLS, `"redis+unix://…"`) is a Redis or Valkey that several machines share; an Array of such URLs is a Redis
  #   Cluster. A relative path is expanded now, in Rails against `Rails.root`.
  # @option options [String, Symbol] :namespace separates managers in one process, or in one store
  # @option options [Integer] :max_sessions how many sessions a user may have, 1 or more; 100 if not given. Of more, the
  #   one with the earliest deadline is dropped; the user stays online until that deadline all the same.
  # @raise [ArgumentError] if an option, the reactor, the store or the namespace is not one of these
  def initialize(config, **options)
    # The first variable: Ractor.make_shareable and a move to another Ractor fail at a Mutex, before they have frozen or
    # moved anything else.
    @mutex = Mutex.new
    options = Options.new(options)
    @reactor_name = options.reactor
    @store = options.store
    @namespace = options.namespace
    @config = Config.new(config)
    @delivery = build_delivery(options.max_sessions) { Registry.remove(self) }
    @lifecycle = @delivery.lifecycle
    @native = @delivery.native
  end

  # Calls the config's `setup` and delivers callbacks until the manager, or EventMachine, is stopped. Blocks. However it
  # ends (also by an exception or a signal), the remaining users are set offline first; with a shared store their
  # heartbeats are written instead. Inside a running EventMachine reactor it behaves as {#setup}.
  #
  # The reactor `:thread` calls `setup` on a thread of its own, so `setup` may block; its exception is raised here, and
  # that thread ends with `run`. EventMachine calls `setup` on the reactor's thread, a fiber scheduler on another fiber.
  #
  # @return [Object] nil; inside a running EventMachine reactor what `setup` returned
  # @raise [Error] if the manager runs already or has been stopped, or its reactor is not available
  # @raise [ArgumentError, TypeError] if the config lacks a method, or its timeout is not a positive number, or shorter
  #   than a shared store can keep. `setup` has not been called then, and the manager can be set up again.
  # @raise [StoreError] if a shared store is misconfigured. The manager can be set up again then.
  # @raise what `setup` raises; the manager is stopped then
  def run = launch(:run)

  # Calls the config's `setup` on the current thread and returns. Callbacks run on the EventMachine reactor or fiber
  # scheduler that is running, or on a background thread that starts at the first heartbeat; with a shared store, one
  # timeout after this call at the latest. That thread calls nothing before a Rails application has been initialized,
  # and the timeout begins then. When the process exits, the remaining users are set offline; with a shared store their
  # heartbeats are written instead.
  #
  # In an initializer of Rails, a config that is given as a String or a Proc is set up once the application has been
  # initialized, and exceptions are raised there.
  #
  # @return [Object] what `setup` returned; nil if it is called later
  # @raise (see #run)
  def setup
    return launch(:setup) if Integration.current.booted? || !@config.lazy?

    Integration.current.after_boot { launch(:setup) }
    nil
  end

  # Makes this process a member of the shared store now: it acquires leases and delivers events. Without this call it
  # becomes one at its first heartbeat or {#leave}, or one timeout after {#setup}. Does nothing with the store
  # `:memory`.
  #
  # @return [Boolean] true; false after a stop
  # @raise [Error] if the manager is not set up yet, or the operating system gives it no thread
  # @raise what the config's `timeout` raises
  def start
    return false if @lifecycle.stopping?

    unless @lifecycle.state == :running
      raise Error, "start was called before the manager was set up: call setup or run first"
    end

    @store.shared? ? @native.start : true
  end

  # Records a heartbeat: the user is there. With the store `:memory` the first one calls `online`, on this thread. With
  # a shared store it waits neither for the store nor for a callback.
  #
  # @param user_id [Object] see {OnlineManager}
  # @param session [Object, nil] which of the user's sessions it is of, see {OnlineManager}; nil: the unnamed one. It
  #   moves the deadline of that session, and no other's.
  # @param timeout [Numeric, String, nil] seconds from this heartbeat to the deadline; nil: the config's `timeout`
  # @return [Boolean] true; false after a stop, when the heartbeat is ignored
  # @raise [Error] if the manager is not set up yet
  # @raise [ArgumentError, TypeError] if the timeout is not a positive number, or a shared store cannot keep such an id,
  #   a session, or a timeout as short: 0.3 s is the least with SQLite, 0.5 s with Redis. Nothing has changed then.
  # @raise what `online` raises, or the `hash` or `eql?` of an id, or the config's `timeout`
  def seen(user_id, session: nil, timeout: nil)
    return seen_session(user_id, session, timeout) unless session.nil?

    timeout.nil? ? @native.seen(user_id) : @native.seen_for(user_id, @store.timeout(timeout, "timeout"))
  end

  # Records a heartbeat for each of several users, at a fraction of the cost of as many {#seen}. The heartbeats of all
  # users who are online are recorded before the first callback. Users who are not come online in one `online_all`, if
  # the config has it, else one after the other; when that raises, the remaining users stay offline until their next
  # heartbeat. With a shared store the reactor calls them later, and calls again what raises.
  #
  # @param user_ids [Enumerable] user ids, see {OnlineManager}
  # @param timeout [Numeric, String, nil] seconds from these heartbeats to the deadlines; nil: the config's `timeout`
  # @return (see #seen)
  # @raise [TypeError] if `user_ids` is not an Enumerable
  # @raise (see #seen)
  def seen_all(user_ids, timeout: nil)
    unless user_ids.respond_to?(:to_ary) || user_ids.is_a?(Enumerable)
      raise TypeError, "user_ids must be an Array or another Enumerable, got #{user_ids.inspect}"
    end

    timeout = @store.timeout(timeout, "timeout") unless timeout.nil?
    user_ids = user_ids.respond_to?(:to_ary) ? user_ids.to_ary : user_ids.to_a
    # Before `setup` the config may not be there yet.
    together = @lifecycle.state != :new && @config.online_all?
    @native.seen_all(user_ids, together, timeout)
  end

  # Moves the user's deadline forward to `after` seconds from now; never back. Then `offline` is called on the reactor,
  # unless a heartbeat comes before. With `session:` it moves that session's deadline: the user goes offline only if no
  # other session is left. Without, all of them are over: the user has logged out everywhere.
  #
  # With a shared store the process becomes a member, as at a heartbeat, and waits for the store as {#online?} does. The
  # leave is recorded in any case, and written as soon as the store works.
  #
  # @param user_id [Object] see {OnlineManager}
  # @param session [Object, nil] which session is over; nil: the unnamed one. Default: all of them.
  # @param after [Numeric, String] seconds, 0 or more
  # @return [Boolean, nil] whether the user was online, or the session was there; nil if a shared store cannot be read
  #   within 5 s
  # @raise [ArgumentError, TypeError] if `after` is not such a number, or a shared store cannot keep such an id, or the
  #   session
  # @raise [Error] if the process becomes a member and the operating system gives it no thread
  # @raise what the config's `timeout` raises, if the process becomes a member
  def leave(user_id, session: ALL_SESSIONS, after: 0)
    nanoseconds = Seconds.nanoseconds(after, "after", or_zero: true)
    unless ALL_SESSIONS.equal?(session)
      @store.check_session(session)
      return @native.leave_session(user_id, session, nanoseconds) unless @store.shared?
    end
    @native.start if @store.shared? && @lifecycle.state == :running
    @native.leave(user_id, nanoseconds)
  end

  # Calls the config's `timeout`.
  #
  # @return [Float] the config's current timeout, in seconds; with a shared store not less than it can keep
  # @raise [ArgumentError, TypeError] if it is not a positive number
  # @raise what the config's `timeout` raises
  def timeout = @delivery.timeout / 1e9

  # Whether a user is online. With a shared store it may have to read the store, and waits up to 5 s.
  #
  # @param user_id [Object] see {OnlineManager}
  # @return [Boolean] true from the call of `online` until the call of `offline`; with a shared store, from the
  #   heartbeat until the deadline or the leave
  # @raise [StoreError] if a shared store cannot be read within 5 s
  def online?(user_id) = @native.online?(user_id)

  # Returns who is online. With a shared store it waits as {#online?} does.
  #
  # @return [Array] user ids, in no order. Strings are copies; other ids are the objects that came in. While other
  #   threads report heartbeats, it need not be the state of a single moment.
  # @raise (see #online?)
  def online_users = @native.online_users

  # Returns how many users are online. With a shared store it waits as {#online?} does.
  #
  # @return [Integer] the number of users who are online
  # @raise (see #online?)
  def size = @native.size

  # Returns which sessions of a user are there. With a shared store, which keeps none, it waits as {#online?} does.
  #
  # @param user_id [Object] see {OnlineManager}
  # @return [Array] session ids, in no order; nil for the unnamed session. Empty if the user is offline.
  # @raise (see #online?)
  def session_ids(user_id)
    return @native.session_ids(user_id) unless @store.shared?

    @native.online?(user_id) ? [nil] : []
  end

  # Returns the time of a user's last heartbeat. With a shared store it waits as {#online?} does.
  #
  # @param user_id [Object] see {OnlineManager}
  # @return [Time, nil] that time, exact to about 10 ms; nil if the user is offline
  # @raise (see #online?)
  def last_seen(user_id)
    seconds = @native.last_seen(user_id)
    seconds && Call.time_ago(seconds)
  end

  # Returns figures for monitoring. Never raises. With a shared store it waits 1 s at most; those figures that come from
  # the store are nil if it does not answer by then.
  #
  # @return [Hash{Symbol => Object}] with every store:
  #
  #   - `:state`: `:new`, `:running`, `:stopping` or `:stopped`
  #   - `:reactor`, `:store`, `:namespace`: the ones in use; a store's password is not shown
  #   - `:online`: how many users are online; from the store if it is shared
  #   - `:errors`: how many callbacks on the reactor have raised
  #   - `:internal_errors`: how many bugs of the gem this process has noticed, and gone on; please report one
  #   - `:delivering`, `:delivering_for`: the callback that the reactor is in, and for how many seconds; nil if none
  #
  #   With the store `:memory`:
  #
  #   - `:announcing`: how many users are inside `online`
  #   - `:departing`: how many users are inside `offline`
  #   - `:due`: how many users wait for `offline`; a heartbeat still keeps them online
  #   - `:sessions`: how many sessions the users online have; one whose deadline has passed may count for a moment
  #
  #   With a shared store, from the store:
  #
  #   - `:waiting`, `:dead_letters`: how many events of all processes wait for a callback, or have failed for good
  #   - `:oldest_waiting`: how many seconds the oldest of the waiting events waits; 0.0 if none does
  #   - `:members`: how many processes participate
  #   - `:partitions_without_owner`: of how many partitions no process delivers the events. Above 0 for longer than a
  #     few seconds, something is wrong.
  #   - `:partitions`: a Hash for each: `:number`, `:online`, `:waiting`, `:oldest_waiting`, `:dead_letters`; the
  #     `:lease_holder` ("host:pid", or nil) and for how many seconds the lease lasts (`:lease_remaining`); for how many
  #     seconds nobody is set offline who is silent (`:hold`); which data they are (`:epoch`, `:generation`)
  #
  #   With a shared store, of this process:
  #
  #   - `:leases`: of how many partitions this process delivers the events; `:owner`: whether of any
  #   - `:retries`, `:store_errors`: how many callbacks, and how many operations of the store, failed in this process
  #   - `:unwritten`: how many users' heartbeats in this process are not written yet
  #   - `:flush_lag`, `:sweep_lag`: how many seconds writing and expiry are late
  #   - `:calls_per_second`: how often this process called the store, on average since an earlier call of `stats`
  def stats
    { state:, reactor: @delivery.reactor&.name || @reactor_name, store: @store.name, namespace: @namespace }
      .merge(@native.counts, @delivery.stats)
  end

  # Sets the remaining users offline, then ends the manager: {#run} returns. With a shared store it writes the remaining
  # heartbeats and releases its leases instead; the users stay online. Heartbeats that come later return false.
  #
  # Waits until that is done, except inside a trap handler or a callback of this manager, where it returns at once.
  # Inside a callback of another manager it waits too, unless another callback waits in a `stop` already: managers may
  # stop each other. It does not wait for an `online` that is still running: the thread of that one calls `offline`
  # afterwards.
  #
  # A callback must not wait for another thread that calls `stop`: that thread waits for the callback.
  #
  # @param timeout [Numeric, nil] the most seconds to wait, 0 or more; nil sets no limit
  # @return [Integer] how many users were still to be set offline when it returned; 0 with a shared store
  # @raise [ArgumentError, TypeError] if the timeout is not such a number
  def stop(timeout: nil)
    timeout = Seconds.nanoseconds(timeout, "timeout", or_zero: true) / 1e9 unless timeout.nil?
    return 0 if @lifecycle.stopped?

    if within_own_work? || !Callbacks.wait_alone { @lifecycle.stop_and_wait(timeout) }
      @lifecycle.stop_without_waiting
    elsif timeout && !@lifecycle.stopped?
      warn_about_remaining(timeout)
    end
    @delivery.remaining
  end

  # @private
  # @return [Lifecycle]
  attr_reader :lifecycle

  # @private
  # @return [void]
  def invalidate_config
    @config.invalidate
  end

  # Describes the manager without reading a shared store. Never raises.
  #
  # @return [String] the config, the state, and the number of users online or the name of the shared store
  def inspect
    "#<#{self.class} #{@config.name} #{state}, #{@store.shared? ? @store.name : "#{size} online"}>"
  end

  # A copy would share the tracker and not the state.
  #
  # @private
  # @raise [TypeError] always: neither `dup` nor `clone` copies a manager
  def initialize_copy(_)
    raise TypeError, "a manager cannot be copied by dup or clone: pass the manager itself around, or create another " \
                     "one with #{self.class}.new"
  end

  private

  def seen_session(user_id, session, timeout)
    @store.check_session(session)
    @native.seen_session(user_id, session, timeout && @store.timeout(timeout, "timeout"))
  end

  def state
    state = @lifecycle.state
    state == :draining ? :stopping : state
  end

  def build_delivery(max_sessions, &on_finish)
    return Delivery.new(@config, @namespace, max_sessions, &on_finish) unless @store.shared?

    SharedDelivery.new(@config, @store, @namespace, &on_finish)
  end

  def launch(mode)
    check_not_launched
    # Without the mutex: a continuation (`callcc`) that entered the config's `timeout` again would unlock it again.
    timeout = @config.check(@store)
    @mutex.synchronize do
      check_not_launched
      @delivery.check_store
      @delivery.reactor = Reactor.public_send(:"for_#{mode}", @reactor_name, @delivery)
      @lifecycle.launch
    end
    Registry.add(self)
    @delivery.before_setup(timeout)
    pid = Process.pid
    begin
      @delivery.reactor.public_send(mode) { @config.setup(on_reload: mode == :setup, &@native.heartbeat) }
    rescue Exception => e # rubocop:disable Lint/RescueException -- after an `exit` too, nothing stays half started
      # Not in a child that was forked in a callback of `setup` and leaves it by this exception: it would stop the
      # manager that it has set up for itself.
      abort_launch(e) if pid == Process.pid
      raise
    end
  end

  def check_not_launched
    raise Error, "the manager has been stopped and cannot be set up again: create a new one" if @lifecycle.stopping?
    raise Error, "the manager is already running: call setup or run only once" if @lifecycle.state == :running
  end

  # @return [Boolean] whether the manager goes on only after the current method
  def within_own_work?
    Delivery.in_trap_handler? || @delivery.in_callback? || Registry.delivers_below?
  end

  # Stops the manager after `setup` has raised. After a signal it does not wait: the at_exit hook waits for the stop,
  # and a second signal would otherwise interrupt only the wait in here.
  def abort_launch(error)
    error.is_a?(SignalException) ? @lifecycle.stop : stop
  end

  def warn_about_remaining(timeout)
    users = @store.shared? ? nil : size
    left = case users
           when nil then "not everything has been written to the store"
           when 0 then "the last offline has not returned"
           when 1 then "1 user has not been set offline"
           else "#{users} users have not been set offline"
           end
    Integration.current.warn("after #{timeout} s, the timeout of stop, #{left} yet: that goes on in the background; " \
                             "pass a longer timeout to wait for it")
  end
end

require_relative "online_manager/extension"
require_relative "online_manager/integration"
require_relative "online_manager/config"
require_relative "online_manager/delivery"
require_relative "online_manager/shared_delivery"
require_relative "online_manager/options"
require_relative "online_manager/registry"
require_relative "online_manager/reactor"
require_relative "online_manager/rails/railtie" if defined?(Rails::Railtie)
