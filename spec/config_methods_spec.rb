# frozen_string_literal: true

# A config is asked each time which methods it has: it may get some later. On the reactor nobody could handle what it
# raises then, so that the last answer counts.
RSpec.describe "Which methods a config has" do
  base = Class.new do
    attr_writer :is_broken

    def calls = @calls ||= []
    def timeout = 60
    def setup = nil
    def online(id) = calls << [:online, id]
    def offline(id) = calls << [:offline, id]
    def broken = @is_broken ? raise("no answer") : nil
  end
  together = Module.new do
    def offline_all(ids) = calls << [:offline_all, *ids]
    def on_error(error, id) = calls << [error.message, id]
  end
  transitions = [[:online, 7], [:offline, 7]]

  def start(config) = OnlineManager.new(config, reactor: :thread).tap(&:setup)

  # @return [Array] the calls for a user who comes and goes
  def calls_for_a_user(manager, config)
    manager.seen(7)
    manager.leave(7)
    eventually { expect(config.calls.size).to be >= 2 }
    manager.stop
    config.calls
  end

  {
    "respond_to?" => Class.new(base) { def respond_to?(*) = broken || super },
    "respond_to_missing?" => Class.new(base) { def respond_to_missing?(*) = broken || super }
  }.each do |way, asked|
    it "is as it was when #{way} raises later, which is reported once" do
      config = stub_const("Config", asked).new
      manager = start(config)
      said = StringIO.new
      allow(Kernel).to receive(:warn) { |message| said.puts(message) }
      config.is_broken = true
      3.times do
        manager.seen(7)
        manager.leave(7)
        eventually { expect(config.calls).to eq transitions }
        config.calls.clear
      end
      manager.stop
      reports = said.string.scan(/OnlineManager: Config#respond_to\?\(:(\w+)\) raised; its last answer counts:\n/)
      expect(reports).to include(["offline_all"]).and eq reports.uniq
    end

    it "is asked before `setup` is called, so that an exception reaches the application: #{way}" do
      config = asked.new
      config.is_broken = true
      manager = OnlineManager.new(config, reactor: :thread)

      expect(manager.inspect).to include("new")
      expect { manager.setup }.to raise_error(RuntimeError, "no answer")
      config.is_broken = false
      manager.setup
      expect(calls_for_a_user(manager, config)).to eq transitions
    end
  end

  it "may be mended after an error of `setup`" do
    config = Class.new(base) { undef_method :offline }.new
    manager = OnlineManager.new(config, reactor: :thread)
    expect { manager.setup }.to raise_error(ArgumentError, /no method `offline'/)
    config.define_singleton_method(:offline) { |id| calls << [:offline, id] }
    manager.setup

    expect(calls_for_a_user(manager, config)).to eq transitions
  end

  {
    "in `setup`" => ->(config) { config.define_singleton_method(:setup) { extend together } },
    "after `inspect`" => ->(config) { OnlineManager.new(config).inspect && config.extend(together) }
  }.each do |time, get|
    it "may change: it gets `offline_all` and `on_error` #{time}" do
      config = base.new
      get[config]
      expect(calls_for_a_user(start(config), config)).to eq [[:online, 7], [:offline_all, 7]]
    end
  end

  it "may change: it gets and loses `offline_all` and `on_error` after `setup`" do
    config = Class.new(base) { def online(_) = raise("no table") }.new
    manager = start(config)
    config.extend(together)
    config.define_singleton_method(:offline_all) { |ids| (calls << [:offline_all, *ids]) && raise("no database") }
    expect { manager.seen(7) }.to raise_error("no table")
    config.define_singleton_method(:online) { |id| calls << [:online, id] }
    manager.seen(7)
    manager.leave(7)
    eventually { expect(config.calls).to eq [[:online, 7], [:offline_all, 7], ["no database", [7]]] }
    config.singleton_class.send(:undef_method, :offline_all)
    manager.seen(7)
    manager.stop
    expect(config.calls.last(2)).to eq transitions
  end

  it "may change: `setup` defines an `online` with a keyword" do
    config = base.new
    config.define_singleton_method(:setup) do
      define_singleton_method(:online) { |id, version:| calls << [:online, id, version.class] }
    end
    expect(calls_for_a_user(start(config), config)).to eq [[:online, 7, Integer], [:offline, 7]]
  end

  it "may be answered by `respond_to?` alone, beside `method_missing`" do
    config = Class.new do
      def calls = @calls ||= []
      def respond_to?(name, *) = %i[timeout setup online offline].include?(name) || super
      def method_missing(name, *args) = %i[timeout setup].include?(name) ? 60 : calls << [name, *args] # rubocop:disable Style/MissingRespondToMissing
    end.new

    expect(calls_for_a_user(start(config), config)).to eq transitions
  end

  it "does not depend on the config's own `class`, `name` and `method`" do
    config = Struct.new(:class, :name, :method, :timeout, :calls) do # rubocop:disable Lint/StructNewOverride
      def setup = nil
      def online(id) = calls << [:online, id]
      def offline(id) = calls << [:offline, id]
    end
    config = stub_const("Record", config).new("vip", "n", :get, 60, [])
    manager = start(config)

    expect(manager.inspect).to include("Record")
    expect(calls_for_a_user(manager, config)).to eq transitions
  end

  it "is named by Ruby if its class has a `name` of its own" do
    config = Class.new(base) { singleton_class.define_method(:name) { raise "no answer" } }
    manager = start(stub_const("Named", config).new)

    expect(manager.inspect).to include("Named")
    manager.stop
  end

  it "is not asked by a heartbeat of several users before `setup`" do
    expect do
      OnlineManager.new("Nope").seen_all([1])
    end.to raise_error(OnlineManager::Error, /before the manager was set up/)
  end
end
