# frozen_string_literal: true

require "net/http"
require_relative "cable_client"

# Somebody who has logged in to the example, with cookies and as many sockets ("tabs") as wanted.
class Visitor
  # What a page says its token is.
  CSRF_TOKEN = /name="csrf-token" content="(?<token>[^"]+)"/
  # Seconds within which the server is to answer.
  LIMIT = 30
  # Seconds until a client that beats by itself tries again to connect, at the most.
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
    @token = nil # logging in has changed it
  end

  # @return [Net::HTTPResponse]
  def get(path) = request(Net::HTTP::Get.new(path))

  # @return [Net::HTTPResponse]
  def post(path, form = {})
    request(Net::HTTP::Post.new(path, "X-CSRF-Token" => token).tap { |request| request.set_form_data(form) })
  end

  # Beats once over HTTP.
  #
  # @return [Hash] the answer
  def heartbeat
    response = post("/heartbeat")
    raise "a heartbeat was answered with #{response.code}:\n#{response.body}" unless response.code == "200"

    JSON.parse(response.body)
  end

  # Opens a socket, and subscribes there to the gem's own channel.
  #
  # @return [CableClient]
  def cable
    @cables << connect
    @cables.last
  end

  # Beats from now on, each so many seconds, until {#silence}; over the last {#cable}, which is opened anew whenever the
  # server closes it, as online_manager.js does.
  #
  # @param over [Symbol] or over :http
  def send_heartbeats_every(seconds, over: :cable)
    @silent = false
    @heartbeats = Thread.new { send_heartbeats_until_silent(seconds, over) }
  end

  # Beats no more. Its sockets stay open.
  def silence
    @mutex.synchronize do
      @silent = true
      @stopped.broadcast
    end
    @heartbeats&.join
  end

  # Goes silent and closes all sockets.
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
