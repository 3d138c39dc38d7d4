# frozen_string_literal: true

module WebSocketDemo
  # What the server saw, in order: heartbeats going in, transitions coming out, and the moment of the shutdown. Times
  # are seconds of the monotonic clock, since a step of the wall clock must not look like an early transition.
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

    # @return [Array<Float>] when the user beat
    def heartbeats(user) = @heartbeats.fetch(user, [])

    # @return [Integer] how many heartbeats came in, of all users
    def heartbeat_count = @heartbeats.each_value.sum(&:size)

    # @return [Float, nil] the user's last heartbeat that came no later than the given time
    def last_heartbeat(user, before: now) = heartbeats(user).reverse_each.find { |at| at <= before }

    # Whether the manager was already being stopped when the transition came.
    def by_shutdown?(transition) = !shutdown_at.nil? && transition.at >= shutdown_at

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
