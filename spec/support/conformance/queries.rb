# frozen_string_literal: true

# The queries of a manager.
RSpec.shared_examples "queries" do
  # @return [Array] the answers about one user, who is the only one
  def known(manager, id)
    [manager.online?(id), manager.online_users, manager.size, !manager.last_seen(id).nil?]
  end

  it "return that nobody is online at first" do
    manager = start
    expect(known(manager, 7)).to eq [false, [], 0, false]
  end

  it "count a user from the call of online to the call of offline" do
    inside = {}
    manager = nil
    config = recording(online: ->(id) { inside[:online] = known(manager, id) },
                       offline: ->(id) { inside[:offline] = known(manager, id) })
    manager = start(config)
    manager.seen(7)
    expect(known(manager, 7)).to eq [true, [7], 1, true]
    manager.leave(7)

    eventually { expect(inside).to eq(online: [true, [7], 1, true], offline: [false, [], 0, false]) }
    settle(manager)
    expect(known(manager, 7)).to eq [false, [], 0, false]
  end

  it "count a user who is due for offline" do
    config = occupiable
    manager = start(config)
    occupying(manager) do
      manager.seen(7)
      manager.leave(7)
      expect(known(manager, 7)).to eq [true, [7], 1, true]
    end
  end

  describe "last_seen" do
    def approximately(time) = be_within(0.03).of(time)

    it "is the time of the last heartbeat" do
      manager = start
      first = Time.now
      manager.seen(7)
      expect(manager.last_seen(7)).to be_a(Time).and approximately(first)
      pass_time(0.1)
      expect(manager.last_seen(7)).to approximately(first)

      second = Time.now
      manager.seen(7)
      expect(manager.last_seen(7)).to approximately(second)
      expect(second - first).to be > 0.06
    end

    it "does not change with leave, nor with the timeout" do
      config = recording
      manager = start(config)
      ids = [1, 2, 3, 4]
      seen = Time.now
      manager.seen_all([1, 2])
      manager.seen(3, timeout: 1e300)
      manager.seen(4, timeout: 600)
      pass_time(0.1)
      expect(manager.leave(2, after: 5)).to be true
      expect(manager.leave(3, after: 5)).to be true
      config.timeout = 600
      pass_time(0.02)
      manager.seen(5)

      expect(ids.map { |id| manager.last_seen(id) }).to all approximately(seen)
    end

    it "counts heartbeats while online runs and not its return" do
      gate = new_gate
      manager = start(recording(online: ->(_) { gate.pass }))
      first = Time.now
      sender = background { manager.seen(7) }
      wait_until { gate.reached? }
      expect(manager.last_seen(7)).to approximately(first)
      pass_time(0.1)
      second = Time.now
      manager.seen(7)
      expect(manager.last_seen(7)).to approximately(second)
      pass_time(0.1)
      gate.open
      sender.value

      expect(manager.last_seen(7)).to approximately(second)
    end
  end

  describe "stats" do
    it "contain the state, the reactor, the store and the namespace" do
      manager = OnlineManager.new(recording, reactor:, namespace: :chat)
      expect(manager.stats).to include(state: :new, reactor:, store: :memory, namespace: "chat")
      host.call { manager.setup }
      expect(manager.stats).to include(state: :running, reactor:)
      manager.stop
      expect(manager.stats).to include(state: :stopped, reactor:)
    end

    it "count the users in each state and show what the reactor is doing" do
      departing = new_gate
      announcing = new_gate
      config = recording(online: ->(id) { announcing.pass if id == 2 }, offline: ->(id) { departing.pass if id == 1 })
      manager = start(config)
      manager.seen_all([1, 3, 4])
      manager.leave(1)
      background { manager.seen(2) }
      wait_until { departing.reached? && announcing.reached? }
      manager.leave(3)
      pass_time(0.02)

      expect(manager.stats).to include(online: 3, announcing: 1, departing: 1, due: 1, delivering: :offline)
      expect(manager.stats[:delivering_for]).to be_between(0.02, 5)
      background { manager.stop }
      eventually { expect(manager.stats[:state]).to be :stopping }
      [departing, announcing].each(&:open)
      eventually { expect(manager.stats[:state]).to be :stopped }
      expect(manager.stats).to include(online: 0, announcing: 0, departing: 0, due: 0, errors: 0, delivering: nil,
                                       delivering_for: nil, internal_errors: 0)
    end

    it "count the errors of callbacks on the reactor" do
      manager = start(recording(offline: ->(_) { raise IOError }, on_error: ->(*) {}))
      3.times { |id| manager.seen(id) && manager.leave(id) }

      eventually { expect(manager.stats).to include(errors: 3) }
    end
  end

  it "appear in inspect" do
    config = recording
    manager = start(config)
    manager.seen(7)

    expect(manager.inspect).to eq "#<OnlineManager Conformance::Config running, 1 online>"
  end

  it "return after a stop that nobody is online" do
    manager = start
    manager.seen(7)
    manager.stop

    expect(known(manager, 7)).to eq [false, [], 0, false]
    expect(manager.leave(7)).to be false
    expect(manager.inspect).to eq "#<OnlineManager Conformance::Config stopped, 0 online>"
  end
end
