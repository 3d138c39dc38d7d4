# frozen_string_literal: true

# A config is asked once which methods it has, as it is loaded. On the reactor an exception would end the thread.
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
  ways = {
    "respond_to?" => Class.new(base) { def respond_to?(*) = broken || super },
    "respond_to_missing?" => Class.new(base) { def respond_to_missing?(*) = broken || super },
    "its class's name" => Class.new(base) { singleton_class.define_method(:name) { raise "no answer" } }
  }

  ways.each do |way, config|
    it "is not asked on the reactor: #{way} raises later" do
      config = config.new
      manager = OnlineManager.new(config, reactor: :thread)
      manager.setup
      config.is_broken = true
      manager.seen(7)
      manager.leave(7)

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(manager.stop).to eq 0
    end
  end

  ways.first(2).each do |way, config|
    it "is asked before `setup` is called, so that an exception reaches the application: #{way}" do
      config = config.new.tap { |broken| broken.is_broken = true }
      manager = OnlineManager.new(config, reactor: :thread)

      expect { manager.setup }.to raise_error(RuntimeError, "no answer")
      config.is_broken = false
      manager.setup
      expect([manager.seen(7), manager.stop, config.calls]).to eq [true, 0, [[:online, 7], [:offline, 7]]]
    end
  end

  it "may be answered by `respond_to?` alone, beside `method_missing`" do
    config = Class.new do
      def calls = @calls ||= []
      def respond_to?(name, *) = %i[timeout setup online offline].include?(name) || super
      def method_missing(name, *args) = %i[timeout setup].include?(name) ? 60 : calls << [name, *args] # rubocop:disable Style/MissingRespondToMissing
    end.new
    manager = OnlineManager.new(config, reactor: :thread)
    manager.setup

    expect([manager.seen(7), manager.stop, config.calls]).to eq [true, 0, [[:online, 7], [:offline, 7]]]
  end
end
