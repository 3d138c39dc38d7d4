# frozen_string_literal: true

# A config that records the beginning and the end of every callback, and verifies them: per user, `online` and `offline`
# must alternate and never overlap.
class Journal
  # The user's state after a callback that ended in this way.
  AFTER = {
    %i[online returned] => :online,
    %i[online raised] => :offline,
    %i[offline returned] => :offline,
    %i[offline raised] => :offline
  }.freeze
  private_constant :AFTER

  # @return [Proc] the block that `setup` was given
  attr_reader :heartbeat

  # @param timeout [Numeric] seconds
  # @yield the body of the callbacks
  # @yieldparam method [Symbol] :online or :offline
  # @yieldparam user_id [Object]
  def initialize(timeout:, &callback)
    @timeout = timeout
    @callback = callback
    @log = []
  end

  attr_reader :timeout

  def setup(&heartbeat) = @heartbeat = heartbeat
  def online(user_id) = note(:online, user_id)
  def offline(user_id) = note(:offline, user_id)

  # @return [Integer] the number of callbacks
  def size = @log.size / 2

  # Verifies the whole journal.
  #
  # @return [Hash{Object => Symbol}] for each user the last callback that returned, or :offline
  # @raise [RSpec::Expectations::ExpectationNotMetError] at the first wrong callback
  def verify
    states = Hash.new(:offline)
    inside = {}
    @log.dup.each_with_index do |(method, user_id, mark), index|
      if mark == :began
        good = !inside.key?(user_id) && states[user_id] != method
        inside[user_id] = method
      else
        good = inside.delete(user_id) == method
        states[user_id] = AFTER.fetch([method, mark])
      end
      good or RSpec::Expectations.fail_with("#{method} should not have #{mark}:\n#{story(user_id, index)}")
    end
    RSpec::Expectations.fail_with("still inside #{inside}") unless inside.empty?
    states
  end

  private

  # Array#<< is atomic, so the log is in the order of the events.
  def note(method, user_id)
    @log << [method, user_id, :began]
    @callback.call(method, user_id)
    mark = :returned
  ensure
    @log << [method, user_id, mark || :raised]
  end

  def story(user_id, index)
    @log.first(index + 1).select { |_, id, _| id == user_id }.last(8).map { |entry| entry.join(" ") }.join("\n")
  end
end
