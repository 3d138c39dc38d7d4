# frozen_string_literal: true

require "eventmachine"
require "async"

# A manager as an object of Ruby's: frozen, copied, and after a `run` that failed.
RSpec.describe OnlineManager do
  let(:config) do
    Class.new do
      attr_reader :calls

      def initialize(&setup)
        @setup = setup
        @calls = Queue.new
      end

      def timeout = 60
      def setup(&heartbeat) = @setup&.call(heartbeat)
      def online(id) = @calls << [:online, id]
      def offline(id) = @calls << [:offline, id]
    end
  end

  [:memory, "sqlite:presence.sqlite3"].each do |store|
    it "works on and stops when it is frozen after setup: #{store}" do
      Dir.mktmpdir do |folder|
        Dir.chdir(folder) do
          manager = described_class.new(config.new, reactor: :thread, store:)
          manager.setup
          manager.freeze

          expect(manager.seen(7)).to be true
          wait_until { manager.online?(7) }
          expect(manager.stop(timeout: 5)).to eq 0
          expect(manager.stats[:state]).to eq :stopped
        end
      end
    end
  end

  it "sets the remaining users offline when it is frozen after setup" do
    calling = config.new
    manager = described_class.new(calling, reactor: :thread)
    manager.setup
    manager.freeze.seen(7)
    manager.stop

    expect(Array.new(calling.calls.size) { calling.calls.pop }).to eq [[:online, 7], [:offline, 7]]
  end

  %i[dup clone].each do |copy|
    it "cannot be copied by #{copy}, and goes on after the attempt" do
      manager = described_class.new(config.new, reactor: :thread)
      manager.setup

      expect { manager.public_send(copy) }.to raise_error(TypeError, /cannot be copied/)
      expect(manager.seen(7)).to be true
      expect(manager.stop).to eq 0
    end
  end

  # @return [Array<Thread>] the watchdogs, of whichever manager
  def watchdogs = Thread.list.select { |thread| thread.name == "online_manager watchdog" }

  %i[thread eventmachine fiber].each do |reactor|
    { "before the first heartbeat" => nil, "after it" => 7 }.each do |moment, id|
      it "leaves no watchdog behind when `run` has failed #{moment} (#{reactor})" do
        failing = config.new do |heartbeat|
          heartbeat.call(id) if id
          raise IOError, "no listener"
        end
        left = nil
        run = lambda do
          described_class.run(failing, reactor:)
        rescue IOError
          left = watchdogs
        end
        reactor == :fiber ? Async { run.call } : run.call

        expect(left).to eq []
      end
    end
  end
end
