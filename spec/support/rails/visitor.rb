# frozen_string_literal: true

require "net/http"
require_relative "cable_client"

# A user who has logged in to the example application, with cookies and any number of sockets ("tabs").
class Visitor
  # The CSRF token in a page.
  CSRF_TOKEN = /name="csrf-token" content="(?<token>[^"]+)"/
  # How long the server may take to answer, in seconds.
  LIMIT = 30
  # The maximum delay before a client that sends heartbeats reconnects, in seconds.
  RETRY = 0.1

  attr_reader :name, :cables

  # @param server [#port]
  def initialize(server, name)
    @server = server
    @name = name
    @cookies = {}
    @cables = []
    @mutex = Mutex.new
    @stopped = ConditionVariable.new
    post("/session", "name" => name)
    @token = nil # logging in changes the token
  end

  # @return [Net::HTTPResponse]
  def get(path) = request(Net::HTTP::Get.new(path))

  # @return [Net::HTTPResponse]
  def post(path, form = {})
    request(Net::HTTP::Post.new(path, "X-CSRF-Token" => token).tap { |request| request.set_form_data(form) })
  end

  # Sends one heartbeat over HTTP.
  #
  # @return [Hash] the answer
  def heartbeat
    response = post("/heartbeat")
    raise "a heartbeat was answered with #{response.code}:\n#{response.body}" unless response.code == "200"

    JSON.parse(response.body)
  end

  # Opens a socket, and subscribes to the gem's own channel on it.
  #
  # @return [CableClient]
  def cable
    @cables << connect
    @cables.last
  end

  # Sends heartbeats until {#silence}, over the last {#cable}. Reopens the cable whenever the server closes it, as
  # online_manager.js does.
  #
  # @param seconds [Numeric] the interval
  #
  # @param over [Symbol] :cable or :http
  def send_heartbeats_every(seconds, over: :cable)
    @silent = false
    @heartbeats = Thread.new { send_heartbeats_until_silent(seconds, over) }
  end

  # Stops the heartbeats. The sockets stay open.
  def silence
    @mutex.synchronize do
      @silent = true
      @stopped.broadcast
    end
    @heartbeats&.join
  end

  # Stops the heartbeats and closes all sockets.
  def close
    silence
    @cables.each(&:close)
  end

  def inspect = "#<#{self.class} #{name}>"

  private

  def connect = CableClient.new(@server.port, cookie).subscribe

  def send_heartbeats_until_silent(seconds, over)
    until @silent
      begin
        over == :http ? heartbeat : heartbeat_on_cable
        pause(seconds)
      rescue CableClient::Closed, SystemCallError, IOError, Net::ReadTimeout
        pause(rand * RETRY)
      end
    end
  end

  def heartbeat_on_cable
    cable = @cables.last
    @cables[-1] = cable = connect unless cable.open?
    cable.heartbeat
  end

  def pause(seconds)
    @mutex.synchronize { @stopped.wait(@mutex, seconds) unless @silent }
  end

  def cookie = @cookies.map { |name, value| "#{name}=#{value}" }.join("; ")

  def token = @token ||= CSRF_TOKEN.match(get("/").body)[:token]

  def request(request)
    request["Cookie"] = cookie unless @cookies.empty?
    options = { open_timeout: LIMIT, read_timeout: LIMIT, max_retries: 0 }
    response = Net::HTTP.start("127.0.0.1", @server.port, options) { |http| http.request(request) }
    response.get_fields("Set-Cookie")&.each do |field|
      name, value = field[/\A[^;]+/].split("=", 2)
      @cookies[name] = value
    end
    response
  end
end
