# frozen_string_literal: true

class OnlineManager
  # This manager's part in a shared store. The native methods never wait for the store; these do, where an answer has to
  # come from there.
  #
  # @private
  class Shared
    # Seconds that a question waits for the store.
    ANSWER_TIMEOUT = 5
    # Seconds between two looks whether the answer has come.
    POLL_INTERVAL = 0.001

    # Opens the store once and closes it again.
    #
    # @return [Array<String>] what an operator should know: what keeps it from being reached now, for one
    # @raise [StoreError] if it is misconfigured
    def check
      begin_check
      wait(Float::INFINITY) { poll_check }
    ensure
      end_check
    end

    def online?(user_id) = wait { poll_online?(user_id) }
    def online_users = wait { poll_online_users }
    def last_seen(user_id) = wait { poll_last_seen(user_id) }
    def leave(user_id, nanoseconds) = wait { poll_leave(user_id, nanoseconds) }
    def size = counts[:online]

    # @return [Hash{Symbol => Integer}] how many users are `:online`, how many events are `:waiting`, and how many are
    #   `:dead_letters`
    def counts = wait { poll_counts }

    private

    # In small sleeps: so it can be interrupted, lets other fibers run, and works in a trap handler.
    def wait(timeout = ANSWER_TIMEOUT)
      stop_at = Latch.now + timeout
      while (answer = yield) == :wait
        raise StoreError, "the store has not answered within #{timeout} s" if Latch.now > stop_at

        sleep POLL_INTERVAL
      end
      answer
    end
  end
end
