# frozen_string_literal: true

# The keyword `last_seen:` of callbacks, for a manager without a store. For stores, see spec/store/last_seen_spec.rb.
RSpec.describe "The keyword last_seen:" do
  # Records each call with its time: [transition, id, last_seen, called_at].
  let(:config) do
    Class.new do
      attr_reader :calls, :hook

      def initialize(timeout: 60, &hook)
        @timeout = timeout
        @hook = hook
        @calls = Queue.new
      end

      attr_reader :timeout

      def setup; end
      def online(id, last_seen:) = note(:online, id, last_seen)
      def offline(id, last_seen: nil) = note(:offline, id, last_seen)

      def note(transition, id, last_seen)
        @calls << [transition, id, last_seen, Time.now]
        @hook&.call(transition, id)
      end
    end
  end

  let(:together) do
    Class.new(config) do
      def online_all(ids, version:, last_seen:) = note(:online_all, ids, [last_seen, version.size])
      def offline_all(ids, last_seen:) = note(:offline_all, ids, last_seen)
    end
  end

  # Heartbeats of the same user are not further apart than what separates two clocks, or two lines of a busy machine.
  let(:tolerance) { 0.1 }

  after { @managers&.each { |manager| manager.stop(timeout: 5) } }

  def manager(config)
    (@managers ||= []) << OnlineManager.new(config, reactor: :thread).tap(&:setup)
    @managers.last
  end

  # Lets time pass in which nobody is called.
  def pass(config, seconds)
    throughout(seconds) { expect(config.calls).to be_empty }
  end

  # Waits for the next call.
  def next_call(config, limit: 5)
    wait_until(limit:) { !config.calls.empty? }
    config.calls.pop
  end

  def expect_time(last_seen, expected)
    expect(last_seen).to be_a(Time)
    expect(last_seen).to be_within(tolerance).of(expected)
  end

  it "is the time of the heartbeat for online, and of the last heartbeat for offline by timeout" do
    calling = config.new(timeout: 0.6)
    manager = manager(calling)
    first = Time.now
    manager.seen(7)
    expect_time(next_call(calling)[2], first)
    pass(calling, 0.3)
    last = Time.now
    manager.seen(7)

    transition, _, last_seen, called_at = next_call(calling)
    expect(transition).to eq :offline
    expect_time(last_seen, last)
    expect(called_at - last_seen).to be >= 0.6 - 0.01
  end

  it "is the time of the last heartbeat after a leave, and at a stop" do
    calling = config.new
    manager = manager(calling)
    came = Time.now
    manager.seen_all([7, 8])
    2.times { next_call(calling) }
    pass(calling, 0.4)
    manager.leave(7)
    transition, id, last_seen = next_call(calling)
    expect([transition, id]).to eq [:offline, 7]
    expect_time(last_seen, came)

    manager.stop
    transition, id, last_seen = next_call(calling)
    expect([transition, id]).to eq [:offline, 8]
    expect_time(last_seen, came)
  end

  it "is the time of the heartbeat for an online that has waited for others of the same seen_all" do
    calling = config.new { throughout(0.3) { nil } }
    came = Time.now
    manager(calling).seen_all([7, 8])

    calls = Array.new(2) { next_call(calling) }
    expect(calls.last[3] - came).to be >= 0.3
    calls.each { |call| expect_time(call[2], came) }
  end

  it "is the time of the heartbeat that came during offline, for the online that follows" do
    returning = nil
    calling = config.new do |transition, _|
      next unless transition == :offline && calling.calls.size == 2

      returning.seen(7)
      throughout(0.4) { nil }
    end
    returning = manager(calling)
    returning.seen(7)
    returning.leave(7)

    wait_until { calling.calls.size == 3 }
    calls = Array.new(3) { calling.calls.pop }
    expect(calls.map(&:first)).to eq %i[online offline online]
    expect_time(calls.last[2], calls[1][3])
    expect(calls.last[3] - calls[1][3]).to be >= 0.3
  end

  it "is the time of the heartbeat when a stop comes during online" do
    stopping = nil
    calling = config.new do |transition, _|
      next unless transition == :online

      throughout(0.3) { nil }
      stopping.stop
    end
    stopping = manager(calling)
    came = Time.now
    stopping.seen(7)

    calls = Array.new(2) { next_call(calling) }
    expect(calls.map(&:first)).to eq %i[online offline]
    expect_time(calls.last[2], came)
    expect(calls.last[3] - came).to be >= 0.3
  end

  it "is an Array for the `_all` forms, in the order of the users" do
    calling = together.new
    manager = manager(calling)
    came = Time.now
    manager.seen_all([7, 8, 9])
    _, ids, (last_seen, versions) = next_call(calling)
    expect([ids, last_seen.size, versions]).to eq [[7, 8, 9], 3, 3]
    last_seen.each { |time| expect_time(time, came) }
    pass(calling, 0.4)
    again = Time.now
    manager.seen(8)
    manager.stop

    _, ids, last_seen = next_call(calling)
    expect(ids.sort).to eq [7, 8, 9]
    ids.zip(last_seen) { |id, time| expect_time(time, id == 8 ? again : came) }
  end

  it "does not move with the time that a framework takes before the call" do
    before = OnlineManager::Integration.current
    slow = before.class.new
    allow(slow).to receive(:around_delivery) { |&call| throughout(0.4) { nil } || call.call }
    calling = config.new
    manager = manager(calling)
    came = Time.now
    manager.seen(7)
    next_call(calling)
    OnlineManager::Integration.current = slow
    manager.leave(7)
    _, _, last_seen, called_at = next_call(calling)
    expect_time(last_seen, came)
    expect(called_at - came).to be >= 0.4
  ensure
    OnlineManager::Integration.current = before
  end

  it "is given to a callback that declares it after a reload of the config" do
    plain = Class.new do
      def timeout = 60
      def setup; end
      def online(_) = nil
      def offline(_) = nil
    end
    calling = config.new
    loaded = [plain.new, calling]
    manager = manager(-> { loaded.size > 1 ? loaded.shift : loaded.first })
    allow(OnlineManager::Integration.current).to receive(:warn)
    came = Time.now
    manager.seen(7)
    manager.invalidate_config
    manager.leave(7)

    transition, _, last_seen = next_call(calling)
    expect(transition).to eq :offline
    expect_time(last_seen, came)
    expect(OnlineManager::Integration.current).not_to have_received(:warn)
  end
end
