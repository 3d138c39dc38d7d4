# frozen_string_literal: true

class OnlineManager
  # Opens once; whoever waits for it goes on then. Fiber schedulers know how to wait for it too.
  #
  # @private
  class Latch
    def initialize
      @mutex = Mutex.new
      @opened = ConditionVariable.new
      @open = false
    end

    def open? = @open

    def open
      # Whoever opens it may be a thread that is being killed: nothing may come in between.
      @mutex.synchronize do
        @open = true
        @opened.broadcast
      end
    end

    # @param timeout [Float, nil] seconds; nil waits for ever
    # @return [Boolean] whether it is open
    def wait(timeout = nil)
      stop_at = timeout && (Latch.now + timeout)
      @mutex.lock
      until @open
        remaining = stop_at && (stop_at - Latch.now)
        break if remaining && remaining <= 0

        @opened.wait(@mutex, remaining)
      end
      @open
    ensure
      # Ruby 3.1 does not take it again when the fiber of a scheduler is ended in there.
      @mutex.unlock if @mutex.owned?
    end

    # @return [Float] seconds on the monotonic clock
    def self.now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
