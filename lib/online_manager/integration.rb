# frozen_string_literal: true

class OnlineManager
  # What the gem leaves to the application's framework: its executor, logger, root folder and boot. This class is for
  # plain Ruby; {Rails::Integration} replaces it in a Rails application.
  #
  # @private
  class Integration
    # Seconds between two checks whether the application is initialized.
    BOOT_POLL_INTERVAL = 0.05
    private_constant :BOOT_POLL_INTERVAL

    class << self
      # @return [Integration] the one in use
      attr_accessor :current
    end

    # @return [Boolean] whether callbacks run by default on the fiber scheduler that `setup` is called in
    def uses_fibers? = true

    # Wraps the calls of the config's methods within a heartbeat.
    def around_heartbeat = yield

    # Wraps the calls of the config's methods on the reactor. It may reload the application's code before the call.
    #
    # @raise [Unloadable] if the code cannot be reloaded
    def around_delivery = yield

    # @return [Boolean] whether the application is initialized, so that its classes can be loaded by name
    def booted? = true

    # @yield once the application is initialized
    def after_boot = yield

    # @return [Boolean] whether the application is being initialized
    def booting? = false

    # @return [Boolean] whether the current thread initializes the application
    def boot_thread? = false

    # Waits while the application is being initialized. Each thread of the gem does so before it asks the application
    # for anything: that may load code, and the thread that boots loads code too, so each could wait for the other.
    #
    # @yieldreturn [Boolean] whether to wait no longer, asked often
    def wait_for_boot
      sleep BOOT_POLL_INTERVAL while booting? && !yield
    end

    # @return [String, nil] the folder that relative paths start from; nil: the working directory
    def root = nil

    # @return [Boolean] whether this process may become a member of a shared store before its first heartbeat
    def participates? = true

    # Warns if other processes of the application also keep presence in their own memory. Called for the first heartbeat
    # in a process, with the store `:memory`.
    #
    # @param namespace [String, nil]
    def warn_if_not_alone(namespace); end

    # @param _transition [Symbol] :online or :offline
    # @return [Boolean] whether there are subscribers to such transitions
    def notify?(_transition) = false

    # Notifies the subscribers, around the callback.
    #
    # @param _transition [Symbol] :online or :offline
    # @param _payloads [Array<Hash>] one for each user, see {Call#payloads}
    def notify(_transition, _payloads) = yield

    # Reports an error that no `on_error` handles, on standard error. Does not show the user id: logs are kept, and read
    # by people who may not know who was online when.
    #
    # @param error [Exception]
    # @param message [String] what raised it, without ids
    # @param _user_id [Object] the id of the callback's user, an Array of ids, or nil
    def report(error, message, _user_id)
      warn("#{message}:\n#{error.full_message(highlight: false)}")
    end

    # Prints a warning on standard error.
    #
    # @param message [String]
    def warn(message)
      Kernel.warn("OnlineManager: #{message}")
    end

    self.current = new
  end
end
