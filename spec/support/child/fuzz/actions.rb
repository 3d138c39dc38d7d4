# frozen_string_literal: true

module Fuzz
  # What a worker does with ids and arguments. All Procs run with the worker as `self`.
  module Actions
    # All ways to send one heartbeat.
    HEARTBEATS = [
      ->(manager, _, id) { manager.seen(id) }, ->(manager, _, id) { manager.freeze.seen(id) },
      ->(manager, _, id) { manager.method(:seen).to_proc.call(id) },
      ->(manager, _, id) { manager.seen(id, timeout: Values::GOOD_SECONDS.sample) },
      ->(manager, _, id) { manager.seen_all([id]) },
      ->(_, heartbeat, id) { heartbeat.call(id) }, ->(_, heartbeat, id) { heartbeat[id] },
      ->(_, heartbeat, id) { heartbeat === id }, # rubocop:disable Style/CaseEquality
      ->(_, heartbeat, id) { heartbeat.yield(id) }, ->(_, heartbeat, id) { [id].map(&heartbeat).first },
      ->(_, heartbeat, id) { Object.new.instance_exec(id, &heartbeat) },
      ->(_, heartbeat, id) { heartbeat.curry(1)[id] }, ->(_, heartbeat, id) { heartbeat.to_proc.dup.clone.call(id) },
      ->(_, heartbeat, id) { (heartbeat >> ->(answer) { answer }).call(id) },
      ->(_, heartbeat, id) { (heartbeat << ->(other) { other }).call(id) },
      ->(_, heartbeat, id) { heartbeat.method(:call).unbind.bind_call(heartbeat, id) },
      ->(_, heartbeat, id) { Object.new.tap { |object| object.define_singleton_method(:call, &heartbeat) }.call(id) },
      ->(_, heartbeat, id) { Fiber.new(&heartbeat).resume(id) }
    ].freeze

    # Calls with ids and arguments of every kind, by public method.
    ALL = {
      seen: [
        ->(id) { @manager.seen(id) }, ->(id) { @manager.seen(id, timeout: seconds) },
        ->(id) { @manager.seen(id, session: any_id) },
        ->(id) { @manager.seen(id, session: any_id, timeout: seconds) },
        ->(id) { HEARTBEATS.sample(random: @random).call(@manager, @heartbeat, id) },
        ->(id) { @heartbeat.call(*[id] * @random.rand(4)) }, ->(id) { @heartbeat.call(id, timeout: 5) },
        ->(id) { @heartbeat.call(id) { nil } }, ->(_) { @heartbeat.curry(@random.rand(-3..3)).call },
        ->(_) { [@heartbeat.arity, @heartbeat.parameters, @heartbeat.hash, @heartbeat.inspect, @heartbeat.curry] },
        ->(_) { @heartbeat.binding }, ->(_) { Marshal.dump(@heartbeat) }, ->(id) { @heartbeat == id }
      ],
      seen_all: [->(_) { @manager.seen_all(ids) }, ->(_) { @manager.seen_all(ids, timeout: seconds) },
                 ->(id) { @manager.seen_all([id, :x, Values.shared(@random), id], timeout: 0.01) }],
      leave: [->(id) { @manager.leave(id) }, ->(id) { @manager.leave(id, after: seconds) },
              ->(id) { @manager.leave(id, session: any_id) },
              ->(id) { @manager.leave(id, session: any_id, after: seconds) }],
      session_ids: [->(id) { @manager.session_ids(id) }],
      online?: [->(id) { @manager.online?(id) }],
      last_seen: [->(id) { @manager.last_seen(id) }],
      online_users: [->(_) { @manager.online_users.sample(3, random: @random) }],
      start: [->(_) { @manager.start }], size: [->(_) { @manager.size }], stats: [->(_) { @manager.stats }],
      inspect: [->(_) { @manager.inspect }], namespace: [->(_) { @manager.namespace }],
      timeout: [->(_) { @manager.timeout }],
      stop: [->(_) { @manager.stop(timeout: Values::BAD_SECONDS.sample(random: @random)) && raise("stopped") },
             ->(id) { @manager.stop(id) && raise("stopped") }],
      setup: [->(_) { @manager.setup && raise("set up") }, ->(_) { rarely { Lifecycle.setup(@random) } }],
      run: [->(_) { @manager.run && raise("run") }, ->(_) { rarely { Lifecycle.run(@random) } }],
      new: [->(_) { Lifecycle.new(@random) }],
      current: [->(id) { OnlineManager.current(id) }, ->(_) { OnlineManager.current(%w[stress short].sample) }]
    }.freeze
    # How many of a hundred calls go to each method.
    WEIGHTS = { seen: 35, seen_all: 10, leave: 25, online?: 10, last_seen: 5, online_users: 1 }
              .then { |weights| ALL.keys.flat_map { |method| [method] * weights.fetch(method, 2) } }.freeze

    # Fails if a public method is missing in {ALL}.
    def self.check_coverage
      methods = OnlineManager.public_instance_methods(false) + OnlineManager.singleton_methods(false)
      missing = methods - ALL.keys - %i[lifecycle invalidate_config]
      Judge.demand(missing.empty?, "not fuzzed: #{missing.inspect}")
    end
  end
end
