# frozen_string_literal: true

require_relative "integration"

class OnlineManager
  # The integration with Rails, loaded only if Rails is.
  module Rails
    # Connects the gem to a Rails application: to its logger, executor, reloader and assets.
    #
    # @private
    class Railtie < ::Rails::Railtie
      ASSETS = File.expand_path("assets", __dir__)

      OnlineManager::Integration.current = Integration.new

      OnlineManager.autoload :Channel, "online_manager/rails/channel"
      OnlineManager.autoload :Connection, "online_manager/rails/connection"
      OnlineManager.autoload :HeartbeatChannel, "online_manager/rails/heartbeat_channel"
      OnlineManager.autoload :Presence, "online_manager/rails/presence"

      # The application's own initializers run later.
      initializer("online_manager.boot") { OnlineManager::Integration.current.boot_begins }

      # `config.assets` is there with Sprockets and with Propshaft; `precompile` only with Sprockets.
      initializer "online_manager.assets" do |app|
        if app.config.respond_to?(:assets)
          app.config.assets.paths << ASSETS
          app.config.assets.precompile << "online_manager.js" if app.config.assets.respond_to?(:precompile)
        end
      end

      config.to_prepare { Registry.invalidate_configs }
    end
  end
end
