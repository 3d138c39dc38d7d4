# frozen_string_literal: true

# Where callbacks are called, and what they may do.
RSpec.shared_examples "callbacks" do |reactor|
  describe "places" do
    it "after setup: online where the heartbeat is, offline and the online that follows it on the reactor" do
      hold = gate
      config = recording(offline: ->(_) { hold.pass })
      manager = start(config)
      beater = background { manager.seen(7) }
      beater.value
      manager.leave(7)
      wait_until { hold.reached? }
      manager.seen(7)
      hold.open

      eventually { expect(config.calls_of(7)).to eq %i[online offline online] }
      online, offline, again = config.transitions
      expect(online.thread).to be beater.thread
      expect([offline, again]).to all(satisfy("be on the reactor") { |call| host.delivers?(call) })
      expect(again.thread).to be offline.thread
    end

    it "in run: setup too, or on a thread of its own if there is no reactor for it" do
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
    it "the manager may be asked and told anything, about the same user and others" do
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

    it "a user may be made to leave at once" do
      manager = nil
      config = recording(online: ->(id) { manager.leave(id) })
      manager = start(config)
      manager.seen(7)

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(config.last(:offline).began).to be >= config.last(:online).ended
    end

    it "the error of another user's online comes out of that user's heartbeat" do
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
    it "the manager may be asked and told anything, about the same user and others" do
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
      # These came online while `offline` ran, on the thread that beat; the user itself not before its return.
      expect(config.last(:online, 8)).to have_attributes(thread: config.last(:offline, 7).thread)
      expect(config.last(:online, 7).began).to be >= config.last(:offline, 7).ended
      expect(manager.online_users).to contain_exactly(7, 8)
    end

    it "the error of another user's online comes out of that user's heartbeat" do
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

  it "may be asked and told anything inside on_error" do
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

  it "may be asked and told anything in a trap handler" do
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

  it "may have its first heartbeat in a trap handler" do
    config = recording(timeout: 0.05)
    manager = start(config)
    expect(in_trap_handler { manager.seen(7) }).to be true

    eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    expect(host).to be_delivers(config.last(:offline))
  end

  it "is named when it keeps the reactor for long" do
    stub_const("OnlineManager::Watchdog::PATIENCE", 0.05)
    hold = gate
    manager = start(recording(offline: ->(id) { hold.pass if id == 7 }))
    manager.seen(8)
    manager.leave(8)
    manager.seen(7)
    manager.leave(7)
    eventually do
      expect(@said.string).to eq "OnlineManager: Conformance::Config#offline has been running for 0.05 s; " \
                                 "nobody else can be set offline before it returns\n"
    end
    said
  end

  it "may be asked and told anything inside setup" do
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
