# frozen_string_literal: true

# Takes heartbeats of clients without a WebSocket. It is a POST with a session cookie, so it requires a CSRF token: the
# page has one in a <meta> tag, and sends it in the header X-CSRF-Token.
class HeartbeatsController < ApplicationController
  def create
    return head :unauthorized unless current_user

    manager = OnlineManager.current
    manager.seen(current_user.id)
    render json: { heartbeat_every: manager.timeout / 3 }
  end
end
