# frozen_string_literal: true

require_relative "call"
require_relative "callbacks"
require_relative "integration"

class OnlineManager
  # How a delivery calls the config's methods, and what an exception does.
  #
  # @private
  module CallbackInvoker
    # @return [Boolean] whether the present fiber is in one of this manager's callbacks
    def in_callback? = Callbacks.of_current_fiber.include?(self)

    private

    # Calls the config at a heartbeat, on the thread that beats. What it raises is for whoever beat.
    def call_at_heartbeat(call)
      Integration.current.around_heartbeat do
        track_callback do
          config = @config.object
          method, argument, keywords = call.method_and_arguments(@config)
          with_notification(call) { config.public_send(method, argument, **keywords) }
        end
      end
    end

    # Calls the config on the reactor, and deals with what it raises.
    #
    # @param call [Call]
    # @param entered [Array] to be marked when the config's method is entered
    # @return [Boolean] whether that call returned
    def deliver_call(call, entered)
      Integration.current.around_delivery { invoke(call, entered) }
    rescue Unloadable => e
      # The framework could not prepare for it.
      handle_error(e, call)
      false
    end

    # Ruby looks for Thread#kill and the like when one of its methods returns or branches. None does between the mark in
    # `entered` and the call of the config's method, so the mark tells exactly whether there was a call.
    def invoke(call, entered)
      track_callback do
        config = @config.object
        method, argument, keywords = call.method_and_arguments(@config)
        @delivering = [method, Latch.now]
        with_notification(call) do
          entered << true
          config.public_send(method, argument, **keywords)
        end
      end
      true
    rescue SystemExit, SignalException
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, the others are still called
      # Raised into this thread before there was a call: not the callback's, and not for its handler.
      raise if (entered.empty? && !e.is_a?(Unloadable)) || reactor_interrupt?(e)

      handle_error(e, call)
      false
    ensure
      @delivering = nil
    end

    def with_notification(call, &block)
      return yield unless Integration.current.notify?(call.transition)

      Integration.current.notify(call.transition, call.payloads(@namespace), &block)
    end

    def track_callback
      callbacks = Callbacks.of_current_fiber
      callbacks.push(self)
      yield
    ensure
      callbacks&.pop
    end

    def handle_error(error, call)
      @errors += 1
      if @config.on_error?
        report_to_config(error, call.argument)
      elsif @reactor.raises_errors? && !@draining
        raise error
      else
        Integration.current.report(error, "#{callback_name(call)} raised", call.argument)
      end
    end

    # What to call the callback in a message: ids are not shown, but how many there are is.
    def callback_name(call)
      users = call.user_ids.size
      "#{@config.name}##{call.method}#{" (#{users} #{users == 1 ? "user" : "users"})" if call.batch?}"
    end

    def report_to_config(error, user_id)
      @delivering = [:on_error, Latch.now]
      track_callback { @config.on_error(error, user_id) }
    rescue SystemExit, SignalException
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException -- as above
      raise if reactor_interrupt?(e)

      Integration.current.report(e, "#{@config.name}#on_error raised", user_id)
      Integration.current.report(error, "what it was told of", user_id)
    end

    # Whether the exception is not the callback's, though it comes in the middle of it: how the reactor
    # ends, or a Timeout around `run`. (One within the callback is a Timeout::Error where it comes out.)
    def reactor_interrupt?(error)
      @reactor.shutdown_exception?(error) ||
        (defined?(::Timeout::ExitException) && error.is_a?(::Timeout::ExitException))
    end
  end
end
