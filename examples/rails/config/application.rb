# frozen_string_literal: true

require_relative "boot"

require "logger" # Rails before 7.1 needs it, and does not require it
require "rails"
require "active_record/railtie"
require "action_controller/railtie"
require "action_view/railtie"
require "action_cable/engine"
require "sprockets/railtie"

Bundler.require(*Rails.groups)

module WhoIsOnline
  # The application: users log in by name, and see who else is online.
  class Application < Rails::Application
    config.load_defaults 6.1

    # The schema is defined by the migrations alone.
    config.active_record.dump_schema_after_migration = false
  end
end
