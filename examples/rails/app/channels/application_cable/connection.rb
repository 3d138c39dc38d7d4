# frozen_string_literal: true

module ApplicationCable
  # A user's WebSocket. It also carries the heartbeats of online_manager.js.
  class Connection < ActionCable::Connection::Base
    include OnlineManager::Connection

    identified_by :current_user
    presence_of { current_user.id }

    def connect
      self.current_user = User.find_by(id: cookies.encrypted[:user_id]) || reject_unauthorized_connection
    end
  end
end
