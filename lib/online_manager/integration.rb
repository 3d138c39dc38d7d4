# frozen_string_literal: true

class OnlineManager
  # What the framework that an application is written in has a say in. This one is plain Ruby's; a framework's own
  # takes its place when it is loaded.
  #
  # @private
  class Integration
    class << self
      # @return [Integration]
      attr_accessor :current
    end

    # Surrounds the calls of the config's methods at a heartbeat.
    def around_heartbeat = yield

    # Surrounds the calls of the config's methods on the reactor. It may load the application's code anew before that.
    #
    # @raise [Unloadable] if that code cannot be loaded
    def around_delivery = yield

    # @return [Boolean] whether the application's classes can be asked for by name
    def booted? = true

    # @yield when they can be
    def after_boot = yield

    # @return [String, nil] where relative paths begin; nil for the working directory
    def root = nil

    # @return [Boolean] whether this process may take part in a store though it has not beaten
    def participates? = true

    # The first heartbeat has come in this process, whose manager shares a store with nobody.
    #
    # @param namespace [String, nil]
    def warn_if_not_alone(namespace); end

    # @param _transition [Symbol] :online or :offline
    # @return [Boolean] whether somebody listens to such transitions
    def notify?(_transition) = false

    # Tells those who listen of transitions, and surrounds the callback.
    #
    # @param _transition [Symbol]
    # @param _payloads [Array<Hash>] one for each user
    def notify(_transition, _payloads) = yield

    # Says what an error that has nowhere to go is about. Whom it was raised for is nothing for standard error, nor for
    # a log: both are kept, and read by others than those who may know who was online when.
    #
    # @param error [Exception]
    # @param message [String] what raised it, without ids
    # @param _user_id [Object] whom it was called for, or several
    def report(error, message, _user_id)
      warn("#{message}:\n#{error.full_message(highlight: false)}")
    end

    # @param message [String]
    def warn(message)
      Kernel.warn("OnlineManager: #{message}")
    end

    self.current = new
  end
end
