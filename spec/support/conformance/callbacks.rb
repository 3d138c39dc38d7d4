# frozen_string_literal: true

# Where callbacks run, and what they may call.
RSpec.shared_examples "callbacks" do |reactor|
  describe "places" do
    it "calls online where the heartbeat is, and offline and the online after it on the reactor, after setup" do
      gate = new_gate
      config = recording(offline: ->(_) { gate.pass })
      manager = start(config)
      sender = background { manager.seen(7) }
      sender.value
      manager.leave(7)
      wait_until { gate.reached? }
      manager.seen(7)
      gate.open

      eventually { expect(config.calls_of(7)).to eq %i[online offline online] }
      online, offline, again = config.transitions
      expect(online.thread).to be sender.thread
      expect([offline, again]).to all(satisfy("be on the reactor") { |call| host.delivers?(call) })
      expect(again.thread).to be offline.thread
    end

    it "calls setup on the reactor too, or on its own thread without a reactor, in run" do
      config = recording(setup: ->(heartbeat) { heartbeat.call(7) })
      manager = start(config, way: :run)
      manager.leave(7)

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      setup = config.last(:setup)
      expect(host).to be_delivers(config.last(:offline))
      if reactor == :thread
        expect(setup.thread).to have_attributes(name: "online_manager setup")
      else
        expect(host).to be_delivers(setup)
      end
      expect(config.last(:online)).to have_attributes(thread: setup.thread, fiber: setup.fiber)
    end
  end

  describe "inside online" do
    it "allows all calls of the manager, for the same user and for others" do
      answers = nil
      manager = nil
      config = recording(online: lambda { |id|
        next unless id == 7

        answers = [manager.seen(7), manager.seen(8), manager.leave(8), manager.seen_all([7, 9]), manager.online?(7),
                   manager.online?(9), manager.last_seen(7).class, manager.stats[:announcing]]
      })
      manager = start(config)

      expect(manager.seen(7)).to be true
      expect(answers).to eq [true, true, true, true, true, true, Time, 1]
      expect(config.transitions.map(&:to_a).grep_v([:offline, 8])).to eq [[:online, 7], [:online, 8], [:online, 9]]
      eventually { expect(config.calls_of(8)).to eq %i[online offline] }
      expect(manager.online_users).to contain_exactly(7, 9)
    end

    it "lets a user leave at once" do
      manager = nil
      config = recording(online: ->(id) { manager.leave(id) })
      manager = start(config)
      manager.seen(7)

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(config.last(:offline).began).to be >= config.last(:online).ended
    end

    it "raises the error of another user's online from that user's heartbeat" do
      manager = nil
      inner = nil
      config = recording(online: lambda { |id|
        raise IOError if id == 8

        inner = Conformance::Outcome.of { manager.seen(8) }
      })
      manager = start(config)
      manager.seen(7)

      expect { inner.value }.to raise_error(IOError)
      expect(manager.online_users).to eq [7]
    end
  end

  describe "inside offline" do
    it "allows all calls of the manager, for the same user and for others" do
      answers = nil
      manager = nil
      config = recording(offline: lambda { |id|
        next unless id == 7 && answers.nil?

        answers = [manager.leave(7), manager.seen(7), manager.seen_all([7, 8]), manager.seen(9), manager.leave(9),
                   manager.online?(7), manager.online?(8), manager.last_seen(7), manager.stats[:departing]]
      })
      manager = start(config)
      manager.seen(7)
      manager.leave(7)

      eventually { expect(config.calls_of(7)).to eq %i[online offline online] }
      eventually { expect(config.calls_of(9)).to eq %i[online offline] }
      expect(answers).to eq [false, true, true, true, true, false, true, nil, 1]
      # These came online while `offline` ran, on the thread of the heartbeat; the user itself not before its return.
      expect(config.last(:online, 8)).to have_attributes(thread: config.last(:offline, 7).thread)
      expect(config.last(:online, 7).began).to be >= config.last(:offline, 7).ended
      expect(manager.online_users).to contain_exactly(7, 8)
    end

    it "raises the error of another user's online from that user's heartbeat" do
      manager = nil
      inner = nil
      config = recording(online: ->(id) { raise IOError if id == 8 },
                         offline: ->(_) { inner = Conformance::Outcome.of { manager.seen(8) } })
      manager = start(config)
      manager.seen(7)
      manager.leave(7)

      wait_until { config.last(:offline)&.returned }
      expect { inner.value }.to raise_error(IOError)
      expect(manager.size).to eq 0
    end
  end

  it "allows all calls inside on_error" do
    manager = nil
    answers = nil
    config = recording(offline: ->(id) { raise IOError if id == 7 }, on_error: lambda { |_, id|
      answers = [manager.seen(id), manager.seen(8), manager.leave(8), manager.online?(id)]
    })
    manager = start(config)
    manager.seen(7)
    manager.leave(7)

    eventually { expect(config.calls_of(7)).to eq %i[online offline on_error online] }
    eventually { expect(config.calls_of(8)).to eq %i[online offline] }
    expect(answers).to eq [true, true, true, false]
  end

  it "allows all calls in a trap handler" do
    config = recording
    manager = start(config)
    manager.seen(1)
    answers = in_trap_handler do
      [manager.seen(7), config.heartbeat.call(7), manager.seen_all([7, 8]), manager.leave(8), manager.online?(7),
       manager.online_users.size, manager.size, manager.last_seen(7).class, manager.stats[:state],
       OnlineManager.current]
    end

    expect(answers).to match [true, true, true, true, true, 3, 3, Time, :running, manager]
    eventually { expect(config.calls_of(8)).to eq %i[online offline] }
  end

  it "allows the first heartbeat in a trap handler" do
    config = recording(timeout: 0.05)
    manager = start(config)
    expect(in_trap_handler { manager.seen(7) }).to be true

    eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    expect(host).to be_delivers(config.last(:offline))
  end

  it "names a callback that blocks the reactor for long" do
    stub_const("OnlineManager::Watchdog::WARN_AFTER", 0.05)
    gate = new_gate
    manager = start(recording(offline: ->(id) { gate.pass if id == 7 }))
    manager.seen(8)
    manager.leave(8)
    manager.seen(7)
    manager.leave(7)
    eventually do
      expect(@said.string).to eq "OnlineManager: Conformance::Config#offline has been running for 0.05 s: " \
                                 "all other callbacks wait for it; move slow work into a background job\n"
    end
    said
  end

  it "delays only the later offlines of the same manager when a callback never returns" do
    gate = new_gate
    config = recording(offline: ->(id) { gate.pass if id == 1 })
    manager = start(config)
    other_config = recording(timeout: 0.05)
    other = OnlineManager.new(other_config, reactor: :thread)
    other.setup
    manager.seen_all([1, 2, 3])
    manager.leave(1)
    wait_until { gate.reached? }
    [2, 3].each { |id| manager.leave(id) }
    age = manager.stats[:delivering_for]
    other.seen(7)

    eventually { expect(other_config.calls).to eq [[:online, 7], [:offline, 7]] }
    expect([manager.seen(3), manager.seen(4), manager.seen_all([4, 5]), manager.leave(5)]).to eq [true] * 4
    expect([4, 5].map { |id| config.calls_of(id) }).to eq [[:online]] * 2
    # The user is due, but online until `offline` is called.
    expect([manager.online?(1), manager.online?(2), manager.size]).to eq [false, true, 4]
    expect(manager.online_users).to contain_exactly(2, 3, 4, 5)
    expect([manager.last_seen(4), manager.last_seen(1)]).to match [Time, nil]
    expect(manager.stats).to include(delivering: :offline, delivering_for: be > age)
    expect(manager.stop(timeout: 0.05)).to eq 4
    expect(said).to match(/4 users have not been set offline yet/)
    expect(config.calls_of(2)).to eq [:online]
    gate.open

    eventually { expect(manager.stats[:state]).to be :stopped }
    expect((1..5).map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    other.stop
  end

  # SLOW=30 is set by `rake soak`. The watchdog then warns after a third of it, as long as in real life.
  seconds = Float(ENV.fetch("SLOW", 0.6))

  # @param before [Float] the part of the example that is already over, in seconds
  def take(seconds, before: 0, total: seconds)
    began = Wait.monotonic
    wait_until(limit: seconds + 5) do
      passed = Wait.monotonic - began
      Progress.at(before + passed, total)
      passed > seconds
    end
  end

  it "allows callbacks to take #{seconds} s where the heartbeat is: online and online_all", limit: 30 + (3 * seconds) do
    stub_const("OnlineManager::Watchdog::WARN_AFTER", seconds / 3)
    timeout = seconds / 6
    slow = ->(_) { take(seconds) }
    config = recording(timeout:, online: slow, online_all: slow)
    manager = start(config)
    senders = [background { manager.seen(1) }, background { manager.seen_all([2, 3]) }]
    wait_until { manager.stats[:announcing] == 3 }
    senders.each { |sender| sender.value(limit: seconds + 10) }

    eventually(limit: timeout + 10) { expect(manager.size).to eq 0 }
    settle(manager)
    { 1 => config.last(:online), 2 => config.last(:online_all), 3 => config.last(:online_all) }.each do |id, online|
      expect(online.ended - online.began).to be >= seconds
      expect(config.last(:offline, id).began - online.ended).to be >= timeout
    end
  end

  it "allows callbacks to take #{seconds} s on the reactor, with a warning: offline_all and on_error",
     limit: 30 + (5 * seconds) do
    stub_const("OnlineManager::Watchdog::WARN_AFTER", seconds / 3)
    total = 2 * seconds
    config = recording(on_error: ->(*) { take(seconds, before: seconds, total:) }, offline_all: lambda { |ids|
      next unless ids == [1]

      take(seconds, total:)
      raise IOError
    })
    manager = start(config)
    manager.seen_all([1, 2])
    manager.leave(1)
    wait_until { config.last(:offline_all) }
    manager.leave(2)

    eventually(limit: total + 10) { expect(config.last(:offline_all).args).to eq [[2]] }
    expect(config.transitions.map(&:name)).to eq %i[online online offline_all on_error offline_all]
    expect(config.last(:offline_all).began).to be >= config.last(:on_error).ended
    named = %w[offline_all on_error].map do |method|
      start_with("OnlineManager: Conformance::Config##{method} has been running for #{seconds / 3} s:")
    end
    expect(said.lines).to match named
  end

  it "allows all calls inside setup" do
    manager = nil
    answers = nil
    config = recording(setup: lambda { |heartbeat|
      answers = [heartbeat.call(7), OnlineManager.current.equal?(manager), manager.online?(7), manager.seen(8),
                 manager.leave(8), manager.stats[:state]]
    })
    manager = OnlineManager.new(config, reactor:)
    host.call { manager.setup }

    expect(answers).to eq [true, true, true, true, true, :running]
    eventually { expect(config.calls_of(8)).to eq %i[online offline] }
  ensure
    manager.stop
  end
end
