# frozen_string_literal: true

require_relative "../contender"
require_relative "../silent_config"

module Bench
  # The gem.
  class Ours < Contender
    # @param timeout [Numeric] seconds
    def initialize(timeout = 3_600)
      super()
      @manager = OnlineManager.new(SilentConfig.new(timeout), reactor: :thread)
      @heartbeat = @manager.setup
    end

    attr_reader :manager

    def prepare(ids)
      ids.each_slice(1_000) { |slice| @manager.seen_all(slice) }
    end

    def send_heartbeats(ids, passes = 1) = Heartbeats.through(ids, passes, &@heartbeat)
  end

  # The cost of a yield alone.
  class EmptyBlock < Contender
    def prepare(ids); end

    def send_heartbeats(ids, passes = 1)
      Heartbeats.through(ids, passes) { |_id| } # rubocop:disable Lint/EmptyBlock -- that is the point
    end
  end

  # The cost of a Hash alone: nothing would set anybody offline.
  class BareHash < Contender
    def initialize
      super
      @users = {}
    end

    def prepare(ids) = send_heartbeats(ids)

    def send_heartbeats(ids, passes = 1)
      users = @users
      Heartbeats.through(ids, passes) { |id| users[id] = 1 }
    end
  end

  # A Hash of timestamps for any number of threads, which another thread would sweep.
  class LockedHash < Contender
    def initialize
      super
      @users = {}
      @mutex = Mutex.new
    end

    def prepare(ids) = send_heartbeats(ids)

    def send_heartbeats(ids, passes = 1)
      Heartbeats.through(ids, passes) do |id|
        @mutex.synchronize { @users[id] = Process.clock_gettime(Process::CLOCK_MONOTONIC) }
      end
    end
  end
end
