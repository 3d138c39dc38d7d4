# frozen_string_literal: true

# The clients of the demo, in their own process: three real WebSocket connections that send heartbeats every half
# second. The argument is the server's port. Each line of output is a name, a tab and what that client does now.

require "faye/websocket"
require_relative "cast"

module WebSocketDemo
  # One WebSocket connection, for one entry of the cast.
  class Client
    def initialize(actor, port)
      @actor = actor
      @heartbeats = 0
      @socket = Faye::WebSocket::Client.new("ws://127.0.0.1:#{port}/?user=#{actor.name}")
      @socket.on(:open) { start }
      @socket.on(:error) { |event| @error = event.message }
      @socket.on(:close) { |event| closed(event) }
    end

    private

    def start
      send_heartbeat
      @timer = EM.add_periodic_timer(HEARTBEAT_INTERVAL) { send_heartbeat }
    end

    def send_heartbeat
      return finish if @heartbeats == @actor.heartbeats

      @socket.send("heartbeat")
      @heartbeats += 1
    end

    def finish
      EM.cancel_timer(@timer)
      case @actor.ending
      when :goes_silent then say("goes silent, its connection stays open")
      when :closes
        say("closes its connection")
        @leaving = true
        @socket.close
      end
    end

    # Also ends this process when the server was killed before it could stop its clients.
    def closed(event)
      return if @leaving

      abort("#{@actor.name} lost the connection: #{@error || "close code #{event.code}"}")
    end

    def say(action) = puts("#{@actor.name}\t#{action}")
  end
end

if $PROGRAM_NAME == __FILE__
  $stdout.sync = true
  port = Integer(ARGV.fetch(0))
  EM.run { WebSocketDemo::CAST.each { |actor| WebSocketDemo::Client.new(actor, port) } }
end
