# frozen_string_literal: true

require "socket"
require "tmpdir"
Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# What an operator sees of a store that works, and of one that is away.
RSpec.describe "A manager with a shared store" do
  let(:config) do
    Class.new do
      attr_accessor :timeout
      attr_reader :errors

      def initialize(timeout)
        @timeout = timeout
        @errors = Queue.new
        @gate = Queue.new
      end

      def setup; end
      def online(user_id) = user_id == "held" && @gate.pop
      def offline(_user_id) = nil
      def on_error(error, user_id) = @errors << [error, user_id]
      def release = @gate.close
    end.new(60)
  end

  after do
    config.release
    @managers&.each { |manager| manager.stop(timeout: 10) }
    @store&.remove
  end

  def manager(store, config = self.config)
    (@managers ||= []) << OnlineManager.new(config, reactor: :thread, **store)
    @managers.last
  end

  # The figures that come from the store.
  shared = %i[online waiting dead_letters oldest_waiting members partitions_without_owner partitions]
  unknown = shared.to_h { |name| [name, nil] }
  from_here = { owner: false, leases: 0, unwritten: 0, retries: 0 }

  [Stores::Sqlite, Stores::Redis].each do |kind|
    context "on #{kind}" do
      before { @store = kind.new }

      it "has figures of all processes and of this one" do
        ours = manager(@store.options).tap(&:setup).tap(&:start)
        ours.seen_all(%w[ann ben])
        eventually { expect(ours.stats).to include(online: 2, waiting: 0, partitions_without_owner: 0, members: 1) }
        expect(ours.stats).to include(oldest_waiting: 0.0, dead_letters: 0, owner: true, leases: kind::PARTITIONS)
        # A cycle calls the store a few times, and an idle member waits for 5 ms between two of them.
        eventually { expect(ours.stats[:calls_per_second]).to be_between(1, 1_000) }
        manager(@store.options).tap(&:setup).start
        eventually { expect(ours.stats).to include(members: 2, partitions_without_owner: 0) }
      end

      it "has figures of each partition, as the command line" do
        ours = manager(@store.options).tap(&:setup).tap(&:start)
        ours.seen("ann")
        eventually { expect(ours.stats).to include(online: 1, waiting: 0, partitions_without_owner: 0) }
        partitions = ours.stats[:partitions]

        expect(partitions.map { |partition| partition[:number] }).to eq [*0...kind::PARTITIONS]
        expect(partitions).to all include(lease_holder: end_with(":#{Process.pid}"), lease_remaining: be_positive,
                                          hold: 0.0, epoch: be_positive, dead_letters: 0, oldest_waiting: nil)
        expect(partitions.sum { |partition| partition[:online] }).to eq 1
      end

      it "shows how long the oldest event has waited" do
        ours = manager(@store.options).tap(&:setup)
        ours.seen("held")
        eventually { expect(ours.stats).to include(waiting: 1, oldest_waiting: be_between(0.3, 10)) }
        config.release
        eventually { expect(ours.stats).to include(waiting: 0, oldest_waiting: 0.0) }
      end

      it "writes the leave of a process without heartbeats at once" do
        heartbeats = manager(@store.options).tap(&:setup)
        logout = manager(@store.options).tap(&:setup)
        heartbeats.seen("ann")
        eventually { expect(logout.online?("ann")).to be true }

        expect(logout.leave("ann")).to be true
        eventually(limit: 10) { expect([heartbeats.size, logout.stats[:unwritten]]).to eq [0, 0] }
      end

      # @return [Float] seconds
      def least = OnlineManager::NativeMember.min_timeout(@store.url) / 1e9

      it "refuses a timeout that is too short for it" do
        expect(least).to be_between(0.1, 0.5)
        too_short = /timeout must be at least #{least} s with the store \w+:/
        config.timeout = 0.03
        ours = manager(@store.options)
        expect { ours.setup }.to raise_error(ArgumentError, /#timeout must be at least #{least} s .*, got 0\.03\z/)
        config.timeout = 60
        ours.setup
        expect { ours.seen("ann", timeout: "0.1") }.to raise_error(ArgumentError, /\A#{too_short}.*, got "0\.1"\z/)
        expect { ours.seen_all(%w[ann], timeout: least - 0.01) }.to raise_error(ArgumentError, /\A#{too_short}/)

        expect(ours.stats).to include(unwritten: 0)
        expect([ours.online?("ann"), ours.seen("ann", timeout: least)]).to eq [false, true]
      end

      it "uses the least timeout instead of one that drops below it, and warns once" do
        ours = manager(@store.options).tap(&:setup)
        expect { (config.timeout = 0.01) && 3.times { expect(ours.timeout).to eq least } }
          .to output(/\A[^\n]*#timeout is 0\.01 s, shorter than the store .* can keep: #{least} s are used[^\n]*\n\z/)
          .to_stderr
        expect(ours.seen("ann")).to be true
        config.timeout = 60
        expect(ours.timeout).to eq 60
      end
    end
  end

  describe "whose store is away" do
    # A port where nobody listens, one where the server says nothing, and a file that is no database.
    stores = {
      "refuses connections" => ->(_) { { store: "redis://127.0.0.1:#{Stores::RedisServer.free_port}" } },
      "says nothing" => ->(server) { { store: "redis://127.0.0.1:#{server.addr[1]}" } },
      "is another file" => lambda do |_|
        File.write("presence", "no database" * 1_000)
        { store: "sqlite:presence" }
      end
    }

    around { |example| Dir.mktmpdir { |folder| Dir.chdir(folder) { example.run } } }

    stores.each do |what, store|
      it "has stats without the store's figures, and is shown, if it #{what}" do
        server = TCPServer.new("127.0.0.1", 0)
        ours = manager(store.call(server))
        began = Wait.monotonic
        expect(ours.stats).to include(state: :new, errors: 0, **unknown, **from_here)
        expect(Wait.monotonic - began).to be < 3
        expect(ours.inspect).to match(/ new, (redis|sqlite):/)
      ensure
        server.close
      end
    end

    it "hears of it once, counts it, and returns nil from `leave`" do
      port = Stores::RedisServer.free_port
      ours = manager({ store: "redis://127.0.0.1:#{port}" })
      expect { ours.setup }.to output(/cannot be reached/).to_stderr
      expect([ours.seen("ann"), ours.leave("ben")]).to eq [true, nil]
      eventually(limit: 10) { expect(ours.stats[:store_errors]).to be > 3 }

      expect(ours.stats).to include(**unknown, unwritten: 2, flush_lag: be_positive, calls_per_second: be < 1_000)
      expect(config.errors.size).to eq 1
      expect(config.errors.pop).to match [an_instance_of(OnlineManager::StoreError), nil]
    end
  end

  it "is shown without a call of the application" do
    expect(OnlineManager.new(-> { raise "no config" }).inspect)
      .to match(/\A#<OnlineManager #<Proc:.*> new, 0 online>\z/)
    named = Class.new(config.class) { def self.inspect = raise("no database") }
    stub_const("Named", named)
    expect(OnlineManager.new(Named.new(1)).inspect).to eq "#<OnlineManager Named new, 0 online>"
  end
end
