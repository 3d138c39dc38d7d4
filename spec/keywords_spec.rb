# frozen_string_literal: true

require "delegate"

# Which callbacks get the keywords `version:` and `last_seen:`: those that declare them, through a wrapper too. What was
# written for version 0.0.3 gets none.
RSpec.describe "The keywords of a callback" do
  base = Class.new do
    def calls = @calls ||= []
    def timeout = 60
    def setup = nil
  end
  plain = Class.new(base) do
    def online(id) = calls << [:online, id]
    def offline(id) = calls << [:offline, id]
  end
  declaring = Class.new(base) do
    def online(id, version:, last_seen:) = calls << [:online, id, version.class, last_seen.class]
    def offline(id, last_seen: nil) = calls << [:offline, id, last_seen.class]
  end
  with_keywords = [[:online, 7, Integer, Time], [:offline, 7, Time]]
  without = [[:online, 7], [:offline, 7]]
  # rubocop:disable Lint/UselessMethodDefinition -- what they pass on is what is tested
  wrapper = Module.new do
    def online(*args, **keywords) = super
    def offline(...) = super
  end
  derive = ->(config) { Class.new(config) { def online(*args, **keywords) = super } }
  delegator = Class.new(SimpleDelegator) do
    def online(id, version:, last_seen:) = super
    def offline(id, last_seen:) = super
  end
  # rubocop:enable Lint/UselessMethodDefinition

  # @return [Array<Array>] the calls for a user who comes and goes
  define_method(:calls) do |config, recorded = config|
    manager = OnlineManager.new(config, reactor: :thread)
    manager.setup
    manager.seen(7)
    manager.stop
    recorded.calls
  end

  it "come to a method that declares them" do
    expect(calls(declaring.new)).to eq with_keywords
    expect(calls(plain.new)).to eq without
  end

  it "come through a prepended module with `**`, an extension and a subclass, if the method within declares them" do
    [declaring, plain].zip([with_keywords, without]) do |config, expected|
      prepended = Class.new(config) { prepend wrapper }

      expect(calls(prepended.new)).to eq expected
      expect(calls(config.new.extend(wrapper, wrapper.dup))).to eq expected
      expect(calls(derive.call(config).new)).to eq expected
    end
  end

  it "come neither to a method with `*args` nor to one with `**` that wraps none" do
    config = Class.new(base) do
      def online(*args) = calls << [:online, *args]
      def offline(id, **keywords) = calls << [:offline, id, *keywords]
    end

    expect(calls(config.new)).to eq without
  end

  it "do not come through a delegator that does not declare them" do
    config = plain.new
    expect(calls(SimpleDelegator.new(config), config)).to eq without
  end

  it "come through a delegator that declares them" do
    config = declaring.new
    expect(calls(delegator.new(config), config)).to eq with_keywords
  end

  it "come to a config that has its own `method`" do
    config = Class.new(declaring) { def method = :get }

    expect(calls(config.new)).to eq with_keywords
  end

  it "come through a proxy that is no Object" do
    config = declaring.new
    proxy = Class.new(BasicObject) do
      def initialize(config) = @config = config
      def method_missing(...) = @config.public_send(...) # rubocop:disable Style/MissingRespondToMissing
      def respond_to?(...) = @config.respond_to?(...)
    end
    proxy.define_method(:private_methods) { [] }
    proxy.define_method(:protected_methods) { [] }

    expect(calls(proxy.new(config), config)).to eq with_keywords
  end
end
