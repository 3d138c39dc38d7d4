# frozen_string_literal: true

Dir[File.join(__dir__, "../support/conformance/*.rb")].each { |file| require file }

# The behaviour that is specific to fiber schedulers. The rest is in conformance_spec.rb.
RSpec.describe "The reactor :fiber" do
  let(:reactor) { :fiber }

  include_context "with a manager"

  it "raises an error when there is no scheduler" do
    %i[setup run].each do |way|
      manager = OnlineManager.new(recording, reactor:)
      expect { manager.public_send(way) }.to raise_error(OnlineManager::Error, /needs a fiber scheduler/)
      expect(OnlineManager.current).to be_nil
      # The manager can still be set up inside a scheduler.
      host.call { manager.setup }
      manager.stop
    end
  end

  it "lets an Async reactor end, which sets the remaining users offline" do
    config = recording
    thread = background do
      Async do
        OnlineManager.setup(config)
        config.heartbeat.call(7)
      end
      config.calls
    end

    expect(thread.value).to eq [[:online, 7], [:offline, 7]]
    # Async has already removed its scheduler.
    expect(config.last(:offline).thread).to be thread.thread
    expect(config.heartbeat.call(8)).to be false
  end

  it "treats the end by Async in the middle of a callback as no error of the callback" do
    gate = new_gate
    config = recording(setup: ->(heartbeat) { [7, 8].each(&heartbeat) }, on_error: ->(*) {},
                       offline: ->(id) { gate.pass if id == 7 })
    host.call do
      task = Async { OnlineManager.run(config, reactor:) }
      OnlineManager.current.leave(7)
      Async { |other| other.sleep(0.005) until gate.reached? }.wait
      task.stop
    end

    expect(config.calls).to eq [[:online, 7], [:online, 8], [:offline, 7], [:offline, 8]]
  end

  it "survives the stop of the task that has set it up" do
    config = recording(timeout: 0.05)
    is_set_up = false
    host.call do
      task = Async do |inner|
        OnlineManager.setup(config)
        is_set_up = true
        inner.sleep(60)
      end
      # With async 2, `Async` may return before `setup` has ended.
      Async { |other| other.sleep(0.005) until is_set_up }.wait
      task.stop
    end
    expect(config.heartbeat.call(7)).to be true

    eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    expect(host).to be_delivers(config.last(:offline))
    expect(config.heartbeat.call(7)).to be true
    OnlineManager.current.stop
  end

  it "lets other fibers run while a callback waits" do
    gate = new_gate
    config = recording(offline: ->(_) { gate.pass })
    manager = start(config)
    manager.seen(7)
    manager.leave(7)
    wait_until { gate.reached? }

    expect(host.call { manager.seen(8) }).to be true
    expect(config.calls).to eq [[:online, 7], [:offline, 7], [:online, 8]]
  end

  it "lets other fibers run while a crowd leaves" do
    config = recording(offline: ->(_) { pass_time(0.002) })
    manager = start(config)
    manager.seen_all((1..60).to_a)
    turns = 0
    done = false
    host.call do
      Async { |task| (turns += 1) && task.yield until done }
      (1..60).each { |id| manager.leave(id) }
    end
    turns = 0
    wait_until { config.last(:offline, 60) }
    done = true

    expect(turns).to be > 5
  end

  it "blocks only one fiber in run" do
    config = recording
    heartbeats = 0
    host.run do
      sender = Async do |task|
        loop do
          task.sleep(0.005)
          config.heartbeat&.call(heartbeats += 1)
        end
      end
      OnlineManager.run(config, reactor:)
    ensure
      sender.stop
    end
    eventually { expect(config.calls.size).to be > 3 }
    OnlineManager.current.stop

    expect(host.runner.value).to be_nil
    expect(config.calls.size).to be >= 2 * (heartbeats - 1)
  end

  it "can be stopped by a fiber of the scheduler, which waits without blocking the others" do
    gate = new_gate
    config = recording(offline: ->(_) { gate.pass })
    manager = start(config)
    manager.seen(7)
    stopper = background { host.call { manager.stop } }
    wait_until { gate.reached? }
    expect(host.call { :alive }).to be :alive
    gate.open

    expect(stopper.value).to eq 0
  end

  it "releases a task that waits for a stop when Async stops the task" do
    gate = new_gate
    manager = start(recording(offline: ->(_) { gate.pass }))
    manager.seen(7)
    outcome = nil
    task = host.call { Async { outcome = Conformance::Outcome.of { manager.stop } } }
    wait_until { gate.reached? }
    host.call { task.stop }

    expect { outcome.value }.to raise_error(Async::Stop)
    gate.open
    eventually { expect(manager.stats[:state]).to be :stopped }
  end

  it "sets users offline when its scheduler has ended in the meantime" do
    config = recording
    manager = start(config)
    manager.seen(7)
    host.stop

    expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    expect(manager.stop).to eq 0
  end

  # Async is one scheduler. This is a minimal one.
  describe "with a scheduler that is not Async's" do
    let(:host) { Conformance::SchedulerReactor.new }

    it "calls setup and offline in its fibers" do
      config = recording(timeout: 0.05, setup: ->(heartbeat) { heartbeat.call(7) })
      manager = start(config)

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(config.last(:offline)).to have_attributes(thread: host.thread, scheduler: be_truthy)
      expect(manager.stats[:reactor]).to be :fiber
      manager.seen(8)
      expect(manager.stop).to eq 0
      expect(config.calls_of(8)).to eq %i[online offline]
    end

    it "runs, and ends" do
      config = recording(timeout: 0.05, setup: ->(heartbeat) { heartbeat.call(7) })
      manager = start(config, way: :run)
      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      manager.seen(8)
      manager.stop

      expect(host.runner.value).to be_nil
      expect(config.calls_of(8)).to eq %i[online offline]
    end

    it "passes an error of setup out of run" do
      config = recording(setup: ->(_) { raise IOError })
      run = host.run { OnlineManager.run(config, reactor:) }

      expect { run.value }.to raise_error(IOError)
      expect(OnlineManager.current).to be_nil
    end
  end
end
