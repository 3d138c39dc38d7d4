# frozen_string_literal: true

require "redis"
require_relative "../server"
require_relative "connected"

module Bench
  # Our own Redis server with its default settings, except that it writes no snapshots to disk.
  class RedisServer < Server
    def socket = File.join(folder, "socket")

    # @return [String] the `store:` option for a manager
    def url = "redis+unix://#{socket}"

    def connect = ::Redis.new(path: socket, reconnect_attempts: 0)

    def version = `#{executable("redis-server")} --version`[/v=(\S+)/, 1]

    private

    def command = [executable("redis-server"), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]

    def ready?
      connect.ping == "PONG"
    rescue ::Redis::BaseError
      false
    end
  end

  # Runs `ZADD users NOW ID` for each heartbeat.
  class RedisContender < Connected
    # @param server [RedisServer]
    def initialize(server)
      super() { server.connect }
    end

    def prepare(ids)
      with_connection do |redis|
        redis.flushall
        ids.each_slice(1_000) { |slice| redis.zadd("users", slice.map { |id| [now, id.to_s] }) }
      end
    end

    def send_heartbeats(ids, passes = 1)
      with_connection do |redis|
        Heartbeats.through(ids, passes) { |id| redis.zadd("users", now, id.to_s) }
      end
    end
  end
end
