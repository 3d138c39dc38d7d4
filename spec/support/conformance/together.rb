# frozen_string_literal: true

# Many users at once.
RSpec.shared_examples "together" do
  describe "seen_all" do
    it "is a heartbeat of each user" do
      config = recording(timeout: 0.1)
      manager = start(config)
      expect(manager.seen_all([1, "1", [1]])).to be true
      expect(config.calls).to eq [[:online, 1], [:online, "1"], [:online, [1]]]
      expect(manager.seen_all([1, 2, 2, 3], timeout: 60)).to be true
      expect(config.calls.drop(3)).to eq [[:online, 2], [:online, 3]]

      eventually { expect(manager.online_users).to contain_exactly(1, 2, 3) }
    end

    it "takes any Enumerable, even an empty one" do
      config = recording
      manager = start(config)

      array_like = Object.new
      array_like.define_singleton_method(:to_ary) { [5] }
      expect([[], 1..2, Set[3], [4].each, array_like].map { |ids| manager.seen_all(ids) }).to eq [true] * 5
      expect(config.calls).to eq [[:online, 1], [:online, 2], [:online, 3], [:online, 4], [:online, 5]]
    end

    it "counts all heartbeats before the first callback" do
      manager = nil
      sizes = []
      config = recording(online: ->(_) { sizes << manager.size })
      manager = start(config)
      manager.seen_all([1, 2, 3])

      expect(sizes).to eq [3, 3, 3]
    end

    it "leaves the remaining new users offline when an online raises" do
      config = recording(online: ->(id) { raise IOError if id == 2 })
      manager = start(config)
      manager.seen(4)

      expect { manager.seen_all([1, 2, 3, 4]) }.to raise_error(IOError)
      expect(config.calls).to eq [[:online, 4], [:online, 1], [:online, 2]]
      expect(manager.online_users).to contain_exactly(1, 4)
      expect(manager.seen(3)).to be true
      expect(config.calls.last).to eq [:online, 3]
    end
  end

  describe "online_all" do
    it "gets all new users of one seen_all, even a single one, and online gets none of them" do
      config = recording(online_all: ->(_) {})
      manager = start(config)
      manager.seen(2)
      manager.seen_all([1, 2, 3, 3])
      manager.seen_all([4, 1])
      manager.seen_all([1, 2])

      expect(config.calls).to eq [[:online, 2], [:online_all, [1, 3]], [:online_all, [4]]]
      expect(config.last(:online_all).thread).to be Thread.current
      expect(manager.online_users).to contain_exactly(1, 2, 3, 4)
    end

    it "makes all of them Announcing: heartbeats only move deadlines, and the first counts from its return" do
      gate = new_gate
      config = recording(timeout: 0.1, online_all: ->(_) { gate.pass })
      manager = start(config)
      sender = background { manager.seen_all([1, 2, 3]) }
      wait_until { gate.reached? }
      manager.seen(1, timeout: 60)
      manager.leave(2)
      pass_time(0.12)
      expect(manager.size).to eq 3
      gate.open
      sender.value

      eventually { expect(config.calls).to eq [[:online_all, [1, 2, 3]], [:offline, 2], [:offline, 3]] }
      expect(config.last(:offline, 3).began - config.last(:online_all).ended).to be >= 0.1
    end

    it "that raises passes its error to seen_all and leaves all of them offline" do
      errors = [IOError.new]
      config = recording(online_all: ->(_) { error = errors.shift and raise error })
      manager = start(config)
      manager.seen(3)

      expect { manager.seen_all([1, 2, 3]) }.to raise_error(IOError)
      expect(manager.online_users).to eq [3]
      expect(manager.seen_all([1, 2])).to be true
      expect(config.calls).to eq [[:online, 3], [:online_all, [1, 2]], [:online_all, [1, 2]]]
    end

    it "may change its Array" do
      config = recording(online_all: lambda(&:clear))
      manager = start(config)
      manager.seen_all([1, 2])

      expect(manager.online_users).to contain_exactly(1, 2)
    end

    it "that still runs at a stop has each of its users set offline by its thread" do
      gate = new_gate
      config = recording(online_all: ->(_) { gate.pass })
      manager = start(config)
      sender = background { manager.seen_all([1, 2]) }
      wait_until { gate.reached? }
      expect(manager.stop).to eq 2
      gate.open
      sender.value

      expect(config.calls).to eq [[:online_all, [1, 2]], [:offline, 1], [:offline, 2]]
      expect(config.last(:offline).thread).to be sender.thread
    end
  end

  describe "offline_all" do
    # @return [Array<Array>] the ids of each call
    def departed(config)
      config.transitions.select { |call| call.name == :offline_all }.map { |call| call.args.first }
    end

    it "gets every expiry, even of a single user, on the reactor, and offline gets none" do
      config = recording(offline_all: ->(_) {})
      manager = start(config)
      manager.seen(7, timeout: 0.02)

      eventually { expect(config.calls).to eq [[:online, 7], [:offline_all, [7]]] }
      expect(host).to be_delivers(config.last(:offline_all))
    end

    it "gets all users who are due together" do
      gate = new_gate
      config = recording(offline_all: ->(ids) { gate.pass if ids == [:first] })
      manager = start(config)
      manager.seen_all([:first, *1..1_500])
      manager.leave(:first)
      wait_until { gate.reached? }
      (1..1_500).each { |id| manager.leave(id) }
      manager.seen(7)
      gate.open

      eventually { expect(manager.online_users).to eq [7] }
      settle(manager)
      _, *others = departed(config)
      expect(others.flatten).to match_array((1..1_500).to_a - [7])
      expect(others.size).to eq 2
      expect(others.flatten.uniq.size).to eq 1_499
    end

    it "gets the remaining users at a stop" do
      config = recording(offline_all: ->(_) {})
      manager = start(config)
      manager.seen_all((1..10).to_a)
      manager.stop

      expect(departed(config)).to contain_exactly(match_array(1..10))
      expect(config.last(:offline)).to be_nil
    end

    it "makes all of them Departing: heartbeats are remembered, and online follows" do
      # Another user leaves first and blocks the reactor, so that all three are in one call.
      gates = [ahead = new_gate, gate = new_gate]
      config = recording(offline_all: ->(_) { gates.shift&.pass }, online_all: ->(_) {})
      manager = start(config)
      manager.seen_all([0, 1, 2, 3])
      manager.leave(0)
      wait_until { ahead.reached? }
      [1, 2, 3].each { |id| manager.leave(id) }
      ahead.open
      wait_until { gate.reached? }
      expect(departed(config).last).to contain_exactly(1, 2, 3)
      manager.seen_all([1, 2, 3])
      manager.leave(2)
      gate.open

      eventually { expect(manager.online_users).to include(1, 3) }
      settle(manager)
      expect(config.transitions.last.name).to be :online
    end

    it "that raises is reported to on_error with all of its ids, and they are offline" do
      config = recording(offline_all: ->(_) { raise IOError }, on_error: ->(*) {})
      manager = start(config)
      manager.seen(1)
      manager.leave(1)

      eventually { expect(config.last(:on_error)&.args).to match [IOError, [1]] }
      settle(manager)
      expect(manager.size).to eq 0
      expect(manager.seen(1)).to be true
    end
  end
end
