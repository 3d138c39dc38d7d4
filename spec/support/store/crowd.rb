# frozen_string_literal: true

require "set"

module Stores
  # Users who come, beat again and again, each time at a process chosen at random, and fall silent. It keeps count of
  # their sessions: that is the script for the judge.
  class Crowd
    # So often per timeout does each of them beat.
    HEARTBEATS_PER_TIMEOUT = 10

    # @return [Hash{Object => Integer}] how many sessions each user was given
    attr_reader :sessions

    # @param application [Application]
    def initialize(application)
      @application = application
      @present = Set.new
      @sessions = Hash.new(0)
      @mutex = Mutex.new
      @changed = ConditionVariable.new
      @is_running = true
      @random = Random.new(RSpec.configuration.seed)
      @thread = Thread.new { run }
      @thread.abort_on_exception = true
    end

    # These beat from now on.
    def come(users)
      @mutex.synchronize { users.each { |user| begin_session(user) } }
    end

    # These do not beat any longer.
    def fall_silent(users)
      @mutex.synchronize { @present.subtract(users) }
    end

    # From now on, whoever is online may fall silent at any turn, and comes back when the log says that it is offline.
    #
    # @param users [Array] who comes
    # @param restless [Float] how many of those who are online fall silent at a turn
    # @param most [Integer] how many sessions each of them has
    # @param arrivals [Integer] how many come at a turn
    def churn(users, silence_rate: 0.05, max_sessions: 1, arrivals: users.size)
      @mutex.synchronize { @churn = { users: users.dup, silence_rate:, max_sessions:, arrivals: } }
    end

    # Waits until everybody has had as many sessions as there are to be.
    def churn_out(limit: 60)
      @application.wait_until(limit:) do
        @mutex.synchronize { @churn[:users].all? { |user| @sessions[user] == @churn[:max_sessions] } }
      end
    end

    # No more of that.
    def stop_churn
      @mutex.synchronize { @churn = nil }
      @application.expect_all(present, :online, limit: 60)
    end

    # @return [Array] who beats
    def present = @mutex.synchronize { @present.to_a }

    # Everybody falls silent, and is set offline.
    #
    # @return [Hash] see {#sessions}
    def finish
      stop_churn
      fall_silent(present)
      @application.expect_all(@sessions.keys, :offline, limit: 60)
      stop
      @sessions
    end

    # Nobody beats any longer.
    def stop
      @mutex.synchronize do
        @is_running = false
        @changed.broadcast
      end
      @thread.join
    end

    private

    def run
      @mutex.synchronize do
        while @is_running
          move if @churn
          send_heartbeats
          @changed.wait(@mutex, @application.timeout.fdiv(HEARTBEATS_PER_TIMEOUT))
        end
      end
    end

    def send_heartbeats
      workers = @application.serving
      return if workers.empty?

      @present.group_by { workers.sample(random: @random) }.each { |worker, users| worker.send_heartbeats(users) }
    end

    # Only whom the log has online falls silent, and only whom it has offline comes back: so each session shows.
    def move
      states = @application.log.states
      silent = @present.select { |user| states[Log.token(user)] == :online && @random.rand < @churn[:silence_rate] }
      coming = @churn[:users].reject do |user|
        @present.include?(user) || @sessions[user] >= @churn[:max_sessions] ||
          (@sessions[user].positive? && states[Log.token(user)] != :offline)
      end
      @present.subtract(silent)
      coming.first(@churn[:arrivals]).each { |user| begin_session(user) }
    end

    def begin_session(user)
      @sessions[user] += 1 if @present.add?(user)
    end
  end
end
