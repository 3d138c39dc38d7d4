# frozen_string_literal: true

# One user's way from offline to online and back: the rules for heartbeats, leaves and the callbacks.
RSpec.shared_examples "state machine" do
  # A config whose `online` or `offline` blocks for user 7 until the gate is opened.
  def blocking(method, gate, **options)
    recording(**options, method => ->(id) { gate.pass if id == 7 })
  end

  # Sends a heartbeat on another thread, and waits until it is inside `online`.
  def announce(manager, gate)
    sender = background { manager.seen(7) }
    wait_until { gate.reached? }
    sender
  end

  # Lets user 7 leave, and waits until the reactor is inside `offline`.
  def depart(manager, gate)
    manager.seen(7)
    manager.leave(7)
    wait_until { gate.reached? }
  end

  describe "a heartbeat before the claim" do
    it "keeps a user online without a callback when the deadline has passed" do
      config = occupiable
      manager = start(config)
      occupying(manager) do
        manager.seen(7, timeout: 0.02)
        wait_until { manager.stats[:due] == 1 }
        expect(manager.online?(7)).to be true
        expect(manager.seen(7)).to be true
      end

      expect(config.calls_of(7)).to eq [:online]
      expect(manager.online?(7)).to be true
    end

    it "cancels a leave" do
      config = occupiable
      manager = start(config)
      occupying(manager) do
        manager.seen(7)
        expect(manager.leave(7)).to be true
        expect(manager.stats[:due]).to eq 1
        manager.seen(7)
      end
      manager.seen(8)
      manager.leave(8, after: 0.05)
      manager.seen(8)

      throughout(0.1) { expect([config.calls_of(7), config.calls_of(8)]).to eq [[:online]] * 2 }
    end

    it "cancels a leave and counts for its own timeout only" do
      config = occupiable
      manager = start(config)
      heartbeat_at = nil
      occupying(manager) do
        manager.seen(7)
        manager.leave(7)
        heartbeat_at = Wait.monotonic
        manager.seen(7, timeout: 0.1)
      end

      eventually { expect(config.calls_of(7)).to eq %i[online offline] }
      expect(config.last(:offline).began - heartbeat_at).to be >= 0.1
    end
  end

  describe "while online runs" do
    it "lets a heartbeat return at once and only move the deadline" do
      gate = new_gate
      config = blocking(:online, gate, timeout: 0.02)
      manager = start(config)
      sender = announce(manager, gate)
      expect(manager.seen(7)).to be true
      expect(manager.seen(7, timeout: 60)).to be true
      expect(config.calls).to eq [[:online, 7]]
      gate.open

      expect(sender.value).to be true
      throughout(0.1) { expect(config.calls).to eq [[:online, 7]] }
    end

    it "blocks nobody else" do
      gate = new_gate
      config = blocking(:online, gate)
      manager = start(config)
      announce(manager, gate)
      manager.seen(8)
      manager.leave(8)

      eventually { expect(config.calls_of(8)).to eq %i[online offline] }
      expect(config.calls_of(7)).to eq [:online]
      expect(config.last(:online, 7).ended).to be_nil
    end

    it "counts the deadline from the return of online" do
      gate = new_gate
      config = blocking(:online, gate, timeout: 0.1)
      manager = start(config)
      announce(manager, gate)
      throughout(0.15) { expect(config.calls).to eq [[:online, 7]] }
      gate.open

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      online, offline = config.transitions
      expect(offline.began - online.ended).to be >= 0.1
    end

    it "remembers a leave and makes the user due when online returns" do
      gate = new_gate
      config = blocking(:online, gate)
      manager = start(config)
      announce(manager, gate)
      expect(manager.leave(7)).to be true
      throughout(0.05) { expect(config.calls).to eq [[:online, 7]] }
      gate.open

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(config.last(:offline).began).to be >= config.last(:online).ended
    end

    it "counts the delay of a leave from the call of leave" do
      gate = new_gate
      config = blocking(:online, gate)
      manager = start(config)
      announce(manager, gate)
      # Two leaves: the earlier one counts.
      manager.leave(7, after: 0.02)
      manager.leave(7, after: 60)
      pass_time(0.04)
      expect(config.calls).to eq [[:online, 7]]
      gate.open

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    end

    it "lets a heartbeat cancel an earlier leave" do
      gate = new_gate
      config = blocking(:online, gate)
      manager = start(config)
      sender = announce(manager, gate)
      manager.leave(7)
      manager.seen(7)
      gate.open
      sender.value

      throughout(0.05) { expect(config.calls).to eq [[:online, 7]] }
    end

    it "drops other heartbeats and leaves of the user when online raises" do
      gate = new_gate
      config = recording(online: lambda { |_|
        gate.pass
        raise IOError
      })
      manager = start(config)
      sender = announce(manager, gate)
      manager.seen(7)
      manager.leave(7, after: 60)
      gate.open

      expect { sender.value }.to raise_error(IOError)
      settle(manager)
      expect(config.calls).to eq [[:online, 7]]
      expect(manager.online?(7)).to be false
    end
  end

  describe "while offline runs" do
    it "remembers a heartbeat and calls online on the reactor when offline has returned" do
      gate = new_gate
      config = blocking(:offline, gate)
      manager = start(config)
      depart(manager, gate)
      expect([manager.seen(7), manager.seen(7)]).to eq [true, true]
      expect([manager.online?(7), manager.size, manager.last_seen(7)]).to eq [false, 0, nil]
      throughout(0.05) { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      gate.open

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7], [:online, 7]] }
      again = config.last(:online)
      expect(again.began).to be >= config.last(:offline).ended
      expect(host).to be_delivers(again)
      settle(manager)
      expect(manager.online_users).to eq [7]
    end

    it "counts the deadline of a remembered heartbeat from the return of that online" do
      gate = new_gate
      config = blocking(:offline, gate, timeout: 0.1)
      manager = start(config)
      depart(manager, gate)
      manager.seen(7)
      gate.open

      eventually { expect(config.calls_of(7)).to eq %i[online offline online offline] }
      expect(config.last(:offline).began - config.last(:online).ended).to be >= 0.1
    end

    it "uses the timeout of a remembered heartbeat" do
      gate = new_gate
      config = blocking(:offline, gate, timeout: 0.02)
      manager = start(config)
      depart(manager, gate)
      manager.seen(7, timeout: 60)
      gate.open

      eventually { expect(manager.online?(7)).to be true }
      throughout(0.1) { expect(config.calls_of(7)).to eq %i[online offline online] }
    end

    it "lets a leave cancel the remembered heartbeat" do
      gate = new_gate
      config = blocking(:offline, gate)
      manager = start(config)
      depart(manager, gate)
      manager.seen(7)
      expect(manager.leave(7)).to be false
      gate.open
      settle(manager)

      throughout(0.05) { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    end

    it "does not affect heartbeats of others" do
      gate = new_gate
      config = blocking(:offline, gate)
      manager = start(config)
      depart(manager, gate)
      expect(manager.seen(8)).to be true

      expect(config.calls).to eq [[:online, 7], [:offline, 7], [:online, 8]]
      expect(config.last(:online).thread).to be Thread.current
    end
  end

  describe "leave" do
    it "returns whether the user was online, and offline follows on the reactor" do
      config = recording
      manager = start(config)
      expect(manager.leave(7)).to be false
      manager.seen(7)
      expect(manager.leave(7)).to be true

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(host).to be_delivers(config.last(:offline))
      settle(manager)
      expect(manager.leave(7)).to be false
      expect(config.calls.size).to eq 2
    end

    it "causes one offline when it is called twice" do
      config = occupiable
      manager = start(config)
      occupying(manager) do
        manager.seen(7)
        expect([manager.leave(7), manager.leave(7), manager.leave(7, after: 0.01)]).to eq [true] * 3
      end

      throughout(0.05) { expect(config.calls_of(7)).to eq %i[online offline] }
    end

    it "with a delay moves the deadline to an earlier moment and never to a later one" do
      config = recording
      manager = start(config)
      manager.seen(7)
      manager.seen(8, timeout: 0.05)
      asked = Wait.monotonic
      expect(manager.leave(7, after: 0.1)).to be true
      expect(manager.leave(8, after: 60)).to be true
      expect(manager.leave(7, after: 60)).to be true
      expect(manager.online?(7)).to be true

      eventually { expect(config.calls.last(2)).to eq [[:offline, 8], [:offline, 7]] }
      expect(config.last(:offline, 7).began - asked).to be >= 0.1
    end

    it "is cancelled by any later heartbeat, whatever its timeout" do
      config = recording
      manager = start(config)
      manager.seen(7)
      manager.leave(7, after: 0.02)
      manager.seen(7, timeout: 0.15)
      heartbeat_at = Wait.monotonic

      eventually { expect(config.calls_of(7)).to eq %i[online offline] }
      expect(config.last(:offline, 7).began - heartbeat_at).to be >= 0.1
    end
  end

  describe "a user" do
    it "is due once, however often the deadline was moved" do
      config = recording
      manager = start(config)
      # Each of these moves the deadline forward: it is scheduled again, and the earlier wheel entries do not count.
      [60, 30, 0.06, 0.05, 0.04].each { |timeout| manager.seen(7, timeout:) }
      manager.seen(8, timeout: 0.03)
      manager.leave(8, after: 0.02)
      manager.seen(8, timeout: 0.05)
      manager.leave(8, after: 0.01)

      eventually { expect(manager.size).to eq 0 }
      settle(manager)
      manager.seen_all([7, 8])
      throughout(0.1) { expect([7, 8].map { |id| config.calls_of(id) }).to eq [%i[online offline online]] * 2 }
    end

    it "goes offline by the deadline of the last heartbeat though an earlier one had a later deadline" do
      config = recording
      manager = start(config)
      manager.seen(7, timeout: 60)
      manager.seen(7, timeout: 0.05)
      heartbeat_at = Wait.monotonic

      eventually { expect(config.calls_of(7)).to eq %i[online offline] }
      expect(config.last(:offline).began - heartbeat_at).to be >= 0.04
    end
  end

  describe "with several threads that send heartbeats" do
    # Sends a heartbeat or a leave of one of five users.
    def heartbeat_or_leave(manager)
      id = rand(5)
      case rand(10)
      when 0 then manager.leave(id)
      when 1 then manager.leave(id, after: rand * 0.01)
      when 2 then manager.seen_all([id, rand(5)])
      else manager.seen(id, timeout: rand * 0.01)
      end
    rescue IOError
      nil # raised by `online`
    ensure
      # Without it, each thread keeps the others waiting for 100 ms.
      Thread.pass
    end

    # Runs heartbeats and leaves on a number of threads until the block returns.
    def with_heartbeats_and_leaves(manager, threads)
      done = false
      senders = Array.new(threads) { background { heartbeat_or_leave(manager) until done } }
      yield
    ensure
      done = true
      senders.each(&:value)
    end

    # @return [Array<String>] the faults in a user's calls, which must alternate and not overlap
    def faults(calls)
      # An `online` that raised has no effect, but was rightly called while the user was offline.
      expected = :online
      faults = calls.filter_map do |call|
        fault = "#{call.name} instead of #{expected}" unless call.name == expected
        expected = call.name == :online && call.returned ? :offline : :online
        fault
      end
      overlaps = calls.each_cons(2).reject { |one, next_one| one.ended && one.ended <= next_one.began }
      faults + overlaps.map { |one, next_one| "#{next_one.name} within #{one.name}" }
    end

    it "alternates strictly, never overlaps, and ends with a call that agrees with the manager" do
      oops = ->(_) { Thread.pass && rand(10).zero? && raise(IOError) }
      config = recording(timeout: 0.005, online: oops, offline: ->(_) { Thread.pass }, on_error: ->(*) {})
      manager = start(config)
      with_heartbeats_and_leaves(manager, 4) { wait_until(limit: 20) { config.transitions.size > 300 } }
      [0, 1].each do |id|
        manager.seen(id, timeout: 60)
      rescue IOError
        retry
      end
      eventually { expect(manager.online_users).to contain_exactly(0, 1) }
      settle(manager)
      calls = config.transitions.reject { |call| call.name == :on_error }
      expect(calls.group_by { |call| call.args.first }.values.flat_map { |of_one| faults(of_one) }).to eq []
      expect((0..4).map { |id| calls.select { |call| call.args == [id] && call.returned }.last.name })
        .to eq %i[online online offline offline offline]
      # The calls of `offline` follow each other, no matter which users they are for.
      offline = calls.select { |call| call.name == :offline }
      expect(offline.each_cons(2).reject { |one, next_one| one.ended <= next_one.began }).to be_empty
    end

    it "sets each user offline exactly once when it is stopped in the middle of it" do
      config = recording(timeout: 0.005, online: ->(_) { Thread.pass }, offline: ->(_) { Thread.pass })
      manager = start(config)
      with_heartbeats_and_leaves(manager, 4) do
        wait_until(limit: 20) { config.transitions.size > 100 }
        manager.stop
      end

      expect(manager.size).to eq 0
      calls = config.transitions.group_by { |call| call.args.first }
      expect(calls.values.flat_map { |of_one| faults(of_one) }).to eq []
      expect(calls.values.map { |of_one| of_one.last.name }).to all be :offline
    end
  end
end
