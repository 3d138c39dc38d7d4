# frozen_string_literal: true

require_relative "redis_server"

module Stores
  # Our own Redis Cluster: three masters, each with one replica.
  class RedisCluster
    include Wait

    SLOTS = 16_384

    # @param node_timeout [Integer] after how many milliseconds without an answer a node counts as failed. On a busy
    #   machine a healthy node may be silent for a second
    # @param tls [Symbol, nil] whether the servers speak TLS, and with which kind of {Certificates}
    # @param settings [Hash{Symbol => Object}] of each server, see {RedisServer}
    def initialize(node_timeout: 10_000, tls: nil, **settings)
      settings.update(tls: share_certificates(tls), tls_cluster: "yes", tls_replication: "yes") if tls
      @servers = Array.new(6) do
        # A replica takes over no matter how old its data is.
        RedisServer.new(cluster_enabled: "yes", cluster_node_timeout: node_timeout, cluster_replica_validity_factor: 0,
                        repl_diskless_sync_delay: 0, **settings)
      end
    end

    # @return [self] as soon as the cluster can be used
    def start
      @servers.each(&:launch)
      @servers.each(&:wait_until_ready)
      assign_slots
      introduce
      masters.zip(@servers.last(3)) { |master, replica| replica.cli("CLUSTER", "REPLICATE", id_of(master)) }
      wait_until(limit: RedisServer::TIMEOUT) do
        all_say?("INFO", "cluster_state:ok") && all_say?("NODES", /\bslave\b/, 3)
      end
      wait_for_replicas
      self
    end

    # @return [Array<String>] the URLs for a manager
    def url(**) = @servers.first(3).map(&:url)

    # @return see {RedisServer#cli}; asks whichever server has the keys
    def cli(*words, **) = running.first.cli(*words)

    # @return see {RedisServer#ask}
    def ask(*words, **) = running.first.ask(*words)

    def cluster? = true
    def common? = false

    # @return [Array<RedisServer>] the current masters
    def masters = running.select { |server| master?(server) }.first(3)

    def master?(server) = server.ask("ROLE").first == "master"

    # @return [RedisServer] a replica of a master
    def replica_of(master) = running.find { |server| server.ask("ROLE").values_at(0, 2) == ["slave", master.port.to_s] }

    # @return [RedisServer] the master of a slot
    def server_of(slot)
      line = ask("CLUSTER", "NODES").find { |node| node.split.drop(8).any? { |range| cover?(range, slot) } }
      @servers.find { |server| line.include?(":#{server.port}@") }
    end

    # Moves a slot with all its keys to another master, as an operator would.
    def move(slot)
      from = server_of(slot)
      to, other = masters - [from]
      to.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(from))
      from.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(to))
      keys = from.ask("CLUSTER", "GETKEYSINSLOT", slot, 1_000)
      from.cli("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", *keys) unless keys.empty?
      [to, from, other].each { |server| server.cli("CLUSTER", "SETSLOT", slot, "NODE", id_of(to)) }
    end

    # Waits until every replica is in sync with its master.
    def wait_for_replicas
      wait_until(limit: RedisServer::TIMEOUT) do
        (running - masters).all? { |replica| replica.cli("INFO", "replication").include?("master_link_status:up") }
      end
    end

    def stop
      @servers.each(&:stop)
    ensure
      FileUtils.remove_entry(@folder) if @folder
    end

    # @return see {RedisServer#ca_file}
    def ca_file = @servers.first.ca_file

    private

    # The servers are connected with each other by TLS too, so all have the same certificate.
    def share_certificates(kind) = Certificates.new(@folder = Dir.mktmpdir("online_manager_cluster"), kind)

    def running = @servers.select(&:running?)

    def cover?(range, slot)
      first, last = range.split("-").map(&:to_i)
      (first..(last || first)).cover?(slot)
    end

    def assign_slots
      3.times do |index|
        @servers[index].cli("CLUSTER", "ADDSLOTSRANGE", index * SLOTS / 3, ((index + 1) * SLOTS / 3) - 1)
      end
      # Otherwise two nodes may start with the same configuration epoch, and resolve that only later.
      @servers.each_with_index { |server, index| server.cli("CLUSTER", "SET-CONFIG-EPOCH", index + 1) }
    end

    def introduce
      first, *others = @servers
      others.each { |server| server.cli("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port) }
      wait_until(limit: RedisServer::TIMEOUT) { all_say?("INFO", "cluster_known_nodes:6") }
    end

    def all_say?(question, text, times = 1)
      @servers.all? { |server| server.cli("CLUSTER", question).scan(text).size == times }
    end

    def id_of(server) = server.cli("CLUSTER", "MYID")
  end
end
