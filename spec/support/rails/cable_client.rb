# frozen_string_literal: true

require "json"
require "socket"
require "websocket/driver"

# An ActionCable client that sends only what a spec asks for, and no heartbeats by itself.
class CableClient
  HEARTBEATS = "OnlineManager::HeartbeatChannel"
  # How long the server may take to answer, in seconds.
  LIMIT = 30

  # The server closed the socket, or rejected a subscription.
  class Closed < StandardError; end

  # WebSocket::Driver calls it.
  attr_reader :url

  # Connects, and returns when the server has sent its welcome message.
  #
  # @param port [Integer]
  # @param cookie [String] the value of the Cookie header
  # @raise [Closed] if the server rejects the connection
  def initialize(port, cookie)
    @url = "ws://127.0.0.1:#{port}/cable"
    @monitor = Monitor.new
    @news = @monitor.new_cond
    @messages = []
    @socket = TCPSocket.new("127.0.0.1", port)
    @driver = WebSocket::Driver.client(self, protocols: ["actioncable-v1-json"])
    @driver.set_header("Cookie", cookie)
    @driver.set_header("Origin", "http://127.0.0.1:#{port}")
    @driver.on(:message) { |event| take(JSON.parse(event.data)) }
    @driver.on(:close) { @socket.close }
    @monitor.synchronize { @driver.start }
    @reader = Thread.new { read }
    wait_for { |message| message["type"] == "welcome" }
  end

  # Subscribes, and returns when the server has confirmed it.
  #
  # @param channel [String]
  # @return [self]
  # @raise [Closed] if it is rejected
  def subscribe(channel = HEARTBEATS, **params)
    send_command("subscribe", channel, params)
    id = identifier(channel, params)
    answer = wait_for { |message| message["identifier"] == id && message["type"]&.end_with?("subscription") }
    raise Closed, "#{channel} rejects us" if answer["type"] == "reject_subscription"

    self
  end

  def unsubscribe(channel = HEARTBEATS, **params)
    send_command("unsubscribe", channel, params)
  end

  def perform(action, channel = HEARTBEATS, **params)
    send_command("message", channel, params, data: JSON.generate("action" => action))
  end

  def heartbeat = perform("heartbeat")

  # @return [Array<Hash>] the messages so far, without pings
  def messages = @monitor.synchronize { @messages.dup }

  # @return [Hash] the first message for which the block returns true
  def wait_for(limit: LIMIT, &wanted)
    deadline = Wait.monotonic + limit
    @monitor.synchronize do
      until (message = @messages.find(&wanted))
        left = deadline - Wait.monotonic
        raise Closed, "the server has closed the socket, after #{@messages}" unless open?
        raise "the server has not said it within #{limit} s, but #{@messages}" if left.negative?

        @news.wait(left)
      end
      message
    end
  end

  def open? = !@socket.closed?

  # Closes the socket without unsubscribing.
  def close
    @socket.close
    @reader&.join unless @reader == Thread.current
  end

  # @private WebSocket::Driver calls it.
  def write(bytes)
    @socket.write(bytes)
  rescue SystemCallError, IOError => e
    raise Closed, e.message
  end

  def inspect = "#<#{self.class} #{url}>"

  private

  def identifier(channel, params) = JSON.generate("channel" => channel, **params)

  def send_command(command, channel, params, **data)
    @monitor.synchronize do
      @driver.text(JSON.generate("command" => command, "identifier" => identifier(channel, params), **data))
    end
  end

  def read
    loop do
      bytes = @socket.readpartial(4096)
      @monitor.synchronize { @driver.parse(bytes) }
    end
  rescue SystemCallError, IOError, Closed
    nil # the connection has ended
  ensure
    @socket.close
    @monitor.synchronize { @news.broadcast }
  end

  def take(message)
    return if message["type"] == "ping"

    @messages << message
    @news.broadcast
  end
end
