# frozen_string_literal: true

# An application for child processes, on the reactor named by the first argument. Three users come online and stay
# online. It prints each callback, with "child" before it in a process that it has forked.

require "online_manager"

REACTOR = ARGV.fetch(0).to_sym
FIRST_PROCESS = Process.pid
require "eventmachine" if REACTOR == :eventmachine
require "async" if REACTOR == :fiber

# A config whose callbacks print, and then run a script's hook.
class Application
  @out = $stdout

  class << self
    # @return [IO] the output
    attr_accessor :out

    # Runs a manager until something ends it.
    #
    # @param hooks [Hash] see {#initialize}
    # @return [OnlineManager] the one that ran
    def run(**hooks)
      manager = OnlineManager.new(new(**hooks), reactor: REACTOR)
      REACTOR == :fiber ? Async { manager.run }.wait : manager.run
      manager
    end

    # Sets a manager up in a reactor that the manager does not start: EM.run, Async, or none.
    #
    # @param hooks [Hash] see {#initialize}
    # @yield afterwards, in that reactor
    # @yieldparam manager [OnlineManager]
    def setup(**hooks)
      manager = OnlineManager.new(new(**hooks), reactor: REACTOR)
      in_reactor do
        manager.setup
        yield manager if block_given?
      end
    end

    # Keeps the application running for ever.
    def idle
      case REACTOR
      when :thread then sleep
      when :fiber then loop { sleep 60 }
      end
    end

    # Ends the reactor that {.setup} is in.
    def end_reactor
      EM.stop if REACTOR == :eventmachine
    end

    # Prints "idle" as soon as `setup` has brought everybody online and the main thread waits for something.
    def announce_idle = say_when_idle("idle") { @is_ready }

    # Prints a line as soon as the main thread waits for something.
    #
    # @yieldreturn [Boolean] whether the line may be printed; without a block it always may
    def say_when_idle(line)
      Thread.new do
        sleep 0.001 until (!block_given? || yield) && Thread.main.stop?
        say line
      end
    end

    # Called when `setup` has brought everybody online.
    def ready
      say "ready"
      @is_ready = true
    end

    # Prints a line in one write, so that lines of several threads and processes do not mix.
    def say(what) = out.write("#{"child " unless Process.pid == FIRST_PROCESS}#{what}\n")

    private

    def in_reactor(&block)
      case REACTOR
      when :thread then yield
      when :eventmachine then EM.run(&block)
      when :fiber then Async(&block).wait
      end
    end
  end

  attr_reader :timeout

  # @param users [Enumerable] the users who come online in `setup`
  # @param timeout [Numeric]
  # @param ready [Proc, nil] called in `setup` after they are online
  # @param online [Proc, nil] called in `online`, with the user
  # @param offline [Proc, nil] called in `offline`, with the user
  def initialize(users: [1, 2, 3], timeout: 60, ready: nil, online: nil, offline: nil)
    @users = users
    @timeout = timeout
    @ready = ready
    @online = online
    @offline = offline
  end

  def setup(&heartbeat)
    @users.each(&heartbeat)
    Application.ready
    @ready&.call
  end

  def online(user_id)
    Application.say "online #{user_id}"
    @online&.call(user_id)
  end

  def offline(user_id)
    Application.say "offline #{user_id}"
    @offline&.call(user_id)
  end
end
