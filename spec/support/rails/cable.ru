# frozen_string_literal: true

# A minimal application that takes heartbeats over ActionCable, for the specs of online_manager.js alone.
#
# It serves the pages in its working directory. The socket's URL names the user: /cable?name=ann. It prints each
# heartbeat and each transition.

require "rails"
require "action_controller/railtie"
require "action_cable/engine"
require "online_manager"

$stdout.sync = true

# Everything that is no Rails class.
module CableApp
  # Prints the transitions. The timeout is in seconds.
  Config = Struct.new(:timeout) do
    def setup = nil
    def online(user) = puts("online #{user}")
    def offline(user) = puts("offline #{user}")
  end

  # Prints each heartbeat that arrives.
  module HeartbeatLog
    def heartbeat
      puts "heartbeat #{name} in #{self.class.name}"
      super
    end
  end

  SCRIPTS = {
    "online_manager.js" => File.join(OnlineManager::Rails::Railtie::ASSETS, "online_manager.js"),
    "action_cable.js" => File.join(Gem.loaded_specs.fetch("actioncable").full_gem_path,
                                   "app/assets/javascripts/action_cable.js")
  }.freeze

  def self.file(name)
    path = SCRIPTS[name] || File.expand_path(name)
    return [404, {}, []] unless File.file?(path)

    [200, { "Content-Type" => name.end_with?(".js") ? "text/javascript" : "text/html" }, [File.read(path)]]
  end

  # The Rails application.
  class Application < Rails::Application
    config.root = Dir.pwd
    config.eager_load = false
    config.secret_key_base = "none"
    config.hosts.clear
    config.logger = Logger.new($stderr)
    config.log_level = :warn
    config.action_cable.cable = { "adapter" => "async" }
    config.action_cable.disable_request_forgery_protection = true
  end
end

OnlineManager.setup(CableApp::Config.new(Float(ENV.fetch("TIMEOUT"))), reactor: :thread)
OnlineManager.setup(CableApp::Config.new(60), reactor: :thread, namespace: "slow")

module ApplicationCable
  # Carries the heartbeats of the gem's own channel.
  class Connection < ActionCable::Connection::Base
    include OnlineManager::Connection

    identified_by :name
    presence_of { name }

    def connect = self.name = request.params["name"]
  end

  # A channel in which a user has another id than in other channels.
  class Channel < ActionCable::Channel::Base
    include OnlineManager::Channel

    presence_of { "#{name} in #{self.class.name}" }
  end
end

# Echoes messages.
class Chat < ApplicationCable::Channel
  def say(data) = transmit({ "said" => data.fetch("text") })
end

# Shortens its heartbeat interval on request.
class ChangingInterval < ApplicationCable::Channel
  def shorten_interval = transmit({ "online_manager" => { "heartbeat_every" => 0.05 } })
end

# Expects a heartbeat every 20 s.
class SlowInterval < ApplicationCable::Channel
  presence_of(namespace: "slow") { "#{name} in #{self.class.name}" }
end

# Accepts one subscription per user.
class OncePerUser < ApplicationCable::Channel
  SUBSCRIBED = Set.new

  def subscribed
    reject unless SUBSCRIBED.add?(name)
  end
end

[OnlineManager::HeartbeatChannel, Chat, ChangingInterval, SlowInterval, OncePerUser].each do |channel|
  channel.prepend(CableApp::HeartbeatLog)
end

CableApp::Application.initialize!
CableApp::Application.routes.draw do
  get "/restart", to: ->(_) { [200, {}, [ActionCable.server.restart.inspect]] }
  get "/:name", constraints: { name: %r{[^/]+} },
                to: ->(env) { CableApp.file(env.fetch("action_dispatch.request.path_parameters").fetch(:name)) }
end

run CableApp::Application
