# frozen_string_literal: true

require "English"
require_relative "delivery_lock"
require_relative "latch"

class OnlineManager
  # The state of a manager, from its setup to its end. Decides what follows when a reactor ends, whatever ended it.
  #
  # - `:new`: not set up.
  # - `:running`: the reactor calls callbacks; one that ends is replaced, or stops the manager.
  # - `:stopping`: heartbeats are barred, and everybody is due.
  # - `:draining`: one thread calls `offline` for everybody who is left.
  # - `:stopped`: nobody is left, or a signal has ended the drain.
  #
  # docs/state_machine.md shows who moves it. With a shared store a drain writes heartbeats instead, and sets nobody
  # offline.
  #
  # @private
  class Lifecycle
    # Seconds after which a reactor gets to do other things. With less, delivery collapses beside a busy thread, which
    # keeps the GVL for 100 ms each time; with more, the reactor's other work stalls.
    SLICE = 0.005

    # Interruptions in a row without an `offline` between them, after which a drain gives up: where a framework exits
    # before each callback, it would go on for ever.
    MAX_FAILURES = 3

    # @param delivery [Delivery] calls the callbacks
    # @yield once, when the manager has stopped
    def initialize(delivery, &on_stopped)
      @delivery = delivery
      @on_stopped = on_stopped
      @stopped = Latch.new
      @lock = DeliveryLock.new(@stopped)
      @mutex = Mutex.new
    end

    # @return [Symbol] see {Lifecycle}. Derived from flags that only ever become true, since a trap handler may stop the
    #   manager between any two lines, and can take no lock.
    def state
      return :stopped if stopped?
      return :draining if @is_draining
      return :stopping if @is_stopping

      @is_launched ? :running : :new
    end

    def stopped? = @stopped.open?

    # @return [Integer] how many users have not been set offline yet
    def remaining = @delivery.remaining

    # @return [Boolean] whether a stop has begun; it may be over
    def stopping? = @is_stopping || stopped?

    # @return [Boolean] whether the errors of callbacks are reported where the reactor would handle them: it handles
    #   nothing any more, as it has ended, or ends with the process
    def reports_errors? = @reports_errors || (stopping? && Registry.exiting?)

    # Enters `:running`.
    def launch
      @is_launched = true
    end

    # Enters `:stopping`. Safe in a trap handler.
    def stop
      # First, so that a reactor which the next line wakes knows that it drains.
      @is_stopping = true
      @delivery.bar_heartbeats
      @is_barred = true
      # A reactor that claimed between the two lines above found nobody, and would sleep on without this.
      @delivery.native.wake
    end

    # Calls the callbacks that are due, for SLICE seconds. A reactor calls it again and again; after a stop it drains.
    #
    # @return [Symbol] :idle if nobody is due, :busy if the time is up, :finished if the manager has stopped
    def deliver
      stop_at = Latch.now + SLICE
      @lock.hold(stop_at) { deliver_or_drain(nil) { @delivery.deliver(stop_at) } } || (stopped? ? :finished : :busy)
    end

    # Sets everybody who is left offline, on the current thread, and ends the manager. What interrupts it (an `exit` in
    # a callback, a `throw`, Thread#kill) goes on after the others have been called; a signal ends it at once.
    #
    # @param timeout [Float, nil] seconds after which no further callback is called; nil sets no limit
    # @return [Boolean] whether the manager has stopped. It has not if the time is up, or if a callback waits for this
    #   very call.
    def drain(timeout = nil)
      return true if stopped?

      stop
      stop_at = timeout && (Latch.now + timeout)
      @lock.hold(stop_at) do
        @is_shut_down ||= $ERROR_INFO.is_a?(SignalException) || shutdown?($ERROR_INFO)
        @reactor_ends ||= shutdown?($ERROR_INFO)
        @is_draining = @reports_errors = true
        deliver_or_drain(stop_at) { deliver_rest(stop_at) }
      end
      stopped?
    end

    # Decides what follows when a reactor has ended that could be replaced, in whichever way.
    #
    # @yield replaces it, since the manager lives on
    def reactor_ended
      stopping? ? drain : yield
    end

    # Ends the manager, even if users are left, and wakes the threads that wait for that.
    def finish
      return if stopped?

      begin
        @delivery.close
      ensure
        # Also if Thread#kill comes meanwhile: threads wait for it.
        @on_stopped.call
        @stopped.open
      end
    end

    # Stops the manager where a wait could last for ever: inside a callback or a trap handler.
    def stop_without_waiting
      stop
      # Inside a callback of another manager the reactor of this one need not run.
      finish_in_background unless Delivery.in_trap_handler? || @delivery.in_callback?
    end

    # Stops the manager, and waits for that. If an exit or a signal interrupts the drain on another thread, the main
    # thread raises it here: Ruby would raise an exit in it at any later moment, and a signal never.
    #
    # @param timeout [Float, nil] seconds; nil sets no limit
    def stop_and_wait(timeout = nil)
      is_main = ::Thread.current == ::Thread.main
      begin
        @main_waits = true if is_main
        stop
        @delivery.reactor ? @delivery.reactor.finish(timeout) : finish
      ensure
        error = take_error_for_main if is_main
      end
      raise error if error
    end

    # Waits for the end of a stop.
    #
    # @param timeout [Float, nil] seconds; nil sets no limit
    # @yieldreturn [Boolean] whether there is something to do other than waiting
    # @return [Boolean] whether the manager has stopped
    def wait(timeout, &wanted) = @stopped.wait(timeout, &wanted)

    # @return [Boolean] whether a fiber or a continuation has left the reactor in the middle of a callback
    def left? = @lock.left?

    # @return [Boolean] whether the reactor is in the middle of a callback that goes on only after the current fiber
    def delivers_below? = @lock.held_below?

    # Makes those who wait with a block call it again.
    def wake = @stopped.wake

    private

    def finish_in_background = @delivery.reactor ? @delivery.reactor.finish_in_background : finish

    # Yields to call callbacks. If the manager is stopping, whatever interrupts that leaves here only when everybody has
    # been called; an exception perhaps in the main thread, see {#stop_and_wait}.
    #
    # @param stop_at [Float, nil] see {DeliveryLock#hold}
    # @return [Symbol] see {#deliver}
    def deliver_or_drain(stop_at, &call)
      @error = nil
      state = nil
      state = attempt(&call)
    ensure
      # Here and not in a `rescue`: Thread#kill and `throw` are no exceptions.
      if stopping?
        state ||= drain_despite_interruptions(stop_at)
        is_handed_over = end_drain if state == :finished
      end
      error = @error
      @error = nil
      raise error if error && !is_handed_over
    end

    # @return [Symbol, nil] nil if an exception has interrupted it, see @error; of several exceptions the first is kept
    def attempt
      state = yield
      # A stop has begun, or it would not be this.
      return state unless state == :stopping

      @is_draining = true
      state = @delivery.reactor.uninterrupted { @delivery.deliver_rest(Latch.now + SLICE) }
      # Not everybody was due yet if the stop is still being made.
      state == :finished && !@is_barred ? :idle : state
    rescue Exception => e # rubocop:disable Lint/RescueException -- it is raised again by `deliver_or_drain`
      is_end = ends_drain?(e)
      @error = e if @error.nil? || is_end
      :finished if is_end
    end

    # A signal does. With Async a signal arrives as the end of the reactor: the first one begins the drain.
    def ends_drain?(error)
      @reactor_ends ||= shutdown?(error)
      return false unless @is_draining
      return error.is_a?(SignalException) unless shutdown?(error)

      @is_shut_down.tap { @is_shut_down = true }
    end

    # @return [Boolean] whether the reactor is ended by it, see {Reactor::Base#shutdown_exception?}
    def shutdown?(error) = !error.nil? && @delivery.reactor.shutdown_exception?(error)

    def drain_despite_interruptions(stop_at)
      stop # which may still be at its first line, on another thread
      @is_draining = @reports_errors = true
      failures = 0
      while failures < MAX_FAILURES
        remaining = @delivery.remaining
        state = attempt_again(stop_at)
        return state if state

        failures = @delivery.remaining < remaining ? 0 : failures + 1
      end
      :finished
    end

    # Something is on its way out already, and must not be replaced by another `throw` before everybody has been called.
    def attempt_again(stop_at)
      state = nil
      state = attempt { deliver_rest(stop_at) }
    ensure
      return state # rubocop:disable Lint/EnsureReturn
    end

    # Calls everybody who is left.
    #
    # @return [Symbol] :finished, or :busy if the time is up
    def deliver_rest(stop_at)
      @delivery.reactor.uninterrupted(is_ending: @reactor_ends) { call_rest(stop_at) }
    end

    def call_rest(stop_at)
      until (state = @delivery.deliver_rest(stop_at)) == :finished
        return :busy if stop_at && Latch.now >= stop_at

        @delivery.wait_for_more if state == :idle
      end
      state
    end

    # @return [Boolean] whether the main thread raises what has interrupted the drain
    def end_drain
      is_for_main = @error.is_a?(SystemExit) || @error.is_a?(SignalException)
      is_for_main &&= ::Thread.current != ::Thread.main
      is_handed_over = @mutex.synchronize { @error_for_main = @error if is_for_main && @main_waits }
      finish
      is_handed_over
    end

    def take_error_for_main
      @mutex.synchronize do
        @main_waits = false
        @error_for_main.tap { @error_for_main = nil }
      end
    end
  end
end
