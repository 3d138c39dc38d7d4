# frozen_string_literal: true

# A config's methods are public. One that is not looks like one that is not there; an optional one would be ignored.
RSpec.describe "A config's method that is not public" do
  let(:config) do
    Class.new do
      def timeout = 60
      def setup = @is_set_up = true
      def online(_) = nil
      def offline(_) = nil
      def set_up? = @is_set_up
    end
  end

  %i[timeout setup online offline online_all offline_all on_error last_version].each do |method|
    %i[private protected].product(%i[run setup]).each do |visibility, way|
      it "is an error before `setup` is called: #{visibility} #{method} (#{way})" do
        # Ruby warns of a method that is defined again.
        config.remove_method(method) if config.method_defined?(method)
        config.define_method(method) { |*| raise "called" }
        config.send(visibility, method)
        hiding = stub_const("Hiding", config).new
        manager = OnlineManager.new(hiding, reactor: :thread)

        expect { manager.public_send(way) }
          .to raise_error(ArgumentError, "Hiding##{method} is not public, so it cannot be called: make it public, or " \
                                         "rename it if it is not for online_manager")
        expect([manager.stats[:state], hiding.set_up?]).to eq [:new, nil]
      end
    end
  end

  # As a script does at its top.
  it "is no error if it is one of every object" do
    Object.define_method(:last_version) { raise "called" }
    Object.send(:private, :last_version)
    manager = OnlineManager.new(config.new, reactor: :thread)
    manager.setup

    expect([manager.seen(7), manager.stop]).to eq [true, 0]
  ensure
    Object.send(:remove_method, :last_version)
  end

  it "is no error if a script includes it at its top" do
    process = ruby(<<~RUBY)
      require "online_manager"
      require "timeout"
      include Timeout # whose `timeout` is private then

      class Config
        def setup = nil
        def online(_) = nil
        def offline(_) = nil
      end

      begin
        OnlineManager.new(Config.new, reactor: :thread).setup
      rescue ArgumentError => e
        puts e.message
      end
    RUBY

    expect(process.lines).to match [a_string_starting_with("Config has no method `timeout'")]
  end
end
