# frozen_string_literal: true

require "English"
require "io/wait"

require_relative "online_manager/version"
require_relative "online_manager/error"

# Tells when a user comes online and when one goes offline. Heartbeats come in as often as they like;
# the config hears only of the transitions: a user is online from the first heartbeat, and offline once
# `timeout` seconds have passed without one.
#
# A config is any object with these methods (the class that version 0.0.3 took):
#
# - `timeout`: seconds, whatever Kernel#Float takes, finite and above 0. Read again as heartbeats come,
#   at most every 10 ms.
# - `setup`: yields a user id at each heartbeat, or keeps its block and calls it later, on any thread.
#   The block answers what {#seen} does.
# - `online(user_id)`: called at the first heartbeat, on the thread that beats, before the heartbeat
#   returns. What it raises comes out of the heartbeat; the user is offline then, and the next
#   heartbeat tries again.
# - `offline(user_id)`: called on the reactor: the thread that called {#run}, EventMachine's, a fiber
#   of the scheduler, or a background thread.
#
# and, if it likes, these:
#
# - `online_all(user_ids)`: instead of `online`, for those who come online in one {#seen_all}.
# - `offline_all(user_ids)`: instead of `offline`, for all who are due together, even if that is one.
# - `on_error(exception, user_id)`: told what `offline` raised, or an `online` on the reactor. For the
#   `_all` methods it gets an Array of ids.
#
# A user id is anything that can be a key of a Hash, and is compared like one: `1` and `"1"` are two
# users, and `[7, 3]` is one.
#
# Per user `online` and `offline` strictly alternate and never overlap, with any number of threads
# beating. Callbacks may call the manager.
#
# All methods may be called on any thread, and but for {#run}, {#setup} and a {#stop} that waits, in a
# trap handler.
class OnlineManager
  OPTIONS = %i[reactor store namespace].freeze
  private_constant :OPTIONS

  class << self
    # Makes a manager and {#run runs} it.
    #
    # @param (see #initialize)
    # @option (see #initialize)
    # @return (see #run)
    # @raise (see #initialize)
    # @raise (see #run)
    def run(config, **options) = new(config, **options).run

    # Makes a manager and {#setup sets it up}.
    #
    # @param (see #initialize)
    # @option (see #initialize)
    # @return (see #setup)
    # @raise (see #initialize)
    # @raise (see #setup)
    def setup(config, **options) = new(config, **options).setup

    # Finds the manager of this process.
    #
    # @param namespace [String, Symbol, nil] the one that the manager was given
    # @return [OnlineManager, nil] the manager that runs in that namespace; the one set up last, if there
    #   are several
    def current(namespace = nil)
      Registry.current(namespace&.to_s)
    end
  end

  # @return [String, nil] what tells the manager from others, as given
  attr_reader :namespace

  # Makes a manager, which neither starts anything nor calls the config.
  #
  # @param config [Object] see {OnlineManager}; or a String or a Proc, resolved when first needed: the
  #   name of the config's class, or what answers the config
  #   In a framework that loads an application's classes by itself, such as Rails, that is after initialization, and
  #   anew whenever it has loaded them anew.
  # @param options [Hash]
  # @option options [Symbol] :reactor where callbacks run: `:thread`, `:eventmachine` or `:fiber`. Found out
  #   when not given: the EventMachine reactor or fiber scheduler that the caller is in, EventMachine for
  #   {#run} if it is loaded or in the bundle, else a thread.
  # @option options [Symbol, String, Array<String>] :store where it is kept who is online: `:memory`, which is this
  #   process', `"sqlite:PATH"`, a file that the processes of one machine share, or `"redis://…"` (`"rediss://…"` with
  #   TLS, `"redis+unix://…"`), a Redis or Valkey that several machines share; an Array of such URLs is a Redis
  #   Cluster. A relative path is expanded now, in Rails against `Rails.root`.
  # @option options [String, Symbol] :namespace tells several managers in one process, or in one store, apart
  # @raise [ArgumentError] if there is no such option, reactor or store
  def initialize(config, **options)
    @reactor_name, @store, namespace = check_options(options)
    @namespace = namespace&.to_s
    @config = Config.new(config)
    @delivery = build_delivery { on_finished }
    @native = @delivery.native
    @mutex = Mutex.new
    @state = :new
  end

  # Calls the config's `setup` and delivers callbacks until the manager is stopped or EventMachine is.
  # However it ends, the remaining users are set offline first. Inside a running EventMachine reactor
  # it acts as {#setup}.
  #
  # On EventMachine `setup` is called on the reactor's thread. On a thread it is called on one of its own
  # and may block; what it raises comes out here, and the thread is ended with `run`.
  #
  # @return [Object] nil, or what `setup` returned inside a running reactor
  # @raise [Error] if the manager runs already or has been stopped
  # @raise [ArgumentError, TypeError] if the config lacks a method or its timeout is no positive number;
  #   `setup` has not been called then, and the manager can be set up again
  def run = launch(:run)

  # Calls the config's `setup` on the present thread. Callbacks are delivered on the EventMachine reactor
  # or fiber scheduler that runs, or on a background thread that the first heartbeat starts. When the
  # process exits, the remaining users are set offline.
  #
  # In an initializer of Rails a config that is given as a String or a Proc is set up when the application has been
  # initialized; what is raised comes out there.
  #
  # @return [Object] what `setup` returned; nil if it is yet to be called
  # @raise (see #run)
  # @raise what `setup` raises; the manager is stopped then
  def setup
    return launch(:setup) if Integration.current.booted? || !@config.lazy?

    Integration.current.after_boot { launch(:setup) }
    nil
  end

  # Takes part in the shared store from now on. Without this call the process does so from its first heartbeat, or else
  # one timeout after {#setup}. With the store `:memory` there is nothing to take part in.
  #
  # @return [Boolean] true; false after a stop
  # @raise [Error] if the manager does not run yet
  # @raise what the config's `timeout` raises
  def start
    return false if @stopping || @state == :stopped
    raise Error, "the manager does not run yet: call setup or run before start" unless @state == :running

    @store.shared? ? @native.start : true
  end

  # A heartbeat.
  #
  # @param user_id [Object] see {OnlineManager}
  # @param timeout [Numeric, String, nil] seconds for this heartbeat, instead of the config's `timeout`
  # @return [Boolean] true; false after a stop, when it is ignored
  # @raise [ArgumentError, TypeError] if the timeout is no positive number. Nothing has changed then.
  # @raise what `online` raises, or the id's `hash` or `eql?`, or the config's `timeout`
  def seen(user_id, timeout: nil)
    return @native.seen(user_id) if timeout.nil?

    @native.seen_for(user_id, Seconds.nanoseconds(timeout, "timeout"))
  end

  # Heartbeats of several users, at a fraction of the cost. Those who are new come online together if the
  # config has `online_all`, else one after the other; when that raises, the rest of them stays offline
  # until they beat again. Everybody known has beaten before the first callback.
  #
  # @param user_ids [Enumerable] see {OnlineManager}
  # @param timeout [Numeric, String, nil] seconds for these heartbeats, instead of the config's `timeout`
  # @return (see #seen)
  # @raise [TypeError] if the ids cannot be enumerated
  # @raise (see #seen)
  def seen_all(user_ids, timeout: nil)
    unless user_ids.respond_to?(:to_ary) || user_ids.is_a?(Enumerable)
      raise TypeError, "user_ids must be an Array or another Enumerable, got #{user_ids.inspect}"
    end

    timeout = Seconds.nanoseconds(timeout, "timeout") unless timeout.nil?
    user_ids = user_ids.respond_to?(:to_ary) ? user_ids.to_ary : user_ids.to_a
    @native.seen_all(user_ids, @config.online_all?, timeout)
  end

  # Moves the user's deadline to now, or to `after` seconds from now if that is sooner. `offline` follows
  # on the reactor, like every other; a heartbeat before that keeps the user online.
  #
  # @param user_id [Object] see {OnlineManager}
  # @param after [Numeric, String] seconds, 0 or more
  # @return [Boolean] whether the user was online
  # @raise [ArgumentError, TypeError] if `after` is no such number
  def leave(user_id, after: 0)
    @native.leave(user_id, Seconds.nanoseconds(after, "after", or_zero: true))
  end

  # Asks the config for its timeout.
  #
  # @return [Float] the config's timeout at this moment, in seconds
  # @raise [ArgumentError, TypeError] if it is no positive number
  # @raise what the config's `timeout` raises
  def timeout = @delivery.timeout / 1e9

  # With a shared store this and the next three methods wait for it, for 5 s at the most.
  #
  # @param user_id [Object] see {OnlineManager}
  # @return [Boolean] whether the user is online: from the call of `online` to the call of `offline`
  # @raise [StoreError] if the store does not answer
  def online?(user_id) = @native.online?(user_id)

  # @return [Array] the ids of all who are online, in no order. Strings are copies; all else is what
  #   came in. While others beat, it need not be the state of one moment.
  # @raise (see #online?)
  def online_users = @native.online_users

  # @return [Integer] how many users are online
  # @raise (see #online?)
  def size = @native.size

  # @param user_id [Object] see {OnlineManager}
  # @return [Time, nil] when the user's last heartbeat came, exact to about 10 ms; nil for who is offline
  # @raise (see #online?)
  def last_seen(user_id)
    seconds = @native.last_seen(user_id)
    seconds && (Time.now - seconds)
  end

  # What an operator wants to know.
  #
  # @return [Hash{Symbol => Object}] `:state` (`:new`, `:running`, `:stopping`, `:stopped`), `:reactor`,
  #   `:store`, `:namespace`; how many users are `:online`, and of these `:announcing` (inside `online`);
  #   how many are `:departing` (inside `offline`) and `:due` (up for `offline` unless they beat first);
  #   `:errors`, how many callbacks on the reactor raised; `:delivering`, the method that the reactor is
  #   in, and `:delivering_for`, for how many seconds
  #
  #   With a shared store `:online` is of all processes, and so are `:waiting` (how many events wait for their
  #   callback) and `:dead_letters`. Of this process are `:leases` (of how many partitions it delivers the events) and
  #   `:owner` (whether of any), `:retries` (how many callbacks failed), `:store_errors`, `:unwritten` (how many
  #   users' beats are yet to be written), and `:flush_lag` and `:sweep_lag`, how many seconds late writing and expiry
  #   are. There is no `:announcing`, `:departing` or `:due`.
  # @raise [StoreError] if a shared store does not answer
  def stats
    { state:, reactor: @delivery.reactor&.name || @reactor_name, store: @store.name, namespace: @namespace }
      .merge(@native.counts, @delivery.stats)
  end

  # Sets the remaining users offline, then ends: {#run} returns. From now on heartbeats are ignored and
  # answer false. Waits until that is done, except inside a callback or a trap handler, where it returns
  # at once. An `online` that still runs is not waited for: its thread calls `offline` afterwards.
  #
  # @param timeout [Numeric, nil] seconds to wait at the most; nil waits for ever
  # @return [Integer] how many users were still online when it returned
  # @raise [ArgumentError, TypeError] if the timeout is no number, or negative
  def stop(timeout: nil)
    timeout = Seconds.nanoseconds(timeout, "timeout", or_zero: true) / 1e9 unless timeout.nil?
    return 0 if @state == :stopped

    request_stop
    return @delivery.remaining if @delivery.in_callback? || Delivery.in_trap_handler?

    @delivery.reactor ? @delivery.reactor.finish(timeout) : @delivery.finish
    warn_about_remaining(timeout) if timeout && !@delivery.finished?
    @delivery.remaining
  end

  # @private
  # @return [void]
  def stop_at_exit
    stop
  end

  # @private
  # @return [void]
  def invalidate_config
    @config.invalidate
  end

  # @return [String] the config, the state and how many are online; of a store, its name
  def inspect
    "#<#{self.class} #{@config.name} #{state}, #{@store.shared? ? @store.name : "#{size} online"}>"
  end

  private

  def state
    @state == :running && @stopping ? :stopping : @state
  end

  def check_options(options)
    unknown = options.keys - OPTIONS
    unless unknown.empty?
      raise ArgumentError, "unknown option #{unknown.map(&:inspect).join(", ")}; " \
                           "there are #{OPTIONS.map(&:inspect).join(", ")}"
    end
    [check_choice(:reactor, options[:reactor], Reactor::NAMES),
     StoreOption.new(options.fetch(:store, :memory)),
     check_namespace(options[:namespace])]
  end

  def check_choice(option, given, choices)
    return given if choices.include?(given) || (given.nil? && option == :reactor)

    raise ArgumentError, "unknown #{option} #{given.inspect}; there is #{choices.map(&:inspect).join(", ")}"
  end

  def build_delivery(&on_finish)
    return Delivery.new(@config, @namespace, &on_finish) unless @store.shared?

    SharedDelivery.new(@config, @store, @namespace, &on_finish)
  end

  def check_namespace(namespace)
    return namespace if [NilClass, String, Symbol].include?(namespace.class)

    raise ArgumentError, "namespace must be a String or a Symbol, got #{namespace.inspect}"
  end

  def launch(mode)
    @mutex.synchronize do
      raise Error, "the manager is stopped" if @stopping || @state == :stopped
      raise Error, "the manager is already running" if @state == :running

      @config.check
      @delivery.check_store
      @delivery.reactor = Reactor.public_send(:"for_#{mode}", @reactor_name, @delivery)
      @state = :running
    end
    Registry.add(self)
    @delivery.before_setup
    pid = Process.pid
    begin
      @delivery.reactor.public_send(mode) { @config.setup(on_reload: mode == :setup, &@native.heartbeat) }
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, nothing stays half started
      # A child that was forked in a callback leaves it so. What it has set going itself goes on.
      abort_launch(e) if pid == Process.pid
      raise
    end
  end

  # After a signal the end of the process waits for the stop, or that of the reactor. If this did too, the next
  # signal would end only this.
  def abort_launch(error)
    error.is_a?(SignalException) ? request_stop : stop
  end

  # Not under the mutex, which a trap handler could not take.
  def request_stop
    @stopping = true
    @delivery.stop
  end

  # Called by the delivery when nobody is left.
  def on_finished
    @state = :stopped
    Registry.remove(self)
  end

  def warn_about_remaining(timeout)
    what = @store.shared? ? "not everything has been written to the store" : "#{size} users have not been set offline"
    Integration.current.warn("after #{timeout} s #{what} yet")
  end
end

require_relative "online_manager/extension"
require_relative "online_manager/integration"
require_relative "online_manager/config"
require_relative "online_manager/delivery"
require_relative "online_manager/shared_delivery"
require_relative "online_manager/store_option"
require_relative "online_manager/registry"
require_relative "online_manager/reactor"
require_relative "online_manager/rails/railtie" if defined?(Rails::Railtie)
