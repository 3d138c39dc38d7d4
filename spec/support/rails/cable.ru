# frozen_string_literal: true

# The smallest application that takes heartbeats over ActionCable, for what concerns nothing but online_manager.js.
#
# It is started in a folder with the pages to serve. Who somebody is, the URL of the socket says: /cable?name=ann. It
# prints each heartbeat and each transition.

require "rails"
require "action_controller/railtie"
require "action_cable/engine"
require "online_manager"

$stdout.sync = true

# What the classes that Rails wants do not have to do with.
module CableApp
  # Keeps users online for so many seconds.
  Config = Struct.new(:timeout) do
    def setup = nil
    def online(user) = puts("online #{user}")
    def offline(user) = puts("offline #{user}")
  end

  # Tells of each heartbeat that comes in.
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

  # One in which a user is another one than in the others.
  class Channel < ActionCable::Channel::Base
    include OnlineManager::Channel

    presence_of { "#{name} in #{self.class.name}" }
  end
end

# Answers.
class Chat < ApplicationCable::Channel
  def say(data) = transmit({ "said" => data.fetch("text") })
end

# Changes its mind about the interval.
class ChangingInterval < ApplicationCable::Channel
  def shorten_interval = transmit({ "online_manager" => { "heartbeat_every" => 0.05 } })
end

# Waits for a heartbeat each 20 s.
class SlowInterval < ApplicationCable::Channel
  presence_of(namespace: "slow") { "#{name} in #{self.class.name}" }
end

# Takes everybody once.
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
