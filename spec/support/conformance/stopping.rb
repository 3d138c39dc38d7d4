# frozen_string_literal: true

# How a manager stops.
RSpec.shared_examples "stopping" do
  # @return [Array<String>] the names of the process' threads that have our name, Rust's included. Compares the whole
  #   name, since Ruby keeps an ended thread for 3 s, with a part of its name.
  def threads
    skip "there is no /proc" unless File.exist?("/proc/self/task")

    Dir["/proc/self/task/*"].select do |path|
      File.read("#{path}/comm") == "online_manager\n"
    rescue Errno::ENOENT, Errno::ESRCH
      false # the thread has ended meanwhile
    end
  end

  describe "stop" do
    it "sets each remaining user offline exactly once on the reactor, and then returns 0" do
      config = recording
      manager = start(config)
      manager.seen_all((1..100).to_a)
      manager.leave(7)
      expect(manager.stop).to eq 0

      expect((1..100).map { |id| config.calls_of(id) }).to all eq(%i[online offline])
      expect(config.transitions.select { |call| call.name == :offline })
        .to all(satisfy("be on the reactor") { |call| host.delivers?(call) })
      expect(OnlineManager.current).to be_nil
    end

    it "bars heartbeats, which return false" do
      config = recording
      manager = start(config)
      manager.seen(7)
      manager.stop

      expect([manager.seen(7), manager.seen(8, timeout: 5), manager.seen_all([7, [9]]), config.heartbeat.call(7)])
        .to eq [false] * 4
      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    end

    it "does nothing the second time" do
      config = recording
      manager = start(config)
      manager.seen(7)

      expect([manager.stop, manager.stop, manager.stop(timeout: 1)]).to eq [0, 0, 0]
      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    end

    it "works without a heartbeat and from within the reactor" do
      expect(start.stop).to eq 0
      manager = start
      expect(host.call { manager.stop }).to eq 0
    end

    it "sets users offline from within the reactor" do
      config = recording
      manager = start(config)
      manager.seen_all([1, 2])
      expect(host.call { manager.stop }).to eq 0

      expect([1, 2].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    end

    it "before setup prevents the setup" do
      config = recording
      manager = OnlineManager.new(config, reactor:)
      expect(manager.stop).to eq 0

      expect { host.call { manager.setup } }.to raise_error(OnlineManager::Error, /stopped/)
      expect { manager.run }.to raise_error(OnlineManager::Error, /stopped/)
      expect(config.last(:setup)).to be_nil
      expect(manager.seen(7)).to be false
    end

    it "may be called within setup" do
      manager = nil
      config = recording(setup: lambda { |heartbeat|
        heartbeat.call(7)
        manager.stop
        heartbeat.call(8)
      })
      manager = OnlineManager.new(config, reactor:)

      expect(host.call { manager.setup }).to be false
      eventually { expect([config.calls, manager.stats[:state]]).to eq [[[:online, 7], [:offline, 7]], :stopped] }
    end

    it "is not missed at the moment when the reactor finds that nobody is due" do
      gate = new_gate
      is_last = false
      config = recording(offline: ->(_) { is_last = true })
      manager = start(config)
      # As the reactor looks for due users, the last time after the last `offline`.
      manager.instance_variable_get(:@native).define_singleton_method(:deliver) do |*arguments|
        gate.pass if is_last
        super(*arguments)
      end
      manager.seen(7)
      manager.leave(7)
      wait_until { gate.reached? }
      stopper = background { manager.stop }
      wait_until { manager.stats[:state] == :stopping && stopper.thread.stop? }
      # Long enough that the reactor's time slice is over as well.
      throughout(2 * OnlineManager::Lifecycle::SLICE) { expect(stopper).to be_alive }
      gate.open

      expect(stopper.value).to eq 0
    end

    it "leaves neither Ruby threads nor system threads behind" do
      before = threads
      managers = Array.new(3) { start }
      managers.each { |manager| manager.seen(7) }
      # A thread sets its own name, after it has started.
      started = wait_until { (threads - before).then { |added| added if added.size >= 3 } }
      managers.each(&:stop)

      eventually { expect(threads & started).to be_empty }
    end

    it "is not missed when the reactor has nothing left to do before it is woken" do
      gate = new_gate
      config = recording
      manager = start(config)
      manager.seen(7)
      # Everybody was due and has been called, and the stop is not over.
      manager.instance_variable_get(:@native).define_singleton_method(:stop) { super().tap { gate.pass } }
      stopper = background { manager.stop }
      wait_until { gate.reached? && config.last(:offline)&.ended }
      settle(manager)
      throughout(0.02) { expect(stopper).to be_alive }
      gate.open

      expect(stopper.value).to eq 0
    end

    it "on one thread makes a second stop on another thread wait" do
      gate = new_gate
      config = recording(offline: ->(_) { gate.pass })
      manager = start(config)
      manager.seen(7)
      stoppers = Array.new(2) { background { manager.stop } }
      wait_until { gate.reached? }
      throughout(0.05) { expect(stoppers).to all be_alive }
      expect(manager.seen(8)).to be false
      gate.open

      expect(stoppers.map(&:value)).to eq [0, 0]
      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    end

    it "drops a remembered heartbeat" do
      gate = new_gate
      config = recording(offline: ->(_) { gate.pass })
      manager = start(config)
      manager.seen(7)
      manager.leave(7)
      wait_until { gate.reached? }
      manager.seen(7)
      stopper = background { manager.stop }
      wait_until { manager.stats[:state] == :stopping }
      gate.open
      stopper.value

      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    end

    it "does not wait for a running online, whose thread calls offline once" do
      gate = new_gate
      config = recording(online: ->(id) { gate.pass if id == 7 })
      manager = start(config)
      manager.seen(8)
      sender = background { manager.seen(7) }
      wait_until { gate.reached? }
      expect(manager.stop).to eq 1
      expect(config.calls).to eq [[:online, 8], [:online, 7], [:offline, 8]]
      expect([manager.online_users, manager.seen(7)]).to eq [[7], false]
      gate.open

      expect(sender.value).to be true
      expect(config.calls_of(7)).to eq %i[online offline]
      expect(config.last(:offline, 7).thread).to be sender.thread
      expect(manager.size).to eq 0
    end

    it "leaves a user offline whose online raises after the stop" do
      gate = new_gate
      config = recording(online: lambda { |_|
        gate.pass
        raise IOError
      })
      manager = start(config)
      sender = background { manager.seen(7) }
      wait_until { gate.reached? }
      manager.stop
      gate.open

      expect { sender.value }.to raise_error(IOError)
      expect(config.calls).to eq [[:online, 7]]
      expect(manager.size).to eq 0
    end

    it "with a timeout gives up waiting, warns and returns how many are left, who are still called" do
      gate = new_gate
      config = recording(offline: ->(_) { gate.pass })
      manager = start(config)
      manager.seen_all([1, 2, 3])
      began = Wait.monotonic
      expect(manager.stop(timeout: 0.1)).to eq 2

      expect(Wait.monotonic - began).to be_between(0.1, 4)
      expect(said).to match(/\AOnlineManager: after 0.1 s, .* 2 users have not been set offline yet: .*\n\z/)
      gate.open
      eventually { expect(manager.stats[:state]).to be :stopped }
      expect([1, 2, 3].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    end

    it "with a timeout gives up waiting within the reactor too, which goes on with the others" do
      config = recording(offline: ->(_) { pass_time(0.02) })
      manager = start(config)
      manager.seen_all((1..20).to_a)
      expect(host.call { manager.stop(timeout: 0.05) }).to be_between(1, 19)
      expect(said).to match(/after 0.05 s, the timeout of stop, \d+ users have not been set offline yet:/)

      eventually { expect(manager.stats[:state]).to be :stopped }
      expect((1..20).map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    end

    it "with a timeout waits no longer than the stop takes" do
      manager = start
      manager.seen(7)
      began = Wait.monotonic

      expect(manager.stop(timeout: 20)).to eq 0
      expect(Wait.monotonic - began).to be < 10
    end
  end

  describe "stop inside a callback returns at once and ends the manager afterwards" do
    it "inside offline" do
      manager = nil
      answers = []
      config = recording(offline: ->(id) { answers << manager.stop << manager.seen(9) if id == 7 })
      manager = start(config)
      manager.seen_all([7, 8])
      manager.leave(7)

      eventually { expect(manager.stats[:state]).to be :stopped }
      expect(answers).to eq [1, false]
      expect(config.calls).to eq [[:online, 7], [:online, 8], [:offline, 7], [:offline, 8]]
    end

    it "inside online, whose user is set offline as soon as it returns" do
      manager = nil
      answer = nil
      config = recording(online: ->(id) { answer = manager.stop if id == 7 })
      manager = start(config)
      manager.seen(8)

      expect(manager.seen(7)).to be true
      expect(answer).to be_between(1, 2)
      expect(config.calls_of(7)).to eq %i[online offline]
      expect(config.last(:offline, 7).thread).to be Thread.current
      eventually { expect(manager.stats[:state]).to be :stopped }
      expect(config.calls_of(8)).to eq %i[online offline]
    end

    it "inside online on the reactor" do
      manager = nil
      config = recording(online: ->(_) { manager.stop })
      manager = start(config)

      expect(host.call { manager.seen(7) }).to be true
      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
      eventually { expect(manager.stats[:state]).to be :stopped }
    end

    it "inside on_error" do
      manager = nil
      config = recording(offline: ->(id) { raise IOError if id == 7 }, on_error: ->(*) { manager.stop })
      manager = start(config)
      manager.seen_all([7, 8])
      manager.leave(7)

      eventually { expect(manager.stats[:state]).to be :stopped }
      expect([7, 8].map { |id| config.calls_of(id) }).to eq [%i[online offline on_error], %i[online offline]]
    end
  end

  describe "run" do
    it "blocks until the manager is stopped and returns nil" do
      config = recording
      manager = start(config, way: :run)
      manager.seen_all([1, 2])
      throughout(0.05) { expect(host.runner).to be_alive }
      expect(manager.stop).to eq 0

      expect(host.runner.value).to be_nil
      expect([1, 2].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    end

    it "ends without a heartbeat" do
      manager = start(recording, way: :run)
      expect(manager.stop).to eq 0
      expect(host.runner.value).to be_nil
    end

    it "ends when it is stopped just before it begins and leaves no thread behind" do
      before = threads
      gate = new_gate
      allow(OnlineManager::Registry).to receive(:add).and_wrap_original do |add, manager|
        add.call(manager)
        gate.pass
      end
      manager = OnlineManager.new(recording, reactor:)
      run = host.run { manager.run }
      wait_until { gate.reached? }
      stopper = background { manager.stop }
      wait_until { manager.stats[:state] != :running && stopper.thread.stop? }
      gate.open

      expect([stopper.value, run.value, manager.stats[:state]]).to eq [0, nil, :stopped]
      eventually { expect(threads - before).to be_empty }
    end

    it "ends when a trap handler stops it, which does not wait" do
      [0, 2].each do |users|
        config = recording
        manager = start(config, way: :run)
        (1..users).each { |id| manager.seen(id) }
        expect(in_trap_handler { manager.stop }).to be_between(0, users)
        expect(host.runner.value).to be_nil
        expect((1..users).map { |id| config.calls_of(id) }).to eq([%i[online offline]] * users)
      end
    end

    it "ends when a callback has stopped it" do
      manager = nil
      config = recording(offline: ->(id) { manager.stop if id == 1 })
      manager = start(config, way: :run)
      manager.seen_all([1, 2])
      manager.leave(1)

      expect(host.runner.value).to be_nil
      expect([1, 2].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    end

    it "ends when setup stops it" do
      config = recording(setup: lambda { |heartbeat|
        heartbeat.call(7)
        OnlineManager.current.stop
      })
      run = host.run { OnlineManager.run(config, reactor:) }

      expect(run.value).to be_nil
      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    end

    it "goes on when setup has returned and calls offline by expiry" do
      config = recording(timeout: 0.05, setup: ->(heartbeat) { heartbeat.call(7) })
      start(config, way: :run)

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(host.runner).to be_alive
    end

    it "sets the remaining users offline when its thread is killed" do
      config = recording
      manager = start(config, way: :run)
      manager.seen_all([1, 2])
      host.runner.kill

      expect([1, 2].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
      expect(manager.stats[:state]).to be :stopped
    end

    it "sets the remaining users offline when something is raised into its thread" do
      config = recording
      manager = start(config, way: :run)
      manager.seen_all([1, 2])
      host.runner.thread.raise(Interrupt)

      expect { host.runner.value }.to raise_error(Interrupt)
      expect([1, 2].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
      expect(manager.stats[:state]).to be :stopped
    end
  end

  it "can be run or set up only once" do
    manager = start
    expect { host.call { manager.setup } }.to raise_error(OnlineManager::Error, /already running/)
    expect { manager.run }.to raise_error(OnlineManager::Error, /already running/)
    expect(manager.seen(7)).to be true
    manager.stop
    expect { manager.run }.to raise_error(OnlineManager::Error, /stopped/)
    expect { host.call { manager.setup } }.to raise_error(OnlineManager::Error, /stopped/)
  end
end
