# frozen_string_literal: true

# Says that somebody has come or gone. Not who: the page asks for the list, so it does no harm if a message is lost, or
# comes twice or out of order.
class UsersChannel < ApplicationCable::Channel
  def subscribed
    stream_from "users"
  end
end
