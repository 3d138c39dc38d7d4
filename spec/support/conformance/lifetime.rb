# frozen_string_literal: true

# Several managers, how they are found, and how long they live.
RSpec.shared_examples "lifetime" do
  it "lets several managers share one reactor" do
    configs = Array.new(3) { |n| recording(timeout: n.zero? ? 0.05 : 60) }
    managers = configs.map { |config| start(config) }
    managers.each { |manager| manager.seen(7) }

    eventually { expect(configs.map { |config| config.calls_of(7) }).to eq [%i[online offline], [:online], [:online]] }
    managers[1].stop
    expect(configs.map { |config| config.calls_of(7) }).to eq [%i[online offline], %i[online offline], [:online]]
    expect([managers[1].seen(7), managers[2].seen(7), managers[2].online?(7)]).to eq [false, true, true]
    expect(managers[0].seen(8)).to be true
  end

  it "lets a callback of one manager use another" do
    other = recording
    others = start(other)
    config = recording(online: ->(id) { others.seen(id) }, offline: ->(id) { others.leave(id) })
    manager = start(config)
    manager.seen(7)
    expect(other.calls).to eq [[:online, 7]]
    manager.leave(7)

    eventually { expect(other.calls).to eq [[:online, 7], [:offline, 7]] }
  end

  it "lets a callback of one manager stop another and wait for it" do
    other = recording
    others = start(other)
    others.seen(8)
    answer = nil
    manager = start(recording(online: ->(_) { answer = others.stop }))
    manager.seen(7)

    expect([answer, other.calls]).to eq [0, [[:online, 8], [:offline, 8]]]
    expect(manager.online?(7)).to be true
  end

  describe ".current" do
    it "is the running manager that was set up last, and nil when all are stopped" do
      expect(OnlineManager.current).to be_nil
      first = start
      expect(OnlineManager.current).to be first
      second = start
      expect(OnlineManager.current).to be second
      second.stop
      expect(OnlineManager.current).to be first
      first.stop
      expect(OnlineManager.current).to be_nil
    end

    it "keeps the namespaces apart" do
      managers = [nil, "chat", :lobby].map { |namespace| start(namespace:) }

      expect([nil, "chat", "lobby", :lobby, "none"].map { |namespace| OnlineManager.current(namespace) })
        .to eq [*managers, managers.last, nil]
      expect(managers.map(&:namespace)).to eq [nil, "chat", "lobby"]
      managers.each(&:stop)
      expect(OnlineManager.current("chat")).to be_nil
    end

    it "is set during run and not after it" do
      manager = start(way: :run)
      expect(OnlineManager.current).to be manager
      manager.stop
      host.runner.value
      expect(OnlineManager.current).to be_nil
    end
  end

  describe "the config" do
    it "may be the name of a class, or of an object" do
      stub_const("Presence", Module.new)
      stub_const("Presence::Config", Class.new(Conformance::Config) { def setup(&) = [super, self].last })
      stub_const("Presence::CONFIG", recording)
      config = host.call { OnlineManager.setup("Presence::Config", reactor:) }
      OnlineManager.current.seen(7)
      expect(config.calls).to eq [[:online, 7]]
      OnlineManager.current.stop

      start("Presence::CONFIG").seen(7)
      expect(Presence::CONFIG.calls).to eq [[:online, 7]]
    end

    it "may be a lambda, which is called once when it is first needed" do
      config = recording
      called = 0
      manager = start(-> { (called += 1) && config })
      manager.seen(7)
      manager.leave(7)
      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(called).to eq 1
    end

    it "is not looked up before it is needed" do
      manager = OnlineManager.new("NoSuchConstant", reactor:)
      expect { host.call { manager.setup } }.to raise_error(NameError, /NoSuchConstant/)
      stub_const("NoSuchConstant", recording)
      host.call { manager.setup }
      manager.seen(7)
      expect(NoSuchConstant.calls).to eq [[:online, 7]]
    ensure
      manager.stop
    end
  end

  it "stays alive when nothing references it" do
    gone = []
    host.call do
      2.times { |n| OnlineManager.setup(recording(timeout: 0.05, offline: ->(id) { gone << [n, id] }), reactor:) }
      nil
    end
    3.times { GC.start }
    # Neither manager has had a heartbeat so far.
    OnlineManager.current.seen(7)
    3.times { GC.start }
    eventually { expect(gone).to eq [[1, 7]] }
    OnlineManager.current.stop

    GC.start
    OnlineManager.current.seen(7)
    eventually { expect(gone).to eq [[1, 7], [0, 7]] }
    OnlineManager.current.stop
  end

  it "stays alive with the block that setup kept and is freed with it" do
    alive = ObjectSpace::WeakMap.new
    kept = lambda do
      config = recording
      host.call { OnlineManager.setup(config, reactor:) }
      alive[OnlineManager.current] = true
      config.heartbeat.call(7)
      OnlineManager.current.stop
      config.heartbeat
    end
    heartbeats = Array.new(20) { kept.call }
    GC.start
    expect(heartbeats.map { |heartbeat| heartbeat.call(7) }.uniq).to eq [false]
    expect(alive.size).to eq 20

    heartbeats.clear
    eventually do
      GC.start
      # A reference may remain on the machine stack by accident.
      expect(alive.size).to be < 10
    end
  end
end
