# frozen_string_literal: true

class OnlineManager
  # A gate that opens once and wakes every thread and fiber that waits for it. Works with fiber schedulers.
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
      # One critical section, since the thread may be killed: a waiter must not find it closed and then sleep for ever.
      @mutex.synchronize do
        @open = true
        @opened.broadcast
      end
    end

    # Makes those who wait with a block call it again.
    def wake = @mutex.synchronize { @opened.broadcast }

    # Waits until it is open.
    #
    # @param timeout [Float, nil] seconds; nil sets no limit
    # @yieldreturn [Boolean] whether to wait no longer; called again at each {#wake}
    # @return [Boolean] whether it is open
    def wait(timeout = nil)
      stop_at = timeout && (Latch.now + timeout)
      @mutex.lock
      until @open || (block_given? && yield)
        remaining = stop_at && (stop_at - Latch.now)
        break if remaining && remaining <= 0

        @opened.wait(@mutex, remaining)
      end
      @open
    ensure
      # Ruby 3.1 does not lock it again when a scheduler ends a fiber within ConditionVariable#wait.
      @mutex.unlock if @mutex.owned?
    end

    # @return [Float] seconds on the monotonic clock
    def self.now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
