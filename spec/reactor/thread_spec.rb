# frozen_string_literal: true

Dir[File.join(__dir__, "../support/conformance/*.rb")].each { |file| require file }

# The behaviour that is specific to the thread reactor. The rest is in conformance_spec.rb.
RSpec.describe "The reactor :thread" do
  let(:reactor) { :thread }

  include_context "with a manager"

  def named(name) = Thread.list.select { |thread| thread.name == name }

  describe "after setup" do
    it "starts its thread with the first heartbeat and no sooner" do
      threads = Thread.list
      manager = start
      expect(Thread.list - threads).to be_empty
      manager.seen(7)
      expect(named("online_manager").size).to eq 1
      manager.seen(8)
      expect(named("online_manager").size).to eq 1
    end

    { "killed" => :kill.to_proc, "raised into" => ->(thread) { thread.raise(IOError, "from outside") } }
      .each do |what, hit|
      it "starts another thread with a warning when its own is #{what}" do
        config = recording
        manager = start(config)
        manager.seen_all([1, 2])
        first, = named("online_manager")
        hit.call(first)
        eventually { expect(first).not_to be_alive }
        manager.leave(1)
        manager.seen(3)

        eventually { expect(config.calls_of(1)).to eq %i[online offline] }
        expect(config.last(:offline, 1).thread).to have_attributes(name: "online_manager")
        eventually { expect(@said.string).to match(/the thread that calls offline was ended by/) }
        said
      end

      it "loses nobody and calls nobody twice when its thread is #{what} inside offline" do
        gate = new_gate
        config = recording(offline: ->(id) { gate.pass if id == 1 }, on_error: ->(*) {})
        manager = start(config)
        manager.seen_all([1, 2, 3])
        manager.leave(1)
        wait_until { gate.reached? }
        manager.leave(2)
        hit.call(config.last(:offline, 1).thread)

        eventually { expect(config.calls_of(2)).to eq %i[online offline] }
        manager.stop
        expect([1, 2, 3].map { |id| config.calls_of(id).count(:offline) }).to eq [1, 1, 1]
        said
      end
    end

    it "does not end at a stop before everybody has been made due" do
      gate = new_gate
      config = recording
      manager = start(config)
      manager.seen_all([7, 8])
      manager.instance_variable_get(:@native).define_singleton_method(:stop) do
        gate.pass
        super()
      end
      stopper = background { manager.stop }
      wait_until { gate.reached? }
      manager.leave(8)
      eventually { expect(config.calls_of(8)).to eq %i[online offline] }
      settle(manager)
      throughout(0.02) { expect(stopper).to be_alive }
      gate.open

      expect(stopper.value).to eq 0
      expect(config.calls_of(7)).to eq %i[online offline]
    end

    # Between a claim and its callback, the delivery only reads the config.
    describe "whose thread is ended between the claim and the callback" do
      # Runs the block once, when `offline` is about to be called.
      def hit_before_callback
        is_hit = false
        trace = TracePoint.new(:call) do
          next if is_hit || caller_locations(1, 4).none? { |frame| frame.label.match?(/ in (.+#)?invoke\z/) }

          is_hit = true
          yield
        end
        trace.enable(target: OnlineManager::Config.instance_method(:object)) do
          @manager.leave(7)
          wait_until { is_hit }
        end
      end

      {
        "killed" => -> { Thread.current.kill }, "raised into" => -> { raise IOError, "from outside" }
      }.each do |what, hit|
        it "takes the claim back and makes it again: #{what}" do
          config = recording(on_error: ->(*) {})
          @manager = start(config)
          @manager.seen(7)
          hit_before_callback(&hit)

          eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
          settle(@manager)
          expect(@manager.seen(7)).to be true
          expect(config.calls.last).to eq [:online, 7]
          eventually { expect(said).to match(/was ended by/) }
        end
      end
    end

    it "checks for due users no more often than there are any" do
      config = occupiable
      manager = start(config)
      occupying(manager) do
        # Each of them makes the pipe readable, or would if it were not.
        [1, 2, 3].each { |id| manager.seen(id) && manager.leave(id) }
        manager.seen(4)
      end
      looks = 0
      TracePoint.new(:call) { looks += 1 }.enable(target: OnlineManager::Delivery.instance_method(:deliver)) do
        manager.leave(4)
        eventually { expect(config.calls_of(4)).to eq %i[online offline] }
        settle(manager)
        pass_time(0.1)
      end

      expect(looks).to be_between(1, 5)
    end
  end

  describe "run" do
    it "lets setup block and ends its thread" do
      gate = new_gate
      config = recording(setup: lambda { |heartbeat|
        heartbeat.call(7)
        gate.pass
      })
      manager = start(config, way: :run)
      wait_until { gate.reached? }
      setup_thread = config.last(:setup).thread
      expect(setup_thread.name).to eq "online_manager setup"
      manager.stop
      host.runner.value

      expect(setup_thread).not_to be_alive
      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    end

    it "ends a setup that rescues errors" do
      config = recording(setup: lambda { |_|
        begin
          Thread.stop
        rescue StandardError
          retry
        end
      })
      manager = start(config, way: :run)
      wait_until { config.last(:setup).thread.stop? }
      manager.stop
      host.runner.value

      expect(config.last(:setup).thread).not_to be_alive
    end

    it "waits one second for its setup and no longer" do
      gate = new_gate
      config = recording(setup: lambda { |_|
        Thread.handle_interrupt(Object => :never) { gate.pass }
      })
      manager = start(config, way: :run)
      wait_until { gate.reached? }
      manager.stop
      began = Wait.monotonic
      host.runner.value(limit: 20)

      expect(Wait.monotonic - began).to be_between(0.5, 15)
      gate.open
      eventually { expect(config.last(:setup).thread).not_to be_alive }
    end

    it "does not end its setup during an online, which then sets its user offline itself" do
      gate = new_gate
      config = recording(online: ->(_) { gate.pass }, setup: ->(heartbeat) { heartbeat.call(7) })
      manager = start(config, way: :run)
      wait_until { gate.reached? }
      expect(manager.stop).to eq 1
      host.runner.value(limit: 20)
      expect(config.calls).to eq [[:online, 7]]
      gate.open

      eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
      expect(config.last(:offline).thread).to be config.last(:setup).thread
    end

    {
      "exit" => [-> { exit 3 }, SystemExit],
      "an interrupt" => [-> { raise Interrupt, "me" }, Interrupt],
      "a signal" => [-> { raise SignalException, "TERM" }, SignalException],
      "a throw, which it cannot be left by" => [-> { throw :out }, UncaughtThrowError]
    }.each do |what, (leave, error)|
      it "passes #{what} of setup on with its backtrace" do
        config = recording(setup: lambda { |heartbeat|
          heartbeat.call(7)
          leave.call
        })
        run = host.run { catch(:out) { OnlineManager.run(config, reactor:) } }

        expect { run.value }.to raise_error(error) { |raised| expect(raised.backtrace.join).to include __FILE__ }
        expect(config.calls).to eq [[:online, 7], [:offline, 7]]
      end
    end

    it "ends by exit in offline after everybody has been called" do
      config = recording(offline: ->(id) { exit id })
      manager = start(config, way: :run)
      manager.seen_all([1, 2, 3])
      manager.leave(2)

      expect { host.runner.value }.to raise_error(SystemExit)
      expect([1, 2, 3].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
    end

    it "ends at once at the second interrupt" do
      gate = new_gate
      config = recording(offline: ->(_) { gate.pass })
      manager = start(config, way: :run)
      manager.seen_all([1, 2, 3])
      host.runner.thread.raise(Interrupt, "first")
      wait_until { gate.reached? }
      host.runner.thread.raise(Interrupt, "second")

      expect { host.runner.value }.to raise_error(Interrupt, "second")
      expect(config.transitions.count { |call| call.name == :offline }).to eq 1
      expect(OnlineManager.current).to be_nil
      expect(manager.seen(4)).to be false
    end
  end
end
