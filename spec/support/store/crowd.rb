# frozen_string_literal: true

require "set"

module Stores
  # Users who come online, send heartbeats at random processes, and fall silent. It counts their sessions, which are the
  # script for the judge.
  class Crowd
    # How often each user sends a heartbeat within a timeout.
    HEARTBEATS_PER_TIMEOUT = 10

    # @return [Hash{Object => Integer}] the number of sessions that each user was given
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

    # Starts heartbeats of these users.
    def come(users)
      @mutex.synchronize { users.each { |user| begin_session(user) } }
    end

    # Stops the heartbeats of these users.
    def fall_silent(users)
      @mutex.synchronize { @present.subtract(users) }
    end

    # From now on, users fall silent at random while they are online, and come back after the log has their offline.
    #
    # @param users [Array] the users
    # @param silence_rate [Float] the fraction of the online users who fall silent at each step
    # @param max_sessions [Integer] the number of sessions of each user
    # @param arrivals [Integer] how many users come at each step
    def churn(users, silence_rate: 0.05, max_sessions: 1, arrivals: users.size)
      @mutex.synchronize { @churn = { users: users.dup, silence_rate:, max_sessions:, arrivals: } }
    end

    # Waits until every user has had all sessions.
    def churn_out(limit: 60)
      @application.wait_until(limit:) do
        @mutex.synchronize { @churn[:users].all? { |user| @sessions[user] == @churn[:max_sessions] } }
      end
    end

    # Ends the random changes.
    def stop_churn
      @mutex.synchronize { @churn = nil }
      @application.expect_all(present, :online, limit: 60)
    end

    # @return [Array] the users who send heartbeats
    def present = @mutex.synchronize { @present.to_a }

    # Lets everybody fall silent, and waits until everybody is offline.
    #
    # @return [Hash] see {#sessions}
    def finish
      stop_churn
      fall_silent(present)
      @application.expect_all(@sessions.keys, :offline, limit: 60)
      stop
      @sessions
    end

    # Ends the thread that sends heartbeats.
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

    # Only users who are online according to the log fall silent, and only users who are offline come back, so that no
    # session is skipped.
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
