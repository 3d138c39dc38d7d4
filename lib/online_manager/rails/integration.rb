# frozen_string_literal: true

require "active_support/notifications"
require_relative "worker_lock"

class OnlineManager
  module Rails
    # The integration with Rails, see {OnlineManager::Integration}. As long as Rails has no application, logger or root,
    # it does what the one for plain Ruby does.
    #
    # @private
    class Integration < OnlineManager::Integration
      # False: a callback that waits for the database would keep the requests and the sockets waiting that share the
      # scheduler, as in Falcon; few adapters give control to it.
      def uses_fibers? = false

      # Wraps the callback in the executor: its database connection goes back to the pool, and no class is unloaded
      # while it runs. Inside a request, which has the executor already, this does nothing.
      def around_heartbeat(&block)
        application ? application.executor.wrap(&block) : yield
      end

      # Wraps the callback in the reloader: as above, and in development it reloads changed classes first.
      def around_delivery
        return yield unless application

        entered = false
        application.reloader.wrap do
          entered = true
          yield
        end
      rescue StandardError, ScriptError => e
        raise if entered

        raise Unloadable, "the application's code cannot be loaded: #{e.message}"
      end

      def booted? = application.nil? || application.initialized?

      # Called when the application begins to be initialized; a script may load one and never do that.
      def boot_begins
        @boot_thread = ::Thread.current
      end

      def booting? = !@boot_thread.nil? && !booted?

      def boot_thread? = booting? && @boot_thread == ::Thread.current

      def after_boot(&block)
        application.config.after_initialize(&block)
      end

      def root = ::Rails.root&.to_s

      # False in a console, a runner, a rake task and a generator: they are short-lived, and not meant to run callbacks.
      def participates? = !(rails_command? || rake_task? || defined?(::Spring::Application))

      def warn_if_not_alone(namespace)
        return unless root

        other_pid = (@worker_lock ||= WorkerLock.new).acquire(namespace)
        return unless other_pid

        warn("process #{Process.pid} and process #{other_pid} both get heartbeats, but do not share the store " \
             ":memory: each calls online and offline by its own heartbeats only. Share a store: " \
             "OnlineManager.setup(…, store: \"sqlite:storage/presence_\#{Rails.env}.sqlite3\")")
      end

      def notify?(transition) = ActiveSupport::Notifications.notifier.listening?(event_name(transition))

      def notify(transition, payloads)
        instrumenter = ActiveSupport::Notifications.instrumenter
        name = event_name(transition)
        payloads.each { |payload| report_errors_of(name) { instrumenter.start(name, payload) } }
        started_at = Latch.now
        yield
      rescue Exception => e # rubocop:disable Lint/RescueException -- it is raised again
        payloads.each { |payload| payload.update(exception: [e.class.name, e.message], exception_object: e) }
        raise
      ensure
        duration = Latch.now - started_at if started_at
        payloads.reverse_each do |payload|
          report_errors_of(name) { instrumenter.finish(name, payload.update(duration:)) }
        end
      end

      def report(error, message, user_id)
        logger&.error("OnlineManager: #{message}:\n#{format_error(error)}") or super
        logger&.debug { "OnlineManager: the user id of that error is #{user_id.inspect}" } unless user_id.nil?
        return unless ::Rails.respond_to?(:error) && ::Rails.error

        ::Rails.error.report(error, handled: true, severity: :error, context: { user_id:, message: }, **source_option)
      end

      def warn(message)
        logger&.warn("OnlineManager: #{message}") or super
      end

      private

      def application = ::Rails.application

      def logger = ::Rails.logger

      def event_name(transition) = "#{transition}.online_manager"

      # Formats an error as Rails does: without the backtrace's lines in gems, unless it has no others.
      def format_error(error)
        lines = ::Rails.backtrace_cleaner.clean(error.backtrace || [])
        lines = error.backtrace || [] if lines.empty?
        cause = ["caused by", format_error(error.cause)] if error.cause
        ["#{error.class} (#{error.message})", *lines, *cause].join("\n")
      end

      # The keyword `source:`, which Rails.error.report accepts since Rails 7.1.
      def source_option
        accepted = ::Rails.error.method(:report).parameters.include?(%i[key source])
        accepted ? { source: "online_manager" } : {}
      end

      # Reports exceptions of subscribers, which must not keep the callback from running.
      def report_errors_of(name)
        yield
      rescue StandardError => e
        report(e, "a subscriber of #{name} raised", nil)
      end

      def rails_command?
        return false if defined?(::Rails::Server)

        File.basename($PROGRAM_NAME) == "rails" || defined?(::Rails::Console)
      end

      def rake_task? = defined?(::Rake.application) && ::Rake.application.top_level_tasks.any?
    end
  end
end
