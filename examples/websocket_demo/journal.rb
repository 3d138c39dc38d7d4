# frozen_string_literal: true

module WebSocketDemo
  # Records what the server saw, in order: heartbeats, transitions and the moment of the shutdown. Times are seconds of
  # the monotonic clock, since a step of the wall clock would look like an early transition.
  class Journal
    Transition = Struct.new(:user, :state, :at)

    attr_reader :transitions, :shutdown_at

    def initialize
      @heartbeats = Hash.new { |times, user| times[user] = [] }
      @transitions = []
    end

    def heartbeat(user, at: now)
      @heartbeats[user] << at
    end

    # @param state [:online, :offline]
    def transition(user, state, at: now)
      Transition.new(user, state, at).tap { |transition| @transitions << transition }
    end

    def shutdown(at: now)
      @shutdown_at = at
    end

    # @return [Array<Float>] the times of the user's heartbeats
    def heartbeats(user) = @heartbeats.fetch(user, [])

    # @return [Integer] the number of heartbeats of all users
    def heartbeat_count = @heartbeats.each_value.sum(&:size)

    # @return [Float, nil] the time of the user's last heartbeat up to the given time
    def last_heartbeat(user, before: now) = heartbeats(user).reverse_each.find { |at| at <= before }

    # Whether the manager was already stopping when the transition came.
    def by_shutdown?(transition) = !shutdown_at.nil? && transition.at >= shutdown_at

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
