# frozen_string_literal: true

require_relative "call"
require_relative "callbacks"
require_relative "integration"

class OnlineManager
  # Calls the config's methods for a delivery, and decides what an exception of a callback does.
  #
  # @private
  module CallbackInvoker
    # @return [Boolean] whether the current fiber is running one of this manager's callbacks
    def in_callback? = Callbacks.of?(self)

    private

    # Calls the config within a heartbeat, on the thread that reports it. Exceptions come out of the heartbeat.
    def call_at_heartbeat(call)
      Integration.current.around_heartbeat do
        track_callback do
          config = @config.object
          ask_last_version
          method, argument, keywords = call.method_and_arguments(@config)
          with_notification(call) { config.public_send(method, argument, **keywords) }
        end
      end
    end

    # Calls the config on the reactor, and handles its exceptions.
    #
    # @param call [Call]
    # @param entered [Array] gets an element when the config's method is entered
    # @return [Boolean] whether the config's method returned; false if it raised
    def deliver_call(call, entered)
      Integration.current.around_delivery { invoke(call, entered) }
    rescue Unloadable => e
      # The framework could not reload the application: there was no call.
      handle_error(e, call)
      false
    end

    # Ruby checks for Thread#kill and Thread#raise when a Ruby method returns or branches. Nothing does between the
    # push to `entered` and the call of the config's method, so `entered` is exact: it says whether there was a call.
    def invoke(call, entered)
      track_callback do
        config = @config.object
        ask_last_version { @delivering = [:last_version, Latch.now] }
        method, argument, keywords = call.method_and_arguments(@config)
        @delivering = [method, Latch.now]
        @calls += 1
        with_notification(call) do
          entered << true
          config.public_send(method, argument, **keywords)
        end
      end
      true
    rescue SystemExit, SignalException
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, the others are still called
      # An exception that was raised into this thread before the call is not the callback's, and not for `on_error`.
      # Nor is one that says that the call is not possible any more.
      raise if (entered.empty? && !e.is_a?(Unloadable)) || reactor_interrupt?(e)

      handle_error(e, call)
      false
    ensure
      @delivering = nil
    end

    # Asks the config for its last version, before the first callback in this process, on the thread that is about to
    # call it. Another thread that gets here meanwhile asks too, and waits for nobody. After an error the callback is
    # called all the same, since a version by the clock is nearly always right, and the next callback asks again.
    #
    # @yield before the config is asked
    def ask_last_version
      return if @asked_in == Process.pid

      if @config.last_version?
        yield if block_given?
        self.last_version = @config.last_version(max_version)
      end
      @asked_in = Process.pid
    rescue SystemExit, SignalException
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, the callback is still called
      raise if reactor_interrupt?(e)

      report_last_version_error(e)
    end

    def report_last_version_error(error)
      @errors += 1
      return report_to_config(error, nil) if @config.on_error?

      Integration.current.report(error, "#{@config.name}#last_version raised, and will be called again", nil)
    end

    def with_notification(call, &block)
      return yield unless Integration.current.notify?(call.transition)

      Integration.current.notify(call.transition, call.payloads(@namespace), &block)
    end

    def track_callback(&callback) = Callbacks.track(self, &callback)

    def handle_error(error, call)
      @errors += 1
      if @config.on_error?
        report_to_config(error, call.argument)
      elsif @reactor.raises_errors? && !@lifecycle.reports_errors?
        raise error
      else
        Integration.current.report(error, "#{callback_name(call)} raised", call.argument)
      end
    end

    # @return [String] the callback in a message. Shows how many users there are, but no ids: logs are kept, and read by
    #   people who may not know who was online when.
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
      Integration.current.report(error, "the error that on_error got", user_id)
    end

    # Whether an exception that interrupted a callback belongs to the code around it: the end of the reactor, or a
    # Timeout around `run`. (A Timeout within the callback arrives as a Timeout::Error.)
    def reactor_interrupt?(error)
      @reactor.shutdown_exception?(error) ||
        (defined?(::Timeout::ExitException) && error.is_a?(::Timeout::ExitException))
    end
  end
end
