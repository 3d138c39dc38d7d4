# frozen_string_literal: true

Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# The keyword `last_seen:` of callbacks, with a store. Without one, see spec/last_seen_spec.rb.
[Stores::Sqlite, Stores::Redis, *Stores::Valkey.if_installed].each do |kind|
  RSpec.describe "The keyword last_seen: with #{kind}" do
    let(:config) do
      Class.new do
        attr_reader :calls, :timeout

        def initialize(timeout: 60, failures: 0)
          @timeout = timeout
          @failures = failures
          @calls = Queue.new
        end

        def setup; end
        def online(id, last_seen:) = note(:online, id, last_seen)
        def offline(id, version:, last_seen:) = version && note(:offline, id, last_seen)
        def on_error(*) = nil

        def note(transition, id, last_seen)
          raise "no database" if transition == :offline && (@failures -= 1) >= 0

          @calls << [transition, id, last_seen, Time.now]
        end
      end
    end

    let(:together) do
      Class.new(config) do
        def online_all(ids, last_seen:) = ids.zip(last_seen) { |id, time| note(:online, id, time) }
        def offline_all(ids, last_seen:) = ids.zip(last_seen) { |id, time| note(:offline, id, time) }
      end
    end

    # A store keeps milliseconds, and the clock of heartbeats has steps of 4 ms. A busy machine takes longer than that
    # from one line to the next.
    let(:tolerance) { 0.15 }
    let(:store) { kind.new }

    after do
      @managers&.each { |manager| manager.stop(timeout: 5) }
      store.remove
    end

    def manager(config)
      (@managers ||= []) << OnlineManager.new(config, reactor: :thread, **store.options).tap(&:setup)
      @managers.last
    end

    # Lets time pass in which nobody is called.
    def pass(config, seconds)
      throughout(seconds) { expect(config.calls).to be_empty }
    end

    # Waits for the next call.
    def next_call(*configs)
      wait_until(limit: 10) { configs.any? { |config| !config.calls.empty? } }
      configs.find { |config| !config.calls.empty? }.calls.pop
    end

    def expect_call(call, transition, id, last_seen)
      expect(call.first(2)).to eq [transition, id]
      expect(call[2]).to be_a(Time)
      expect(call[2]).to be_within(tolerance).of(last_seen)
    end

    it "is the time of the heartbeat for online, and of the last heartbeat for offline by timeout" do
      calling = config.new(timeout: 1)
      manager = manager(calling)
      first = Time.now
      manager.seen("ann")
      expect_call(next_call(calling), :online, "ann", first)
      pass(calling, 0.6)
      last = Time.now
      manager.seen("ann")

      call = next_call(calling)
      expect_call(call, :offline, "ann", last)
      expect(call[3] - call[2]).to be >= 0.98
    end

    it "is the time of the last heartbeat after a leave, also when the callback is retried" do
      calling = config.new(failures: 1)
      manager = manager(calling)
      came = Time.now
      manager.seen("ann")
      next_call(calling)
      pass(calling, 0.3)
      manager.leave("ann")

      call = next_call(calling)
      expect_call(call, :offline, "ann", came)
      expect(call[3] - came).to be >= 1.0
    end

    it "is the time of the last heartbeat when another member delivers the event" do
      calling = config.new(failures: 1_000)
      manager = manager(calling)
      came = Time.now
      manager.seen_all(%w[ann ben])
      2.times { next_call(calling) }
      pass(calling, 0.3)
      manager.leave("ann")
      wait_until { manager.stats[:retries].positive? }
      manager.stop
      heir = config.new
      manager(heir).start

      call = next_call(heir)
      expect_call(call, :offline, "ann", came)
      expect(call[3] - came).to be >= 0.2
    end

    it "is an Array for the `_all` forms, in the order of the users" do
      calling = together.new
      manager = manager(calling)
      came = Time.now
      manager.seen_all(%w[ann ben cyd])
      calls = Array.new(3) { next_call(calling) }
      calls.each { |call| expect_call(call, :online, call[1], came) }
      pass(calling, 0.4)
      again = Time.now
      manager.seen("ben")
      %w[ann ben cyd].each { |id| manager.leave(id) }

      calls = Array.new(3) { next_call(calling) }
      expect(calls.map { |call| call[1] }).to match_array %w[ann ben cyd]
      calls.each { |call| expect_call(call, :offline, call[1], call[1] == "ben" ? again : came) }
    end
  end
end
