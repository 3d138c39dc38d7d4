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
