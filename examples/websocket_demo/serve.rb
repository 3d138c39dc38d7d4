# frozen_string_literal: true

# bin/demo --serve: runs the server with a page on which every open browser tab is a user. The argument is the port.

require "online_manager"
require_relative "page_config"
require_relative "room"

module WebSocketDemo
  # Serves the page until Ctrl-C.
  class Serve
    # Seconds. A tab sends a heartbeat every second.
    TIMEOUT = 3

    def initialize(port)
      @port = port
      @room = Room.new
    end

    # @return [Integer] the exit status
    def call
      OnlineManager.run(PageConfig.new(@room, timeout: TIMEOUT, port: @port), reactor: :eventmachine)
      0
    rescue SignalException => e
      # The manager has set the users offline before `run` raised the signal.
      puts("\n#{e.is_a?(Interrupt) ? "Ctrl-C" : e.message}: the server has stopped, #{@room.final_state}.")
      e.is_a?(Interrupt) ? 0 : 128 + e.signo
    rescue StandardError => e
      # EventMachine raises a RuntimeError when the port is taken.
      raise unless e.message.include?("no acceptor")

      warn("bin/demo: port #{@port} is taken or not allowed; choose another with --port N.")
      1
    end
  end
end

exit(WebSocketDemo::Serve.new(Integer(ARGV.fetch(0))).call) if $PROGRAM_NAME == __FILE__
