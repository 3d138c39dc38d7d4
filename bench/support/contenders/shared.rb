# frozen_string_literal: true

require "fileutils"
require "tmpdir"
require_relative "../contender"
require_relative "../silent_config"

module Bench
  # The gem with a store that other processes could share.
  class Shared < Contender
    # Counts the callbacks, and records when the last one came.
    class Config < SilentConfig
      attr_reader :calls, :last

      def initialize(timeout)
        super
        @calls = 0
      end

      def online(_user_id) = count
      def offline(_user_id) = count

      private

      def count
        @calls += 1
        @last = Bench.now
      end
    end

    # @param store [String]
    # @param timeout [Numeric] seconds
    def initialize(store, timeout = 3_600, namespace: nil)
      super()
      @config = Config.new(timeout)
      @manager = OnlineManager.new(@config, reactor: :thread, store:, namespace:)
      @native = @manager.instance_variable_get(:@native) # its counters, without a query to the store
      @heartbeat = @manager.setup
    end

    def prepare(ids)
      ids.each_slice(1_000) { |slice| @manager.seen_all(slice) }
      settle(ids.size)
    end

    def send_heartbeats(ids, passes = 1) = Heartbeats.through(ids, passes, &@heartbeat)

    # @return [Integer] nanoseconds until the heartbeats of all ids are in the store
    def flush(ids)
      Bench.time do
        @manager.seen_all(ids)
        sleep 0.001 until @native.status[:unwritten].zero?
      end
    end

    # @return [Float] transitions per second, from the first heartbeat or leave to the last callback
    def transitions(ids)
      start = Bench.now
      calls = @config.calls
      ids.each_slice(1_000) { |slice| @manager.seen_all(slice) }
      settle(calls + ids.size)
      ids.each { |id| @manager.leave(id) }
      settle(calls + (2 * ids.size))
      2 * ids.size * 1e9 / (@config.last - start)
    end

    def close = @manager.stop

    private

    def settle(calls)
      sleep 0.001 until @config.calls >= calls
    end
  end

  # The gem with a SQLite file.
  class SharedFile < Shared
    def initialize(timeout = 3_600)
      @folder = Dir.mktmpdir("online_manager_bench")
      @path = File.join(@folder, "presence.sqlite3")
      super("sqlite:#{@path}", timeout)
    end

    # @return [Integer] bytes on disk after the last connection was closed, which moves the write-ahead log into the
    #   file
    def size
      @manager.stop
      File.size(@path)
    end

    def close
      super
      FileUtils.remove_entry(@folder)
    end
  end
end
