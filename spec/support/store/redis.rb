# frozen_string_literal: true

require "securerandom"
require_relative "redis_cluster"

module Stores
  # A namespace of its own on a Redis server. Looked at with Redis' own command, a program as foreign as can be.
  class Redis
    # Each may be another process' to deliver.
    PARTITIONS = 16
    # What there is of each partition.
    KEYS = %w[users events lease meta overflow tombstones failures dead_letters superseded].freeze

    def self.to_s = "Redis"

    # @param bytes [String] see ext/store/src/id.rs
    # @return [Integer] what Redis calls CRC16, of which 16 or 16,384 are left
    def self.crc16(bytes)
      bytes.each_byte.reduce(0) do |crc, byte|
        8.times.reduce(crc ^ (byte << 8)) { |sum, _| ((sum << 1) ^ (sum[15] * 0x1021)) & 0xFFFF }
      end
    end

    attr_reader :server, :namespace, :database, :url

    # @param server [RedisServer, RedisCluster] the common one, or one that somebody else stops
    # @param url [String, Array<String>] another way to it
    # @param database [Integer]
    # @param namespace [String] what nobody else has
    def initialize(server = RedisServer.common, url: nil, database: 0, namespace: "spec-#{SecureRandom.hex(4)}")
      @server = server
      @database = database
      @namespace = namespace
      @url = url || server.url(database:)
    end

    # @return [Hash{Symbol => Object}] what the manager is given
    def options = { store: @url, namespace: @namespace }

    # @return [String]
    def key(partition, name) = "{om:#{@namespace}:#{partition}}:#{name}"

    # @return [Integer] the partition that such an id is in
    def partition_of(id)
      tag = { Integer => "i", String => "s", Symbol => "S" }.fetch(id.class)
      self.class.crc16("#{tag}#{id}") % PARTITIONS
    end

    # @return [Integer] the slot of a Redis Cluster that a partition is in
    def slot_of(partition) = self.class.crc16("om:#{@namespace}:#{partition}") % RedisCluster::SLOTS

    # Makes sure that all there is has a name that is known, and each user is where it belongs.
    def check
      strange = keys.reject { |key| key == "{om:#{@namespace}}:members" || number_of(key, *KEYS) }
      strange += keys.grep(/:users\z/).reject { |key| ids_in(key).all? { |id| belongs?(id, key) } }
      strange.empty? or RSpec::Expectations.fail_with("these keys are strange: #{strange.join(", ")}")
    end

    # Whether nobody is in the middle of something that would keep the others out. Each step is one of the server's.
    def free? = true

    # @return [Array<String, nil>] for each partition whose it is, if anybody's
    def leases
      keys = Array.new(PARTITIONS) { |number| key(number, :lease) }
      (@server.cluster? ? keys.each_slice(1) : [keys]).flat_map do |some|
        @server.ask("--no-raw", "MGET", *some, database: @database).map { |line| line[/"(.*)"/, 1] }
      end
    end

    # @return [Array<Integer>] how many partitions each process has that has some, in order
    def shares = leases.compact.tally.values.sort

    # Whether all is so many processes' together.
    def shared_by?(count)
      held = leases
      held.none?(&:nil?) && held.uniq.size == count
    end

    # @return [Integer] how many users are online as some server has it
    def count_on(server)
      Array.new(PARTITIONS) { |number| Integer(server.cli("ZCARD", key(number, :users))) }.sum
    end

    # @return [Array<String>] those of this namespace, and not of one whose name begins with its name
    def keys
      all = @server.masters.flat_map { |master| master.ask("--scan", database: @database) }
      all.grep(/\A\{om:#{Regexp.escape(@namespace)}(\}:members|:\d+\}:(?!members))/)
    end

    # Whoever has started a server stops it, and all is gone.
    def remove
      keys.each_slice(1_000) { |some| @server.cli("UNLINK", *some, database: @database) } if @server.common?
    end

    private

    # @return [Integer, nil] of the partition that a key belongs to, if it has one of these names
    def number_of(key, *names)
      number, name = key.match(/\A\{om:#{Regexp.escape(@namespace)}:(\d+)\}:(\w+)\z/)&.captures
      Integer(number) if names.include?(name)
    end

    def ids_in(key)
      @server.ask("--no-raw", "ZRANGE", key, 0, -1, database: @database).map { |line| line.b[/".*"/n].undump }
    end

    def belongs?(id, key) = self.class.crc16(id) % PARTITIONS == number_of(key, "exp")
  end
end
