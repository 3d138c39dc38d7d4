# frozen_string_literal: true

module Bench
  # A thread on which many users beat by `seen_all`, evenly: not all of them in the same moment.
  class HeartbeatThread
    # How many beat together.
    BATCH_SIZE = 1_000

    # @param manager [OnlineManager]
    # @param user_ids [Enumerable]
    # @param seconds [Numeric] until everybody has beaten, and it starts again
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
