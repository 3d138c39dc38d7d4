# frozen_string_literal: true

class OnlineManager
  # Lets one fiber at a time deliver, on the reactor or in its place, so that no two calls of `offline` overlap. It is
  # no Mutex, since it is also free when its holder can never go on, and notices a fiber that would wait for itself.
  #
  # @private
  class DeliveryLock
    # The methods in which a fiber waits for another one that they have resumed.
    RESUMING = %w[resume kill next next_values peek peek_values raise].freeze
    private_constant :RESUMING

    # The fiber that holds the lock.
    #
    # @private
    Holder = Struct.new(:process, :thread, :fiber, :scheduler) do
      # @return [Boolean] whether it will never go on, or has left the delivery
      def abandoned?
        return true if process != ::Process.pid || !thread.alive? || !delivering?
        return suspended? if scheduler.nil?

        # The scheduler has ended without its fibers. That shows on its own thread only.
        thread == ::Thread.current && !scheduler.equal?(::Fiber.scheduler)
      end

      # @return [Boolean] whether it cannot go on while the current fiber waits: a callback of it has started that one
      def blocked_by_waiting?
        thread == ::Thread.current && (fiber == ::Fiber.current || ::Fiber.current_scheduler.nil?)
      end

      private

      # @return [Boolean] whether it is still within {DeliveryLock#hold}: no `ensure` runs when a continuation
      #   (`callcc`) leaves that
      def delivering?
        # The current fiber is in another one, which has not acquired the lock.
        holds(fiber.backtrace_locations) > (fiber == ::Fiber.current ? 1 : 0)
      end

      # @return [Boolean] whether the fiber has left the delivery by `Fiber.yield`, and not by starting another one. At
      #   exit nothing resumes it any more, whatever it has left by.
      def suspended?
        return false if running?

        method = fiber.backtrace_locations(0, 1).to_a.first&.base_label
        thread == ::Thread.current && Registry.exiting? ? !RESUMING.include?(method) : method == "yield"
      end

      # @return [Boolean] whether its thread runs it, perhaps in a method of the application's that is named `yield`
      def running?
        return fiber == ::Fiber.current if thread == ::Thread.current

        holds(thread.backtrace_locations).positive?
      end

      # @return [Integer] how often {DeliveryLock#hold} is in the frames
      def holds(frames) = frames.to_a.count { |frame| frame.base_label == "hold" && frame.path == __FILE__ }
    end
    private_constant :Holder

    # @param stopped [Latch] opens when no callback is called any more
    def initialize(stopped)
      @stopped = stopped
      @mutex = Mutex.new
    end

    # Yields once no other fiber holds the lock.
    #
    # @param stop_at [Float, nil] seconds of the monotonic clock, at which it gives up; nil sets no limit
    # @yield while the current fiber holds it
    # @return the block's value; nil if it was not called: the manager has stopped, or the time is up, or the holder
    #   waits for the current fiber
    def hold(stop_at)
      holder = Holder.new(::Process.pid, ::Thread.current, ::Fiber.current, ::Fiber.current_scheduler)
      yield if acquire(holder, stop_at)
    ensure
      release(holder)
    end

    # @return [Boolean] whether its holder will never go on, or has left the delivery
    def left? = @holder&.abandoned? || false

    # @return [Boolean] whether its holder goes on only after the current fiber: a callback has started that one
    def held_below?
      holder = @holder
      holder ? !holder.abandoned? && holder.blocked_by_waiting? : false
    end

    private

    def acquire(holder, stop_at)
      until try_acquire(holder)
        return false if @stopped.open? || @holder&.blocked_by_waiting? || (stop_at && Latch.now >= stop_at)

        @stopped.wait(stop_at && [stop_at - Latch.now, 0].max) { free? }
      end
      true
    end

    def try_acquire(holder)
      @mutex.synchronize { @holder = holder if !@stopped.open? && free? }
    end

    def free?
      holder = @holder
      holder.nil? || holder.abandoned?
    end

    def release(holder)
      return unless holder && @holder.equal?(holder)

      @holder = nil
      @stopped.wake
    end
  end
end
