# frozen_string_literal: true

module Fuzz
  # The config of a stress run: records the transitions of regular ids, counts those of hostile ids, and misbehaves.
  class Config
    # How deeply callbacks may call the manager in callbacks.
    MAX_DEPTH = 2

    class << self
      # @return [Config] the config of the current run
      attr_accessor :last

      # @return [Boolean] whether the thread is nested in MAX_DEPTH callbacks
      def deep? = depth >= MAX_DEPTH

      def depth = Thread.current.thread_variable_get(:depth) || 0

      # Runs the block one level deeper.
      def deeper
        before = depth
        Thread.current.thread_variable_set(:depth, before + 1)
        yield
      ensure
        Thread.current.thread_variable_set(:depth, before)
      end
    end

    attr_accessor :manager
    attr_reader :heartbeat

    def initialize
      @journal = Journal.new(timeout: 600) { |method, _| misbehave(method) }
      @hostile = [] # +1 and -1
      Config.last = self
    end

    def timeout = 600
    def setup(&heartbeat) = @heartbeat = heartbeat

    def online(id)
      return @journal.online(id) if regular?(id)

      misbehave(:online)
      @hostile << 1
    end

    def offline(id)
      return @journal.offline(id) if regular?(id)

      @hostile << -1
      misbehave(:offline)
    end

    def on_error(error, _) = Judge.exception(error)

    # Makes callbacks return without misbehaving from now on.
    def calm_down = @is_calm = true

    # @param model [Array] the users who are online according to the workers
    # @return [Array<String>] the differences, once there are no more heartbeats and leaves
    def complaints(model)
      regular = online_by_journal
      online, hostile = @manager.online_users.partition { |id| regular?(id) }
      { "not to be online" => online - regular, "to be online" => (regular | model) - online,
        "online twice" => online.tally.select { |_, times| times > 1 }.keys,
        "gone by online? or last_seen" => regular.reject { |id| here?(id) }, **counts(online, hostile) }
        .filter_map { |what, ids| "#{what}: #{ids.inspect}" unless ids.empty? }
    end

    # Checks that everybody is offline, and that `offline` was called for everybody.
    def check_end(manager)
      Judge.demand(manager.stats.values_at(:state, :online, :departing) == [:stopped, 0, 0], manager.stats.inspect)
      Judge.demand(manager.online_users.empty?, "online after the stop: #{manager.size}")
      states = @journal.verify.values.uniq - [:offline]
      Judge.demand(states.empty?, "not offline after the stop")
      Judge.demand(@hostile.sum.zero?, "#{@hostile.sum} of the hostile ids have not been called offline")
      Judge.demand(manager.seen(1) == false, "a heartbeat after the stop")
    end

    private

    def counts(online, hostile)
      { "hostile, and as many came online" => [hostile.size] - [@hostile.sum],
        "size" => [@manager.size] - [online.size + hostile.size] }
    end

    def online_by_journal = @journal.verify.select { |_, state| state == :online }.keys
    def here?(id) = @manager.online?(id) && @manager.last_seen(id).is_a?(Time)

    # Whether the id is a good Hash key. Must not call a method of a hostile id.
    def regular?(id)
      case id
      when String then (id.instance_of?(String) || id.instance_of?(NamedString)) && !id.b.start_with?("hostile")
      when Float then !id.nan?
      when Array then id.first.equal?(:regular)
      when Integer, Symbol, Rational, Complex, nil, true, false then true
      else false
      end
    end

    def misbehave(method)
      return if calm? || Config.deep?

      random = Thread.current.thread_variable_get(:random)
      # On the reactor `online` must return: its user sent a heartbeat in `offline`, and must be online afterwards.
      may_fail = random || method == :offline
      random ||= Random
      case random.rand(40)
      when 0..1 then fail(method, random) if may_fail
      when 2..4 then Thread.pass
      when 5..12 then call_back(random)
      end
    end

    def calm? = @is_calm || Thread.current.thread_variable_get(:calm)

    def fail(method, random)
      method == :online && random.rand(2).zero? ? throw(:fuzz) : Judge.boom
    end

    def call_back(random)
      user = Values.shared(random)
      Config.deeper do
        case random.rand(5)
        when 0 then @manager.seen(user)
        when 1 then @manager.leave(user)
        when 2 then @manager.seen_all([user, 7.7, Values.hostile(random)], timeout: 0.01)
        when 3 then [@manager.stats, @manager.inspect, @manager.online_users, @manager.size]
        when 4 then [@manager.online?(user), @manager.last_seen(user), @heartbeat.call(user)]
        end
      end
    rescue Raised, NoMethodError, TypeError, UncaughtThrowError => e
      Judge.exception(e)
    end
  end
end
