# frozen_string_literal: true

module WebSocketDemo
  # One client of the demo: how many heartbeats it sends (nil: no end) and what it does then.
  Actor = Struct.new(:name, :ending, :heartbeats, keyword_init: true)

  # Known to both processes: the clients play it, the server tells and judges by it.
  CAST = [
    Actor.new(name: "ada", ending: :keeps_on),
    Actor.new(name: "ben", ending: :goes_silent, heartbeats: 4),
    Actor.new(name: "cleo", ending: :closes, heartbeats: 6)
  ].freeze

  HEARTBEAT_INTERVAL = 0.5
end
