# frozen_string_literal: true

require_relative "forks"

class OnlineManager
  # Warns of a callback that blocks the reactor: every other callback waits for it.
  #
  # It has a thread of its own, since the reactor's is the one that is blocked. The first delivery starts the thread,
  # which sleeps while no callback is running.
  #
  # @private
  class Watchdog
    # Seconds until the warning: longer than a healthy callback takes, even one that waits for a database's lock.
    WARN_AFTER = 10
    # The most seconds to wait for the thread's end: it may be inside a logger, and that may be stuck.
    END_TIMEOUT = 1

    # @param name [#call] returns the config's name, for the warning
    # @yieldreturn [Array(Symbol, Float), nil] the callback that the reactor is running, and its start in seconds of the
    #   monotonic clock; nil if none
    def initialize(name, &delivering)
      @name = name
      @delivering = delivering
      @awake = false
    end

    # Wakes the thread, before callbacks are called. Cheap while it is awake.
    def wake
      return if @awake && @owner == Process.pid

      start unless @owner == Process.pid && @thread.alive?
      @wakeups << true
      @awake = true
    end

    # Ends the thread, after the last callback: a sleeping thread would keep the manager from being garbage-collected.
    # Waits until it is gone. Not with Thread#join, which gives a fiber scheduler the chance to run other fibers.
    def finish
      return unless @owner == Process.pid

      @thread.kill
      stop_at = Latch.now + END_TIMEOUT
      Thread.pass while @thread.alive? && Latch.now < stop_at
    end

    private

    def start
      @wakeups = wakeups = Thread::Queue.new
      @thread = Forks.fork_safe(Thread.new { watch while wakeups.pop })
      @thread.name = "online_manager watchdog"
      # Set last: when Ctrl-C or Thread#kill interrupts this method, the next delivery starts over.
      @owner = Process.pid
    end

    def watch
      sleep WARN_AFTER
      warned_about = nil
      while (call = @delivering.call)
        method, since = call
        remaining = since + WARN_AFTER - Latch.now
        if remaining.positive? # this callback began after the one before was noticed
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
      Integration.current.warn("#{@name.call}##{method} has been running for #{WARN_AFTER} s: all other callbacks " \
                               "wait for it; move slow work into a background job")
    end
  end
end
