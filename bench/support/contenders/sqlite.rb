# frozen_string_literal: true

require "fileutils"
require "sqlite3"
require "tmpdir"
require_relative "connected"

module Bench
  # Runs `UPDATE users SET last_online = NOW WHERE id = ID` for each heartbeat, in a file with a write-ahead log that is
  # not synced to disk each time, as Rails sets it up.
  class SqliteContender < Connected
    UPDATE = "UPDATE users SET last_online = ? WHERE id = ?"
    private_constant :UPDATE

    def initialize
      @folder = Dir.mktmpdir("online_manager_bench")
      @path = File.join(@folder, "users.sqlite3")
      super { connect }
    end

    def prepare(ids)
      with_connection do |database|
        database.execute("CREATE TABLE users (id PRIMARY KEY, last_online REAL) WITHOUT ROWID")
        database.transaction do
          database.prepare("INSERT INTO users (id) VALUES (?)") do |insert|
            ids.each { |id| insert.execute(key(id)) }
          end
        end
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
      end
    end

    def send_heartbeats(ids, passes = 1)
      with_connection do |database|
        database.prepare(UPDATE) do |update|
          Heartbeats.through(ids, passes) { |id| update.execute(now, key(id)) }
        end
      end
    end

    # @return [Integer] bytes on disk
    def size = File.size(@path)

    def close = FileUtils.remove_entry(@folder)

    private

    def connect
      database = SQLite3::Database.new(@path)
      database.busy_timeout(10_000)
      database.execute("PRAGMA journal_mode = WAL")
      database.execute("PRAGMA synchronous = NORMAL")
      database
    end

    def key(id) = id.is_a?(Integer) ? id : Array(id).join(":")
  end
end
