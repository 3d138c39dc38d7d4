# frozen_string_literal: true

# Broadcasts that a user came online or went offline, but not which one: the page then requests the list. A message that
# is lost, doubled or out of order therefore does no harm.
class UsersChannel < ApplicationCable::Channel
  def subscribed
    stream_from "users"
  end
end
