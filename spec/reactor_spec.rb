# frozen_string_literal: true

Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

# Which reactor is chosen without the option.
RSpec.describe OnlineManager::Reactor do
  # Sets a manager up, or runs it, and stops it.
  #
  # @return [Symbol] the chosen reactor
  def found(way)
    config = Conformance::Config.new(setup: lambda { |_|
      OnlineManager.current.stop if way == :run && !(EM.reactor_running? && EM.reactor_thread? && @nested)
    })
    manager = OnlineManager.new(config)
    manager.public_send(way)
    manager.stats[:reactor]
  ensure
    manager.stop
  end

  let(:event_machine) { Conformance::Host.for(:eventmachine) }
  let(:async) { Conformance::Host.for(:fiber) }

  after { [event_machine, async].each(&:stop) }

  describe "for setup" do
    it("is a thread if there is nothing else") { expect(found(:setup)).to be :thread }

    it "is EventMachine on the thread of its reactor" do
      expect(event_machine.call { found(:setup) }).to be :eventmachine
    end

    it "is EventMachine if its reactor runs on another thread" do
      event_machine.call { nil }
      expect(found(:setup)).to be :eventmachine
    end

    it "is the fiber scheduler within one" do
      expect(async.call { found(:setup) }).to be :fiber
    end

    it "is the fiber scheduler within one although EventMachine runs on another thread" do
      event_machine.call { nil }
      expect(async.call { found(:setup) }).to be :fiber
    end
  end

  describe "for run" do
    it "is EventMachine on the thread of its reactor" do
      @nested = true
      expect(event_machine.call { found(:run) }).to be :eventmachine
    end

    it "is the fiber scheduler within one" do
      expect(async.call { found(:run) }).to be :fiber
    end

    script = <<~RUBY
      require "online_manager"

      config = Class.new do
        def timeout = 5
        def online(_) = nil
        def offline(_) = nil
        def setup = puts(OnlineManager.current.stats[:reactor]) || OnlineManager.current.stop
      end
      OnlineManager.run(config.new)
      puts defined?(EventMachine) ? "loaded" : "not loaded"
    RUBY

    it "is a thread if EventMachine is neither loaded nor in the bundle" do
      expect(ruby(script).lines).to eq ["thread", "not loaded"]
    end

    it "is EventMachine if it is in the bundle, and loads it" do
      expect(ruby(script, bundled: true).lines).to eq %w[eventmachine loaded]
    end

    it "is EventMachine if it is loaded without being a gem" do
      loaded = 'require "eventmachine"; Gem.loaded_specs.delete("eventmachine")'
      expect(ruby([loaded, script].join("\n")).lines).to eq %w[eventmachine loaded]
    end
  end

  it "is the requested one, no matter what is available" do
    config = Conformance::Config.new
    event_machine.call do
      manager = OnlineManager.new(config, reactor: :thread)
      manager.setup
      expect(manager.stats[:reactor]).to be :thread
      manager.stop
    end
  end
end
