# frozen_string_literal: true

# The behaviour of version 0.0.3: heartbeats come in, transitions come out.
RSpec.shared_examples "heartbeats" do
  describe "setup" do
    it "is called once, on the thread that calls OnlineManager.setup, which returns what it returned" do
      config = recording(setup: ->(_) { :done })
      manager = OnlineManager.new(config, reactor:)

      place, answer = host.call { [Thread.current, manager.setup] }

      expect(answer).to eq :done
      expect(config.last(:setup).thread).to be place
    ensure
      manager.stop
    end

    it "yields the heartbeats and may keep its block for later use" do
      seen = []
      config = recording(setup: lambda { |heartbeat|
        2.times { seen << heartbeat.call(7) << config.calls }
      })
      start(config)

      expect(seen).to eq [true, [[:online, 7]], true, [[:online, 7]]]
      expect(background { config.heartbeat.call(8) }.value).to be true
      expect(config.calls).to eq [[:online, 7], [:online, 8]]
    end

    # The usual form of a config, with `yield`.
    yielding = Class.new(Conformance::Config) do
      def setup(&)
        super
        yield [7, 3]
        yield({ a: 1 })
        [proc(&), proc { yield 7, 3 }, proc { yield 7, { a: 1 } }]
      end
    end

    it "yields one id as to a method of one argument" do
      config = yielding.new
      wrong = host.call { OnlineManager.setup(config, reactor:) }

      expect(wrong).to all raise_error(ArgumentError, /wrong number of arguments \(given [02], expected 1\)/)
      expect(config.calls).to eq [[:online, [7, 3]], [:online, { a: 1 }]]
    ensure
      OnlineManager.current.stop
    end
  end

  it "calls online before the heartbeat returns, on its thread, and only the first time" do
    config = recording
    manager = start(config)

    expect(manager.seen(7)).to be true
    expect(config.calls).to eq [[:online, 7]]
    expect(config.last(:online).thread).to be Thread.current

    100.times { manager.seen(7) }
    thread = background { manager.seen(8) }
    thread.value
    expect(config.calls).to eq [[:online, 7], [:online, 8]]
    expect(config.last(:online).thread).to be thread.thread
  end

  it "calls offline on the reactor when the timeout has passed without a heartbeat" do
    config = recording(timeout: 0.1)
    manager = start(config)
    manager.seen(7)

    eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    online, offline = config.transitions
    expect(offline.began - online.ended).to be >= 0.1
    expect(host).to be_delivers(offline)
    settle(manager)
    expect(manager.seen(7)).to be true
    expect(config.calls_of(7)).to eq %i[online offline online]
  end

  it "removes the user before it calls offline" do
    inside = nil
    manager = nil
    config = recording(offline: ->(id) { inside = [manager.online?(id), manager.online_users, manager.size] })
    manager = start(config)
    manager.seen(7)
    manager.leave(7)

    eventually { expect(inside).to eq [false, [], 0] }
  end

  it "moves the deadline with every heartbeat" do
    config = recording(timeout: 0.3)
    manager = start(config)
    last = nil
    send_heartbeats = lambda do |id|
      gaps = [0]
      throughout(0.5) do
        now = Wait.monotonic
        gaps << (now - last) if last
        manager.seen(id)
        last = now
      end
      gaps.max
    end
    # If the machine delayed this thread for so long, the example shows nothing: then it tries with another user.
    id = (1..10).find do |user|
      last = nil
      send_heartbeats.call(user) < 0.25
    end

    expect(config.calls_of(id)).to eq [:online]
    eventually { expect(config.calls_of(id)).to eq %i[online offline] }
    expect(config.last(:offline, id).began - last).to be >= 0.3
  end

  it "is never early and forgets nobody" do
    config = recording
    manager = start(config)
    last = {}
    # Many users with several timeouts, whose last heartbeats come at many moments: some of these, and some of the
    # deadlines, are at any distance from the next tick of the clock.
    timeout = ->(id) { 0.1 - (0.001 * (id % 8)) }
    throughout(0.25) do
      60.times do
        id = rand(400)
        last[id] = Wait.monotonic
        manager.seen(id, timeout: timeout.call(id))
      end
    end

    eventually { expect(manager.size).to eq 0 }
    settle(manager)
    early = last.filter_map do |id, heartbeat_at|
      silent_since = [heartbeat_at, config.last(:online, id).ended].max
      after = config.last(:offline, id).began - silent_since
      [id, timeout.call(id), after] if after < timeout.call(id)
    end
    expect(early).to be_empty
    expect(last.keys.map { |id| config.calls_of(id).last }.uniq).to eq [:offline]
  end

  it "distinguishes its users" do
    config = recording
    manager = start(config)
    manager.seen_all([1, 2, 3])
    manager.seen(2, timeout: 0.05)

    eventually { expect(config.calls.last).to eq [:offline, 2] }
    expect(manager.online_users).to contain_exactly(1, 3)
  end

  describe "an online that raises" do
    it "passes its error to the heartbeat, leaves the user offline and is called again at the next heartbeat" do
      errors = [IOError.new("first"), NotImplementedError.new("second")]
      config = recording(online: ->(_) { error = errors.shift and raise error })
      manager = start(config)

      expect { manager.seen(7) }.to raise_error(IOError, "first")
      expect([manager.online?(7), manager.online_users, manager.size, manager.last_seen(7)]).to eq [false, [], 0, nil]
      expect { config.heartbeat.call(7) }.to raise_error(NotImplementedError, "second")
      expect(manager.seen(7)).to be true
      expect(config.calls).to eq [[:online, 7]] * 3
      expect(manager.online?(7)).to be true
    end

    it "passes its error to the yield in setup" do
      outcome = nil
      start(recording(online: ->(_) { raise IOError }, setup: lambda { |heartbeat|
        outcome = Conformance::Outcome.of { heartbeat.call(7) }
      }))

      expect { outcome.value }.to raise_error(IOError)
    end
  end

  describe "the timeout" do
    it "is read again within 10 ms" do
      config = recording(timeout: 60)
      manager = start(config)
      manager.seen(1)
      config.timeout = 0.05
      pass_time(0.02)
      manager.seen(1)
      eventually { expect(config.calls_of(1)).to eq %i[online offline] }

      manager.seen(2)
      config.timeout = 60
      pass_time(0.02)
      manager.seen(2)
      throughout(0.1) { expect(config.calls_of(2)).to eq [:online] }
    end

    it "is not read on every heartbeat" do
      reads = 0
      config = recording(timeout: -> { (reads += 1) && 60 })
      manager = start(config)
      began = Wait.monotonic
      reads = 0
      throughout(0.05) { 100.times { manager.seen(7) } }

      # At most every 10 ms, on a clock with ticks of up to 10 ms.
      expect(reads).to be_between(1, 2 + ((Wait.monotonic - began) / 0.01))
    end

    it "may be given for one heartbeat and changes no other" do
      config = recording(timeout: 0.05)
      manager = start(config)
      manager.seen(1, timeout: 60)
      manager.seen(2)
      manager.seen(3, timeout: "60")
      manager.seen(3)

      eventually { expect(manager.online_users).to eq [1] }
      manager.seen(1)
      eventually { expect(manager.size).to eq 0 }
      settle(manager)
      expect([1, 2, 3].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    end
  end
end
