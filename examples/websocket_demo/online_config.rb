# frozen_string_literal: true

require "em-websocket"
require "socket"

module WebSocketDemo
  # The README's example config with a real WebSocket server. Each connection belongs to the user in its address
  # ("ws://127.0.0.1:PORT/?user=ada"), and each message on it is a heartbeat of that user.
  #
  # Events go to the audience, an object with the methods listening(port), connected(user, socket), disconnected(user,
  # socket), heartbeat(user), online(user) and offline(user). All are called on the reactor thread.
  class OnlineConfig
    HOST = "127.0.0.1"
    # WebSocket close codes from 4000 on are for applications.
    UNNAMED = 4000

    attr_reader :timeout

    # @param timeout [Numeric] seconds
    # @param port [Integer] 0 lets the operating system choose a free port
    def initialize(audience, timeout:, port: 0)
      @audience = audience
      @timeout = timeout
      @port = port
    end

    def setup
      server = start_server(@port) do |socket|
        socket.onopen do |handshake|
          next unless (user = welcome(socket, handshake.query["user"].to_s))

          socket.onmessage do
            # The audience comes first: then its time of a heartbeat is never later than the manager's.
            @audience.heartbeat(user)
            yield user
          end
        end
      end
      @audience.listening(port_of(server))
    end

    # A closed connection is no transition: a reloaded page is back before its timeout. For a faster offline, call
    # OnlineManager.current.leave(user, after: 1) in disconnected.
    def online(user) = @audience.online(user)
    def offline(user) = @audience.offline(user)

    private

    def start_server(port, &) = EM::WebSocket.run(host: HOST, port:, &)

    def port_of(server) = Socket.unpack_sockaddr_in(EM.get_sockname(server)).first

    # @return [String, nil] the user, or nil if the address names none
    def welcome(socket, user)
      unless user.match?(/\A[\w-]{1,40}\z/)
        socket.close(UNNAMED, "connect to /?user=NAME")
        return
      end

      @audience.connected(user, socket)
      socket.onclose { @audience.disconnected(user, socket) }
      user
    end
  end
end
