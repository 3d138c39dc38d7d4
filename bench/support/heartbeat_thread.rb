# frozen_string_literal: true

module Bench
  # A thread that sends heartbeats of many users with `seen_all`, evenly spread over time.
  class HeartbeatThread
    # The number of users in one `seen_all`.
    BATCH_SIZE = 1_000

    # @param manager [OnlineManager]
    # @param user_ids [Enumerable]
    # @param seconds [Numeric] the interval between two heartbeats of one user
    def initialize(manager, user_ids, seconds)
      @manager = manager
      @slices = user_ids.each_slice(BATCH_SIZE).to_a
      @pause = seconds * 1e9 / @slices.size
      @thread = Thread.new { send_heartbeats }
    end

    def stop = @thread.kill

    private

    def send_heartbeats
      start = Bench.now
      @slices.cycle.each_with_index do |slice, number|
        ahead = start + (number * @pause) - Bench.now
        sleep ahead / 1e9 if ahead.positive?
        @manager.seen_all(slice)
      end
    end
  end
end
