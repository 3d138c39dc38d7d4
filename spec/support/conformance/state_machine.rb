# frozen_string_literal: true

# One user's way from offline to online and back: the rules about heartbeats, leaves and the callbacks between them.
RSpec.shared_examples "state machine" do
  # A config in whose `online` or `offline` the user 7 is held up until the gate is opened.
  def blocking(method, gate, **options)
    recording(**options, method => ->(id) { gate.pass if id == 7 })
  end

  # Has another thread beat, and waits until it is inside `online`.
  def announce(manager, gate)
    sender = background { manager.seen(7) }
    wait_until { gate.reached? }
    sender
  end

  # Has the reactor call `offline`, and waits until it is inside.
  def depart(manager, gate)
    manager.seen(7)
    manager.leave(7)
    wait_until { gate.reached? }
  end

  describe "a heartbeat before the claim" do
    it "silently keeps a user online whose deadline has passed" do
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

    it "cancels a leave for as long as it is good itself, and no longer" do
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

  describe "while online is being called" do
    it "a heartbeat returns at once, and only moves the deadline" do
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

    it "nobody else is held up" do
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

    it "the deadline does not count yet: it does from the return of online" do
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

    it "a leave is remembered, and due as soon as online returns" do
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

    it "a leave for later counts from when it was asked for" do
      gate = new_gate
      config = blocking(:online, gate)
      manager = start(config)
      announce(manager, gate)
      # Two of them: the sooner counts.
      manager.leave(7, after: 0.02)
      manager.leave(7, after: 60)
      pass_time(0.04)
      expect(config.calls).to eq [[:online, 7]]
      gate.open

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    end

    it "a heartbeat clears an earlier leave" do
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

    it "the beats and leaves of others are lost when it is left by an exception" do
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

  describe "while offline is being called" do
    it "a heartbeat is remembered, and online follows on the reactor as soon as offline has returned" do
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

    it "the deadline of a remembered heartbeat counts from the return of that online" do
      gate = new_gate
      config = blocking(:offline, gate, timeout: 0.1)
      manager = start(config)
      depart(manager, gate)
      manager.seen(7)
      gate.open

      eventually { expect(config.calls_of(7)).to eq %i[online offline online offline] }
      expect(config.last(:offline).began - config.last(:online).ended).to be >= 0.1
    end

    it "the timeout of a remembered heartbeat is heeded" do
      gate = new_gate
      config = blocking(:offline, gate, timeout: 0.02)
      manager = start(config)
      depart(manager, gate)
      manager.seen(7, timeout: 60)
      gate.open

      eventually { expect(manager.online?(7)).to be true }
      throughout(0.1) { expect(config.calls_of(7)).to eq %i[online offline online] }
    end

    it "a leave clears the remembered heartbeat" do
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

    it "heartbeats of others are none of its business" do
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
    it "answers whether the user was online, and offline follows on the reactor" do
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

    it "twice is one offline" do
      config = occupiable
      manager = start(config)
      occupying(manager) do
        manager.seen(7)
        expect([manager.leave(7), manager.leave(7), manager.leave(7, after: 0.01)]).to eq [true] * 3
      end

      throughout(0.05) { expect(config.calls_of(7)).to eq %i[online offline] }
    end

    it "for later moves the deadline to that moment, and to none that is later than it was" do
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

    it "is undone by any later heartbeat, whatever its timeout" do
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
    it "is due once, however often the deadline was moved to and fro" do
      config = recording
      manager = start(config)
      # Each of these moves the deadline forward: it is looked at anew, and the earlier looks do not count.
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

    it "goes when a later heartbeat says so, though an earlier one said later" do
      config = recording
      manager = start(config)
      manager.seen(7, timeout: 60)
      manager.seen(7, timeout: 0.05)
      heartbeat_at = Wait.monotonic

      eventually { expect(config.calls_of(7)).to eq %i[online offline] }
      expect(config.last(:offline).began - heartbeat_at).to be >= 0.04
    end
  end

  describe "with several threads beating" do
    # One beat or leave of one of five users.
    def heartbeat_or_leave(manager)
      id = rand(5)
      case rand(10)
      when 0 then manager.leave(id)
      when 1 then manager.leave(id, after: rand * 0.01)
      when 2 then manager.seen_all([id, rand(5)])
      else manager.seen(id, timeout: rand * 0.01)
      end
    rescue IOError
      nil # one that `online` raised
    ensure
      # Else each thread keeps the others waiting for 100 ms.
      Thread.pass
    end

    # Many of these, on so many threads, until the block is done.
    def with_heartbeats_and_leaves(manager, threads)
      done = false
      senders = Array.new(threads) { background { heartbeat_or_leave(manager) until done } }
      yield
    ensure
      done = true
      senders.each(&:value)
    end

    # @return [Array<String>] what is wrong with a user's calls: they must alternate, and not overlap
    def faults(calls)
      # An `online` that raised came to nothing, and was called while the user was offline all the same.
      expected = :online
      faults = calls.filter_map do |call|
        fault = "#{call.name} instead of #{expected}" unless call.name == expected
        expected = call.name == :online && call.returned ? :offline : :online
        fault
      end
      overlaps = calls.each_cons(2).reject { |one, next_one| one.ended && one.ended <= next_one.began }
      faults + overlaps.map { |one, next_one| "#{next_one.name} within #{one.name}" }
    end

    it "alternates strictly, never overlaps, and the last call tells the truth" do
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
      # The calls of `offline` follow each other, whoever they are for.
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
