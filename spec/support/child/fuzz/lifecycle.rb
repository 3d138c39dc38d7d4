# frozen_string_literal: true

module Fuzz
  # Managers that live for one case: created, set up and run with arbitrary arguments.
  module Lifecycle
    # A config with the given timeout and users.
    class ShortLived
      def initialize(timeout, ids)
        @timeout = timeout
        @ids = ids
      end

      attr_reader :timeout

      def setup(&heartbeat) = @ids.each(&heartbeat)
      def online(_) = nil
      def offline(_) = nil
    end

    # Incomplete configs, and objects that are no config.
    INCOMPLETE_CONFIGS = [
      nil, 7, "String", "No such", "NoSuch", :OnlineManager, [], Class, -> {}, -> { Judge.boom }, BasicObject.new,
      Class.new(ShortLived) { undef_method :offline }.new(5, [])
    ].freeze

    # Unknown options, and options with wrong values.
    WRONG_OPTIONS = [{ reactor: "thread" }, { reactor: 7 }, { store: nil }, { store: "sqlite:" },
                     { store: "redis://a:port" }, { store: [] }, { store: ["redis://a", 7] }, { namespace: 7 },
                     { namespace: BasicObject }, { timeout: 5 }, { "reactor" => :thread }, { store: BasicObject },
                     { namespace: Hostile.new(to_s: -> { Judge.boom }, inspect: -> { Judge.boom }) }].freeze

    class << self
      def new(random)
        make(random).inspect
      end

      # Sets a manager up, if the arguments allow it, and stops it.
      def setup(random)
        manager = make(random)
        manager.setup
        [manager.seen(Values.hostile(random)), manager.inspect, manager.stats, manager.freeze.online_users]
      ensure
        stop(manager, random) if manager
      end

      # Calls `run` on the current thread. `setup` ends it, in one of several ways.
      def run(random)
        ids = Array.new(random.rand(3)) { Values.hostile(random) }
        config = ShortLived.new(600, ids)
        manager = OnlineManager.new(config, reactor: :thread, namespace: "short")
        config.define_singleton_method(:setup) do |&heartbeat|
          ids.each(&heartbeat)
        ensure
          manager.stop
        end
        Judge.demand(manager.run.nil?, "what run answers")
        Judge.demand(manager.stats[:state] == :stopped, "what is left of run")
      end

      # Calls class methods.
      def of_class(method, random)
        case random.rand(3)
        when 0 then OnlineManager.public_send(method, INCOMPLETE_CONFIGS.sample(random:),
                                              **WRONG_OPTIONS.sample(random:))
        when 1 then OnlineManager.public_send(method, *Array.new(random.rand(4)) { Values.hostile(random) }, bogus: 1)
        else OnlineManager.public_send(method, short_lived(random), **WRONG_OPTIONS.sample(random:))
        end
      end

      private

      def make(random)
        config = random.rand(4).zero? ? INCOMPLETE_CONFIGS.sample(random:) : short_lived(random)
        right = { namespace: "short", reactor: reactor(random) }
        options = random.rand(4).zero? ? WRONG_OPTIONS.sample(random:) : right
        OnlineManager.new(config, **options)
      end

      def short_lived(random)
        timeout = random.rand(3).zero? ? Values.seconds(random) : 600
        ShortLived.new(timeout, Array.new(random.rand(3)) { Values.hostile(random) })
      end

      # A reactor that needs nothing but what the run has.
      def reactor(random) = [nil, :thread, :thread, :fiber].sample(random:)

      def stop(manager, random)
        manager.stop(timeout: Values.seconds(random))
      rescue ArgumentError, TypeError, NoMethodError, Raised => e
        Judge.exception(e)
      ensure
        manager.stop
        Judge.demand(manager.size.zero?, "online after the stop: #{manager.size}") unless manager.stats[:state] == :new
      end
    end
  end
end
