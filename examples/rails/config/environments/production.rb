# frozen_string_literal: true

Rails.application.configure do
  config.cache_classes = true
  config.eager_load = true
  config.consider_all_requests_local = false
  config.public_file_server.enabled = true
  config.log_level = ENV.fetch("RAILS_LOG_LEVEL", "info")
  # Log lines with the time and the process.
  config.log_formatter = Logger::Formatter.new

  # There are only two asset files, so nobody has to run `rails assets:precompile` first.
  config.assets.compile = true
end
