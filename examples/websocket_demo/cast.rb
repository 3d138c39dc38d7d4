# frozen_string_literal: true

module WebSocketDemo
  # One client of the demo: how many heartbeats it sends (nil: it never stops) and how it ends.
  Actor = Struct.new(:name, :ending, :heartbeats, keyword_init: true)

  # Shared by both processes: the clients act by it, the server prints and judges by it.
  CAST = [
    Actor.new(name: "ada", ending: :keeps_on),
    Actor.new(name: "ben", ending: :goes_silent, heartbeats: 4),
    Actor.new(name: "cleo", ending: :closes, heartbeats: 6)
  ].freeze

  HEARTBEAT_INTERVAL = 0.5
end
