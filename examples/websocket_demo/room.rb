# frozen_string_literal: true

require "json"

module WebSocketDemo
  # The audience of bin/demo --serve: prints each transition, and sends it to every open page, together with the list of
  # online users. Runs on the reactor thread only.
  class Room
    def initialize(out: $stdout)
      @out = out
      @out.sync = true
      @sockets = []
      @online = 0
    end

    def listening(port)
      @out.puts("Open http://#{OnlineConfig::HOST}:#{port}/ in a few browser tabs; each is a user. Ctrl-C ends.")
    end

    def connected(_user, socket)
      @sockets << socket
      push(socket, online: online_users)
    end

    def disconnected(_user, socket) = @sockets.delete(socket)
    def heartbeat(_user) = nil

    def online(user)
      @online += 1
      announce(user, :online)
    end

    def offline(user)
      @online -= 1
      announce(user, :offline)
    end

    # @return [String] the end of the message that is printed after the manager has stopped
    def final_state = @online.zero? ? "everyone is offline" : "but #{@online} were left online"

    private

    def announce(user, state)
      @out.puts("#{Time.now.strftime("%H:%M:%S")}  #{user} #{state} (#{@online} online)")
      users = online_users
      @sockets.each { |socket| push(socket, user:, state:, online: users) }
    end

    def online_users = OnlineManager.current.online_users.sort

    # em-websocket raises when the socket is already closing.
    def push(socket, message)
      socket.send_text(JSON.generate(message)) if socket.state == :connected
    end
  end
end
