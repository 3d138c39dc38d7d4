# frozen_string_literal: true

require "pg"
require_relative "../server"
require_relative "connected"

module Bench
  # Our own PostgreSQL server with its default settings.
  class PostgresServer < Server
    def initialize
      # PostgreSQL refuses to run as root.
      super(user: Process.uid.zero? ? Etc.getpwnam("postgres") : Etc.getpwuid)
    end

    def start
      system(*wrapper, program("initdb"), "--pgdata", data, "--username", "bench", "--auth", "trust",
             "--encoding", "UTF8", "--locale", "C", chdir: folder, %i[out err] => log) ||
        raise("initdb failed:\n#{File.read(log)}")
      super
    end

    def connect = PG.connect(host: folder, user: "bench", dbname: "postgres")

    def version = `#{program("postgres")} --version`[/[\d.]+/]

    private

    def command
      [program("postgres"), "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories=#{folder}"]
    end

    def data = File.join(folder, "data")

    # On SIGTERM it would wait for its clients.
    def stop_signal = "INT"

    def program(name) = executable(name, Dir["/usr/lib/postgresql/*/bin"].reverse)

    def ready?
      connect.close.nil?
    rescue PG::Error
      false
    end
  end

  # Runs `UPDATE users SET last_online = now() WHERE id = ID` for each heartbeat.
  class PostgresContender < Connected
    UPDATE = "UPDATE users SET last_online = now() WHERE id = $1"
    private_constant :UPDATE

    # @param server [PostgresServer]
    # @param kind [String] the kind of the ids
    def initialize(server, kind)
      super() { server.connect }
      @type = { "integers" => "bigint", "UUIDs" => "uuid" }.fetch(kind, "text")
    end

    def prepare(ids)
      with_connection do |database|
        database.exec("SET client_min_messages = warning; DROP TABLE IF EXISTS users")
        database.exec("CREATE TABLE users (id #{@type}, last_online timestamptz)")
        database.copy_data("COPY users (id) FROM STDIN") do
          ids.each_slice(1_000) { |slice| database.put_copy_data("#{slice.map { |id| key(id) }.join("\n")}\n") }
        end
        database.exec("ALTER TABLE users ADD PRIMARY KEY (id)")
        database.exec("VACUUM ANALYZE users")
      end
      THREADS.times { with_connection { |database| database.prepare("heartbeat", UPDATE) } }
    end

    def send_heartbeats(ids, passes = 1)
      with_connection do |database|
        Heartbeats.through(ids, passes) { |id| database.exec_prepared("heartbeat", [key(id)]) }
      end
    end

    # @return [Integer] bytes on disk of the table and its index
    def size
      with_connection { |database| database.exec("SELECT pg_total_relation_size('users')").getvalue(0, 0).to_i }
    end

    private

    def key(id) = id.is_a?(Array) ? id.join(":") : id
  end
end
