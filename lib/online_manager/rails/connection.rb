# frozen_string_literal: true

require "active_support/concern"
require_relative "presence_of"

class OnlineManager
  # Lets the clients of an application's connections subscribe to {HeartbeatChannel}, so that it needs no channel of its
  # own for its heartbeats:
  #
  #   class ApplicationCable::Connection < ActionCable::Connection::Base
  #     include OnlineManager::Connection
  #     identified_by :current_user
  #     presence_of { current_user.id }
  #   end
  #
  # It does nothing to the connection itself, which neither is a heartbeat nor ends when there are none.
  module Connection
    extend ActiveSupport::Concern

    # What a connection can say.
    module ClassMethods
      include Rails::PresenceOf
    end
  end
end
