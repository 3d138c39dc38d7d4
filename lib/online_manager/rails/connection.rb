# frozen_string_literal: true

require "active_support/concern"
require_relative "presence_of"

class OnlineManager
  # Lets the clients of an application's connections subscribe to {HeartbeatChannel}, so that the application needs no
  # channel of its own for heartbeats:
  #
  #   class ApplicationCable::Connection < ActionCable::Connection::Base
  #     include OnlineManager::Connection
  #     identified_by :current_user
  #     presence_of { current_user.id }
  #   end
  #
  # It does not change the connection itself: to connect is not a heartbeat, and no connection is closed for want of
  # one.
  module Connection
    extend ActiveSupport::Concern

    # The connection's class methods.
    module ClassMethods
      include Rails::PresenceOf
    end
  end
end
