# frozen_string_literal: true

# Waits for other threads and processes. A spec never just sleeps for a fixed time (RuboCop enforces it).
module Wait
  POLL_INTERVAL = 0.005

  def self.monotonic = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  # Waits until the block returns true, and returns that value.
  #
  #   wait_until { manager.online?(7) }
  #
  # @param limit [Numeric] seconds
  # @raise [RSpec::Expectations::ExpectationNotMetError] if it does not within the limit
  def wait_until(limit: 10, &condition)
    deadline = Wait.monotonic + limit
    until (result = condition.call)
      if Wait.monotonic > deadline
        RSpec::Expectations.fail_with("waited #{limit} s in vain at #{condition.source_location.join(":")}")
      end
      sleep POLL_INTERVAL # rubocop:disable OnlineManager/BareSleep
    end
    result
  end

  # Waits until the expectations in the block hold.
  #
  #   eventually { expect(calls).to eq [[:online, 7]] }
  #
  # @param limit [Numeric] seconds
  # @raise [RSpec::Expectations::ExpectationNotMetError] the last one, if they do not hold within the limit
  def eventually(limit: 10)
    deadline = Wait.monotonic + limit
    begin
      yield
    rescue RSpec::Expectations::ExpectationNotMetError
      raise if Wait.monotonic > deadline

      sleep POLL_INTERVAL # rubocop:disable OnlineManager/BareSleep
      retry
    end
  end

  # For what must not happen: checks the expectations in the block again and again for some seconds.
  #
  #   throughout(0.3) { expect(calls).to be_empty }
  #
  # @param seconds [Numeric]
  # @raise [RSpec::Expectations::ExpectationNotMetError] as soon as one fails
  def throughout(seconds)
    deadline = Wait.monotonic + seconds
    loop do
      yield
      break if Wait.monotonic > deadline

      sleep POLL_INTERVAL # rubocop:disable OnlineManager/BareSleep
    end
  end
end

RSpec.configure { |config| config.include Wait }
