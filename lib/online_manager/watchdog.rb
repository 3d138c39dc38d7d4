# frozen_string_literal: true

require_relative "forks"

class OnlineManager
  # Says so when a callback keeps the reactor for long: everybody else who is due waits behind it.
  #
  # A thread of its own, since the reactor's is the one that is stuck. It is started by the first
  # callback, looks only while there are any, and sleeps for ever otherwise.
  #
  # @private
  class Watchdog
    # Seconds after which a callback is named.
    WARN_AFTER = 10

    # @yieldreturn [Array(Symbol, Float), nil] the method that the reactor is in, and since when on the monotonic clock
    # @param name [#call] what to call the config
    def initialize(name, &delivering)
      @name = name
      @delivering = delivering
      @awake = false
    end

    # Callbacks are about to be called. Cheap when they have been just now.
    def wake
      return if @awake && @owner == Process.pid

      start unless @owner == Process.pid && @thread.alive?
      @wakeups << true
      @awake = true
    end

    # No callback will be called any more. A thread that slept on would keep all of the manager alive.
    def finish
      @thread.kill if @owner == Process.pid
    end

    private

    def start
      @wakeups = wakeups = Thread::Queue.new
      @thread = Forks.fork_safe(Thread.new { watch while wakeups.pop })
      @thread.name = "online_manager watchdog"
      # Last, since Ctrl-C or the end of the reactor's thread may come in between.
      @owner = Process.pid
    end

    def watch
      sleep WARN_AFTER
      warned_about = nil
      while (call = @delivering.call)
        method, since = call
        remaining = since + WARN_AFTER - Latch.now
        if remaining.positive? # it began after the others
          sleep remaining
        elsif call.equal?(warned_about)
          sleep WARN_AFTER
        else
          warned_about = call
          warn_about(method)
        end
      end
    ensure
      @awake = false
    end

    def warn_about(method)
      Integration.current.warn("#{@name.call}##{method} has been running for #{WARN_AFTER} s; " \
                               "nobody else can be set offline before it returns")
    end
  end
end
