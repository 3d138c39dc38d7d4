# frozen_string_literal: true

module Bench
  # One way to track who sent a heartbeat when. Its heartbeats are of users that it knows.
  #
  # Subclasses have `prepare(ids)`, after which the users are known, and `send_heartbeats(ids, passes)`, which sends one
  # heartbeat per id and pass on the current thread. Both run in a child process.
  class Contender
    # Called when a case is over: servers have a table to empty.
    def close; end

    # @param ids [Array]
    # @param passes [Integer] how often to go through the ids
    # @return [Integer] nanoseconds
    def time(ids, passes) = Bench.time { send_heartbeats(ids, passes) }

    # @return [Integer] nanoseconds until the last thread has sent its share of the heartbeats
    def time_threads(ids, passes, threads)
      Heartbeats.time_threads(ids, threads) { |part| send_heartbeats(part, passes) }
    end
  end
end
