# frozen_string_literal: true

# The arguments of callbacks, for a manager without a store. For stores, see spec/store.
RSpec.describe OnlineManager::Call do
  let(:config) do
    Class.new do
      attr_reader :calls

      def timeout = 60
      def setup = @calls = Queue.new
      def online(id, version:) = @calls << [:online, id, version]
      def offline(id, version: nil) = @calls << [:offline, id, version]
    end.new
  end
  let(:manager) { OnlineManager.new(config, reactor: :thread) }

  before { manager.setup }

  after { manager.stop(timeout: 5) }

  def micros = Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond)

  # @return [Array<Array>] the next calls
  def calls(count)
    wait_until { config.calls.size >= count }
    Array.new(count) { config.calls.pop }
  end

  it "gives a callback that asks for it a version above all earlier ones and not below the wall clock" do
    began = micros
    3.times do
      manager.seen(7)
      manager.leave(7)
      wait_until { manager.stats.values_at(:online, :departing) == [0, 0] }
    end

    versions = calls(6).map(&:last)
    expect(versions).to eq versions.sort.uniq
    expect(versions).to all be_between(began, micros)
  end

  it "gives each user of an `_all` callback a separate version, in the same order" do
    together = Class.new(config.class) do
      def online_all(ids, version:) = @calls << [:online_all, ids, version]
      def offline_all(ids) = @calls << [:offline_all, ids]
    end.new
    manager = OnlineManager.new(together, reactor: :thread)
    manager.setup
    manager.seen_all([7, 8, 9])
    manager.stop

    (_, ids, versions), (*offline, left) = Array.new(2) { together.calls.pop }
    expect([ids, versions.size]).to eq [[7, 8, 9], 3]
    expect(versions).to eq versions.sort.uniq
    expect([offline, left.sort]).to eq [[:offline_all], [7, 8, 9]]
  end

  it "continues above the last version when the wall clock is set back" do
    later = micros + 3_600_000_000
    allow(Process).to receive(:clock_gettime).and_wrap_original do |original, clock, *unit|
      clock == Process::CLOCK_REALTIME ? later : original.call(clock, *unit)
    end
    first = described_class.next_version
    later -= 60_000_000

    expect(Array.new(2) { described_class.next_version }).to eq [first + 1, first + 2]
  ensure
    described_class.instance_variable_set(:@version, 0)
  end
end
