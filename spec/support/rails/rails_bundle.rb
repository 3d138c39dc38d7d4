# frozen_string_literal: true

# The bundle of the Rails specs: the one of examples/rails, or that of the Gemfile that the environment variable
# RAILS_GEMFILE names, for a Rails that is not packaged.
module RailsBundle
  GEMFILE = (File.expand_path(ENV["RAILS_GEMFILE"]) if ENV["RAILS_GEMFILE"])
  # Variables for an application with a Gemfile of its own, which is used unless RAILS_GEMFILE is set.
  OVERRIDE = { "BUNDLE_GEMFILE" => GEMFILE, "ONLINE_MANAGER_PATH" => (RubyProcess::ROOT if GEMFILE) }.compact.freeze
  # Variables for a process without an application.
  ENVIRONMENT = { "BUNDLE_GEMFILE" => "#{RubyProcess::ROOT}/examples/rails/Gemfile", **OVERRIDE }.freeze
  # Starts the program `rails` outside an application.
  RAILS = [*(%w[bundle exec] if GEMFILE), "rails"].freeze
end
