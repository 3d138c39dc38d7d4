# frozen_string_literal: true

module Bench
  # One way to keep track of who has beaten. Its heartbeats are those of users that it knows.
  #
  # Subclasses have `prepare(ids)`, after which it knows them, and `beat(ids, passes)`, a heartbeat for each
  # on the present thread. Both are called in a child process.
  class Contender
    # Called when a case is over: servers have a table to empty.
    def close; end

    # @param ids [Array]
    # @param passes [Integer] how often to go through them
    # @return [Integer] nanoseconds
    def time(ids, passes) = Bench.time { send_heartbeats(ids, passes) }

    # @return [Integer] nanoseconds until the last of the threads has beaten for its part of the ids
    def time_threads(ids, passes, threads)
      Heartbeats.time_threads(ids, threads) { |part| send_heartbeats(part, passes) }
    end
  end
end
