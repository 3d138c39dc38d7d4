# frozen_string_literal: true

# Heartbeats of clients without a WebSocket. It is a POST with a session cookie, so it takes a CSRF token as any other
# does: the page has one in a <meta>, which goes into the header X-CSRF-Token.
class HeartbeatsController < ApplicationController
  def create
    return head :unauthorized unless current_user

    manager = OnlineManager.current
    manager.seen(current_user.id)
    render json: { heartbeat_every: manager.timeout / 3 }
  end
end
