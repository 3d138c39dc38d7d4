# frozen_string_literal: true

require_relative "channel"
require_relative "connection"

class OnlineManager
  # The gem's own channel, which receives heartbeats and nothing else. The connection names the user: see {Connection}.
  # `OnlineManager.subscribe(consumer)` in online_manager.js subscribes to it.
  class HeartbeatChannel < ActionCable::Channel::Base
    include Channel

    private

    def online_manager_presence_owner
      return connection if connection.is_a?(Connection)

      raise Error, "#{connection.class} does not name the user of heartbeats for #{self.class}: add " \
                   "`include OnlineManager::Connection` and `presence_of { current_user.id }`"
    end
  end
end
