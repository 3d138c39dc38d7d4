# frozen_string_literal: true

require "async"
require "tmpdir"

# What the manager asks of a framework integration, with one that records its calls.
RSpec.describe OnlineManager::Integration do
  let(:calls) { Queue.new }
  let(:log) { Queue.new }
  let(:framework) { IntegrationSpy.new(calls, log) }
  let(:managers) { [] }

  around do |example|
    before = described_class.current
    described_class.current = framework
    example.run
  ensure
    managers.each { |manager| manager.stop(timeout: 5) }
    described_class.current = before
  end

  def drain(queue) = Array.new(queue.size) { queue.pop }

  def manager(config, **options)
    OnlineManager.new(config, reactor: :thread, **options).tap { |manager| managers << manager }
  end

  def set_up(config = config_class.new, **options) = manager(config, **options).tap(&:setup)

  # @return [Class] a config that records its calls
  def config_class(name = "Config", note: calls)
    Class.new do
      define_method(:timeout) { 60 }
      define_method(:setup) { |&heartbeat| note << [name, :setup, heartbeat.class] }
      define_method(:online) { |id| note << [name, :online, id] }
      define_method(:offline) { |id| note << [name, :offline, id] }
    end
  end

  it "surrounds the calls of the config's methods and nothing else" do
    manager = set_up
    drain(calls)
    manager.seen(7)
    expect(drain(calls)).to eq [:heartbeat, :end, :heartbeat, ["Config", :online, 7], :end]
    manager.seen(7)
    manager.leave(7)
    eventually { expect(calls.size).to be >= 3 }

    expect(drain(calls).last(3)).to eq [:delivery, ["Config", :offline, 7], :end]
  end

  it "receives the reason and the lateness of a transition" do
    config = config_class.new
    manager = set_up(config, namespace: "here")
    manager.seen(7)
    manager.leave(7)
    wait_until { !manager.online?(7) }
    manager.seen(8, timeout: 0.01)
    wait_until { manager.size.zero? && manager.stats[:departing].zero? }
    manager.seen(9)
    manager.stop

    notified = drain(log).drop(1)
    expect(notified.map { |transition, payload| [transition, *payload.values_at(:id, :reason, :namespace)] })
      .to eq [[:online, 7, :heartbeat, "here"], [:offline, 7, :leave, "here"],
              [:online, 8, :heartbeat, "here"], [:offline, 8, :timeout, "here"],
              [:online, 9, :heartbeat, "here"], [:offline, 9, :stop, "here"]]
    expect(notified.map { |_, payload| payload[:lateness] }).to all be_between(0, 20)
  end

  it "receives a notification for each user of an `_all` callback" do
    config = config_class.new
    config.define_singleton_method(:online_all) { |_| nil }
    config.define_singleton_method(:offline_all) { |_| nil }
    manager = set_up(config)
    manager.seen_all([7, 8])
    manager.stop

    (_, online, offline) = drain(log)
    expect([online, offline].map { |transition, *payloads| [transition, payloads.map { |payload| payload[:id] }.sort] })
      .to eq [[:online, [7, 8]], [:offline, [7, 8]]]
    expect(offline.drop(1).map { |payload| payload[:reason] }).to eq %i[stop stop]
  end

  it "receives the transitions of a shared store, no matter which process got the heartbeat" do
    Dir.mktmpdir do |folder|
      config = config_class.new
      manager = set_up(config, store: "sqlite:#{folder}/presence")
      manager.seen("ann", timeout: 60)
      eventually(limit: 10) { expect(log.size).to eq 1 }
      manager.leave("ann")
      eventually(limit: 10) { expect(log.size).to eq 2 }

      expect(drain(log).map { |transition, payload| [transition, *payload.values_at(:id, :reason)] })
        .to eq [[:online, "ann", :heartbeat], [:offline, "ann", :leave]]
      manager.stop
    end
  end

  it "receives the errors of callbacks and the warnings" do
    config = config_class.new
    config.define_singleton_method(:offline) { |_| raise IOError, "no database" }
    manager = set_up(config)
    manager.seen(7)
    manager.leave(7)

    eventually { expect(log.size).to eq 4 }
    expect(drain(log).last).to match [/#offline raised\z/, "no database", 7]
    manager.seen(8)
    manager.stop(timeout: 0)
    expect(drain(log).grep(String)).to all start_with("after 0.0 s")
  end

  it "receives warn_if_not_alone from a manager without a store, once per process" do
    manager = set_up(namespace: "here")
    expect(log).to be_empty
    [7, 8].each { |id| manager.seen(id) }

    expect(drain(log).select { |what, _| what == :alone }).to eq [[:alone, "here"]]
  end

  it "defines the folder of a store's relative path" do
    framework.root = "/somewhere"

    manager = OnlineManager.new("Config", store: "sqlite:storage/presence")
    expect(manager.inspect).to eq "#<OnlineManager Config new, sqlite:/somewhere/storage/presence>"
  end

  it "keeps a process that serves another purpose from participating" do
    Dir.mktmpdir do |folder|
      framework.takes_part = false
      config = config_class.new
      config.define_singleton_method(:timeout) { 0.5 }
      manager = set_up(config, store: "sqlite:#{folder}/presence")
      throughout(1) { expect(manager.stats[:owner]).to be false }
      manager.seen(7, timeout: 60)

      eventually(limit: 10) { expect(manager.stats[:owner]).to be true }
      manager.stop
    end
  end

  it "keeps a process that serves another purpose from asking for the store: its folder may be missing" do
    Dir.mktmpdir do |folder|
      store = "sqlite:#{folder}/missing/presence"
      expect { set_up(store:) }.to raise_error(OnlineManager::StoreError, %r{/missing})
      framework.takes_part = false

      expect([set_up(store:).stats[:state], drain(log), Dir.children(folder)]).to eq [:running, [], []]
    end
  end

  it "decides whether callbacks run on the fiber scheduler that `setup` is called in" do
    reactor = lambda do
      manager = OnlineManager.new(config_class.new)
      Thread.new { Async { manager.setup && manager.stats[:reactor] }.wait }.value
    ensure
      manager.stop
    end
    expect(reactor.call).to eq :fiber
    framework.uses_fibers = false
    expect(reactor.call).to eq :thread
  end

  it "creates nothing at `setup`" do
    Dir.mktmpdir do |folder|
      set_up(store: "sqlite:#{folder}/presence")
      expect([Dir.children(folder), drain(log)]).to eq [[], []]
    end
  end

  context "when the application has not been initialized" do
    before { framework.is_booted = false }

    # Ends the threads that still wait for it.
    after { framework.is_booted = true }

    it "sets a config that is given by name up later" do
      stub_const("Later", config_class("Later"))
      manager = manager("Later")

      expect(manager.setup).to be_nil
      expect([manager.stats[:state], drain(calls)]).to eq [:new, []]
      drain(log).first.call
      expect([manager.stats[:state], drain(calls)]).to eq [:running, [["Later", :setup, Proc]]]
    end

    it "sets a config that is given as an object up at once" do
      expect(set_up.stats[:state]).to eq :running
    end

    it "calls nothing on a thread of the gem before that" do
      manager = set_up
      manager.seen(7)
      drain(calls)
      manager.leave(7)
      throughout(0.3) { expect(calls).to be_empty }
      framework.is_booted = true

      eventually { expect(drain(calls)).to eq [:delivery, ["Config", :offline, 7], :end] }
    end

    it "asks for no timeout on a thread of the gem until one timeout after that" do
      Dir.mktmpdir do |folder|
        config = config_class.new
        threads = Queue.new
        config.define_singleton_method(:timeout) { 0.5.tap { threads << Thread.current } }
        manager = set_up(config, store: "sqlite:#{folder}/presence")
        throughout(0.8) { expect(manager.stats[:owner]).to be false }
        framework.is_booted = true
        throughout(0.3) { expect(drain(threads) - [Thread.current]).to eq [] }

        eventually(limit: 10) { expect(manager.stats[:owner]).to be true }
        manager.stop
      end
    end

    it "calls the callbacks at a stop all the same, on the thread that stops" do
      config = config_class.new
      threads = Queue.new
      config.define_singleton_method(:offline) { |_user_id| threads << Thread.current }
      manager = set_up(config)
      manager.seen(7)
      manager.stop(timeout: 5)

      expect(drain(threads)).to eq [Thread.current]
    end

    # @yield while a manager runs in a thread
    def run_in_thread
      manager = manager(config_class.new)
      thread = Thread.new { manager.run }
      yield
    ensure
      manager.stop
      thread.join
    end

    it "calls `setup` of a `run` in a thread only after that" do
      run_in_thread do
        throughout(0.3) { expect(calls).to be_empty }
        framework.is_booted = true

        eventually { expect(drain(calls)).to include(["Config", :setup, Proc]) }
      end
    end

    it "calls `setup` of a `run` at once on the thread that initializes the application, which waits for it" do
      framework.is_boot_thread = true
      run_in_thread { eventually { expect(drain(calls)).to include(["Config", :setup, Proc]) } }
    end
  end

  context "when the code has been reloaded" do
    def reload(name)
      stub_const("Named", config_class(name))
      OnlineManager::Registry.invalidate_configs
    end

    it "looks a config that is given by name up again at the next transition, and sets it up" do
      stub_const("Named", config_class("old"))
      manager = set_up("Named")
      manager.seen(7)
      reload("new")
      throughout(0.05) { expect(calls.size).to be <= 6 }
      drain(calls)
      manager.leave(7)
      eventually { expect(calls.size).to eq 4 }

      expect(drain(calls)).to eq [:delivery, ["new", :setup, Proc], ["new", :offline, 7], :end]
    end

    it "calls a Proc for the config again" do
      configs = [config_class("old").new, config_class("new").new]
      manager = set_up(-> { configs.shift })
      OnlineManager::Registry.invalidate_configs
      manager.seen(7)

      expect(drain(calls)).to include(["old", :setup, Proc], ["new", :online, 7])
    end

    { "memory" => ->(_) { :memory }, "SQLite" => ->(folder) { "sqlite:#{folder}/presence" } }.each do |name, store|
      it "calls `offline` for those who were claimed for an `offline_all` that the new code does not have (#{name})" do
        Dir.mktmpdir do |folder|
          batch = Module.new { def offline_all(ids) = raise("old code: #{ids}") }
          configs = [config_class("old").include(batch).new, config_class("new").new]
          manager = set_up(-> { configs.shift }, store: store[folder])
          manager.seen_all([7, 8])
          wait_until { manager.size == 2 && calls.size >= 5 }
          seen = drain(calls)
          # As Rails reloads: after the claim.
          framework.before_delivery = -> { OnlineManager::Registry.invalidate_configs if configs.one? }
          [7, 8].each { |id| manager.leave(id) }
          eventually { expect(seen.concat(drain(calls))).to include(["new", :offline, 7], ["new", :offline, 8]) }
          expect(manager.stats[:errors]).to eq 0
          manager.stop
        end
      end
    end

    it "keeps a config that is given as an object" do
      manager = set_up
      OnlineManager::Registry.invalidate_configs
      manager.seen(7)

      expect(drain(calls).grep(Array)).to eq [["Config", :setup, Proc], ["Config", :online, 7]]
    end

    it "warns when the config cannot be loaded, and goes on when it can" do
      stub_const("Named", config_class("old"))
      manager = set_up("Named")
      manager.seen(7)
      hide_const("Named")
      OnlineManager::Registry.invalidate_configs
      sleep 0.02 # rubocop:disable OnlineManager/BareSleep -- until the timeout is read again
      expect { manager.seen(8) }.to raise_error(OnlineManager::Unloadable, /Named cannot be loaded: .*Named/)
      manager.leave(7)
      eventually { expect(manager.stats[:errors]).to eq 1 }
      expect(drain(log).last).to match ["Named#offline raised", /Named cannot be loaded/, 7]
      reload("new")
      manager.seen(8)

      expect(drain(calls)).to include(["new", :online, 8])
    end

    it "raises an error when a method of the reloaded config is private" do
      stub_const("Named", config_class("old"))
      manager = set_up("Named")
      manager.seen(7)
      hide_const("Named")
      stub_const("Named", config_class("new").tap { |config| config.class_eval { private def last_version = nil } })
      OnlineManager::Registry.invalidate_configs
      sleep 0.02 # rubocop:disable OnlineManager/BareSleep -- until the timeout is read again

      expect { manager.seen(8) }
        .to raise_error(OnlineManager::Unloadable, /Named cannot be loaded: Named#last_version is not public/)
    end

    it "survives an application that cannot be loaded" do
      manager = set_up
      manager.seen(7)
      framework.unloadable = true
      manager.leave(7)
      eventually { expect(manager.stats[:errors]).to eq 1 }
      expect(drain(log).last).to match [/#offline raised/, "syntax error", 7]
      framework.unloadable = false
      manager.seen(8)
      manager.stop

      expect(drain(calls)).to include(["Config", :offline, 8])
    end
  end
end
