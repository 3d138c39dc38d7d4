# frozen_string_literal: true

require "securerandom"
require_relative "redis_cluster"

module Stores
  # A namespace of its own on a Redis server. The specs read it with `redis-cli`, which shares no code with the gem.
  class Redis
    # Each partition may be delivered by another process.
    PARTITIONS = 16
    # The kinds of keys of a partition.
    KEYS = %w[users events meta overflow tombstones failures dead_letters superseded leaves uncertain leaving].freeze
    # Returns the lease holder of each partition whose lease lasts.
    LEASES = <<~LUA
      local time, holders = redis.call('TIME'), {}
      for number, key in ipairs(KEYS) do
        local lease = redis.call('HMGET', key, 'holder', 'until')
        holders[number] = lease[1] and tonumber(lease[2]) > time[1] * 1000000 + time[2] and lease[1]
      end
      return holders
    LUA

    # Shifts all times of a partition into the past by a number of milliseconds. Its keys come in the order of KEYS, and
    # then that of the members.
    SHIFT = <<~LUA
      local shift = tonumber(ARGV[1])
      local function shift_scores(key, step)
        for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do
          redis.call('ZINCRBY', key, string.format('%.0f', -step), id)
        end
      end
      local function earlier(time, step)
        return time and tonumber(time) > 0 and string.format('%.0f', time - step) or time
      end
      local function shift_entries(key, name, step)
        local entries = redis.call('XRANGE', key, '-', '+')
        redis.call('DEL', key)
        for _, entry in ipairs(entries) do
          for i = 1, #entry[2], 2 do
            entry[2][i + 1] = entry[2][i] == name and earlier(entry[2][i + 1], step) or entry[2][i + 1]
          end
          redis.call('XADD', key, entry[1], unpack(entry[2]))
        end
      end
      -- A score holds 1,024 classes for each millisecond.
      shift_scores(KEYS[1], shift * 1024)
      shift_entries(KEYS[2], 'd', shift * 1000)
      shift_entries(KEYS[2], 's', shift * 1000)
      for _, name in ipairs({'swept', 'hold', 'leave_hold', 'until', 'silent', 'longest_until'}) do
        local time = redis.call('HGET', KEYS[3], name)
        if time then
          redis.call('HSET', KEYS[3], name, earlier(time, shift * 1000))
        end
      end
      local overflows = redis.call('HGETALL', KEYS[4])
      for i = 1, #overflows, 2 do
        local seen, left, latest, is_leave = overflows[i + 1]:match('^(%-?%d+) (%-?%d+) (%-?%d+) (%d)$')
        local times = table.concat({earlier(seen, shift), earlier(left, shift), earlier(latest, shift), is_leave}, ' ')
        redis.call('HSET', KEYS[4], overflows[i], times)
      end
      shift_scores(KEYS[5], shift)
      shift_entries(KEYS[9], 't', shift)
      shift_scores(KEYS[10], shift)
      shift_scores(KEYS[11], shift)
      shift_scores(KEYS[12], shift)
    LUA

    def self.to_s = "Redis"

    # @param bytes [String] see ext/store/src/id.rs
    # @return [Integer] the CRC16 of Redis Cluster, of which the gem uses the remainder by 16 and Redis that by 16,384
    def self.crc16(bytes)
      bytes.each_byte.reduce(0) do |crc, byte|
        8.times.reduce(crc ^ (byte << 8)) { |sum, _| ((sum << 1) ^ (sum[15] * 0x1021)) & 0xFFFF }
      end
    end

    attr_reader :server, :namespace, :database, :url

    # @param server [RedisServer, RedisCluster] the common server, or a server that the spec stops
    # @param url [String, Array<String>] another URL of the server
    # @param database [Integer]
    # @param namespace [String] unique
    def initialize(server = RedisServer.common, url: nil, database: 0, namespace: "spec-#{SecureRandom.hex(4)}")
      @server = server
      @database = database
      @namespace = namespace
      @url = url || server.url(database:)
    end

    # @return [Hash{Symbol => Object}] the manager's options
    def options = { store: @url, namespace: @namespace }

    # @return [String]
    def key(partition, name) = "{om:#{@namespace}:#{partition}}:#{name}"

    # @return [Integer] the partition of an id
    def partition_of(id)
      tag = { Integer => "i", String => "s", Symbol => "S" }.fetch(id.class)
      self.class.crc16("#{tag}#{id}") % PARTITIONS
    end

    # @return [Integer] the Redis Cluster slot of a partition
    def slot_of(partition) = self.class.crc16("om:#{@namespace}:#{partition}") % RedisCluster::SLOTS

    # Checks that all keys have a known name, and that each user is in the right partition.
    def check
      strange = keys.reject { |key| key == "{om:#{@namespace}}:members" || number_of(key, *KEYS) }
      strange += keys.grep(/:users\z/).reject { |key| ids_in(key).all? { |id| belongs?(id, key) } }
      strange.empty? or RSpec::Expectations.fail_with("these keys are strange: #{strange.join(", ")}")
    end

    # Copies the data of a server of our own, as they would be if an hour had passed since.
    #
    # @return [String] see {RedisServer#dump}
    def back_up
      copy = @server.class.new
      copy.begin_with(@server.dump)
      copy.start
      PARTITIONS.times do |number|
        keys = [*KEYS.map { |name| key(number, name) }, "{om:#{@namespace}}:members"]
        # The members have one key, and are shifted once.
        keys[-1] = "none" unless number.zero?
        copy.cli("EVAL", SHIFT, keys.size, *keys, 3_600_000)
      end
      copy.dump
    ensure
      copy&.stop
    end

    # Restarts the server with a copy, while processes use it.
    #
    # @yield while it is down
    def restore(copy)
      @server.restart(with_data: true) do
        yield
        @server.begin_with(copy)
      end
    end

    # Whether no process is in a transaction that would block the others. Each Redis script is atomic, so none ever is.
    def free? = true

    # @return [Array<String, nil>] the lease holder of each partition, nil if it has none
    def leases
      keys = Array.new(PARTITIONS) { |number| key(number, :meta) }
      (@server.cluster? ? keys.each_slice(1) : [keys]).flat_map do |some|
        @server.ask("--no-raw", "EVAL", LEASES, some.size, *some, database: @database).map { |line| line[/"(.*)"/, 1] }
      end
    end

    # @return [Array<Integer>] the sorted numbers of leases of the processes that hold any
    def shares = leases.compact.tally.values.sort

    # Whether a number of processes hold all leases together.
    def shared_by?(count)
      held = leases
      held.none?(&:nil?) && held.uniq.size == count
    end

    # @return [Integer] the number of users who are online according to a server
    def count_on(server)
      Array.new(PARTITIONS) { |number| Integer(server.cli("ZCARD", key(number, :users))) }.sum
    end

    # @return [Array<String>] the keys of this namespace, without those of a namespace whose name begins with its name
    def keys
      all = @server.masters.flat_map { |master| master.ask("--scan", database: @database) }
      all.grep(/\A\{om:#{Regexp.escape(@namespace)}(\}:members|:\d+\}:(?!members))/)
    end

    # The spec that started a server stops it, which deletes everything.
    def remove
      delete if @server.common?
    end

    # Deletes the data of the namespace.
    def delete
      keys.each_slice(1_000) { |some| @server.cli("UNLINK", *some, database: @database) }
    end

    private

    # @return [Integer, nil] the partition of a key with one of these names
    def number_of(key, *names)
      number, name = key.match(/\A\{om:#{Regexp.escape(@namespace)}:(\d+)\}:(\w+)\z/)&.captures
      Integer(number) if names.include?(name)
    end

    def ids_in(key)
      @server.ask("--no-raw", "ZRANGE", key, 0, -1, database: @database).map { |line| line.b[/".*"/n].undump }
    end

    def belongs?(id, key) = self.class.crc16(id) % PARTITIONS == number_of(key, "users")
  end
end
