# frozen_string_literal: true

class OnlineManager
  # A manager's member of a shared store, in this process. Its instance methods in Rust never wait for the store: they
  # return `:wait` while a reply is on its way. The methods here wait for that answer.
  #
  # @private
  class NativeMember
    # Seconds that a question waits for the store: long enough for a busy server, short enough for a web request.
    ANSWER_TIMEOUT = 5
    # Seconds that `counts` waits for the store: long enough for a busy server, short enough to show an outage by.
    COUNTS_TIMEOUT = 1
    # Seconds between two checks for the answer.
    POLL_INTERVAL = 0.001
    # The figures of all processes while the store is away.
    UNKNOWN_COUNTS =
      %i[online waiting dead_letters oldest_waiting members partitions_without_owner partitions]
      .to_h { |name| [name, nil] }.freeze

    # Opens the store once and closes it again.
    #
    # @return [Array<String>] warnings for an operator, such as that the store cannot be reached now
    # @raise [StoreError] if the store is misconfigured
    def check
      begin_check
      wait(Float::INFINITY) { check_result }
    ensure
      end_check
    end

    def online?(user_id) = wait { try_online?(user_id) }
    def online_users = wait { try_online_users }
    def last_seen(user_id) = wait { try_last_seen(user_id) }

    # Records the leave, whatever the store says: it may not know yet of a heartbeat in another process.
    #
    # @return [Boolean, nil] whether the user was online; nil if the store does not answer
    def leave(user_id, nanoseconds)
      left_at = now
      was_online = begin
        online?(user_id)
      rescue StoreError
        nil
      end
      record_leave(user_id, left_at, nanoseconds)
      was_online
    end

    def size = wait { try_size }

    # Never raises.
    #
    # @return [Hash{Symbol => Numeric, nil}] the figures of all processes; nil if the store does not answer in time
    def counts
      wait(COUNTS_TIMEOUT) { try_counts }
    rescue Error
      UNKNOWN_COUNTS
    end

    private

    # Calls the block until it returns something else than `:wait`. Sleeps in between, which can be interrupted, lets
    # other fibers run, and works in a trap handler.
    #
    # @param timeout [Numeric] seconds
    # @raise [StoreError] if no answer has come by then
    def wait(timeout = ANSWER_TIMEOUT)
      stop_at = Latch.now + timeout
      while (answer = yield) == :wait
        if Latch.now > stop_at
          raise StoreError, "no answer from the store within #{timeout} s: check that it can be reached"
        end

        sleep POLL_INTERVAL
      end
      answer
    end
  end
end
