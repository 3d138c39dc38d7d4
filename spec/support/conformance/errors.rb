# frozen_string_literal: true

# What happens when a callback ends without a normal return.
RSpec.shared_examples "errors" do |reactor|
  # Sets a user offline, and waits for the callback and what follows it.
  def set_offline(manager, id)
    manager.seen(id)
    manager.leave(id)
    wait_until { !manager.online?(id) }
    settle(manager)
  end

  # No StandardError: the manager handles every exception of a callback in the same way.
  odd = Class.new(Exception) # rubocop:disable Lint/InheritException
  # Exceptions that end a thread, a fiber or the current block.
  let(:raised) { [IOError.new("oops"), NotImplementedError.new("todo"), odd.new("odd"), NoMemoryError.new("full")] }

  describe "an offline that raises" do
    it "is reported to on_error on the reactor; the user is offline, and everybody else is called as usual" do
      errors = raised.dup
      config = recording(offline: ->(id) { id == :fine or raise errors[id] }, on_error: ->(*) {})
      manager = start(config)
      ids = [0, 1, :fine, 2, 3]
      ids.each { |id| set_offline(manager, id) }

      expect(config.transitions.select { |call| call.name == :on_error }.map(&:args))
        .to eq(raised.each_with_index.to_a)
      expect(config.transitions.select { |call| call.name == :on_error })
        .to all(satisfy("be on the reactor") { |call| host.delivers?(call) })
      expect(ids.map { |id| config.calls_of(id).first(2) }).to eq [%i[online offline]] * 5
      expect(manager.size).to eq 0
      expect(manager.seen(0)).to be true
      expect(config.calls_of(0)).to eq %i[online offline on_error online]
    end

    # On EventMachine the error is raised in the reactor: see reactor/event_machine_spec.rb.
    if reactor != :eventmachine
      it "causes a warning with its backtrace without an on_error" do
        config = recording(offline: ->(id) { id == :fine or raise raised[id] })
        manager = start(config)
        [0, 1, :fine, 2, 3].each { |id| set_offline(manager, id) }

        warnings = said
        raised.each do |error|
          expect(warnings)
            .to match(/^OnlineManager: Conformance::Config#offline raised:\n.*errors.rb:\d+:in .*: #{error.message}/)
        end
        expect(config.transitions.map(&:name)).to eq %i[online offline] * 5
      end
    end

    it "is reported together with the error when on_error raises as well" do
      config = recording(offline: ->(_) { raise IOError, "in offline" }, on_error: ->(*) { raise odd, "in on_error" })
      manager = start(config)
      2.times { |id| set_offline(manager, id) }

      expect(config.transitions.map(&:name)).to eq %i[online offline on_error] * 2
      expect(said).to match(/OnlineManager: Conformance::Config#on_error raised:\n.*: in on_error.*: in offline/m)
    end

    it "still lets online follow for a remembered heartbeat" do
      gate = new_gate
      config = recording(on_error: ->(*) {}, offline: lambda { |_|
        gate.pass
        raise IOError
      })
      manager = start(config)
      manager.seen(7)
      manager.leave(7)
      wait_until { gate.reached? }
      manager.seen(7)
      gate.open

      eventually { expect(config.calls_of(7)).to eq %i[online offline on_error online] }
    end

    it "does not prevent a stop from setting the others offline" do
      config = recording(offline: ->(_) { raise IOError }, on_error: ->(*) {})
      manager = start(config)
      manager.seen_all([1, 2, 3])
      manager.stop

      expect([1, 2, 3].map { |id| config.calls_of(id) }).to eq [%i[online offline on_error]] * 3
    end
  end

  describe "an online that raises" do
    it "is not reported to on_error when the heartbeat has raised its error" do
      config = recording(online: ->(_) { raise IOError }, on_error: ->(*) {})
      manager = start(config)

      expect { manager.seen(7) }.to raise_error(IOError)
      expect(config.calls).to eq [[:online, 7]]
    end

    it "is reported to on_error when it follows an offline, and the user is offline" do
      gate = new_gate
      errors = [nil, IOError.new, nil]
      config = recording(online: ->(_) { error = errors.shift and raise error }, offline: ->(_) { gate.pass },
                         on_error: ->(*) {})
      manager = start(config)
      manager.seen(7)
      manager.leave(7)
      wait_until { gate.reached? }
      manager.seen(7)
      gate.open

      eventually { expect(config.calls_of(7)).to eq %i[online offline online on_error] }
      expect(config.last(:on_error).args).to match [IOError, 7]
      settle(manager)
      expect(manager.online?(7)).to be false
      manager.seen(7)
      expect(config.calls_of(7).last).to be :online
    end
  end

  describe "an online that is left in another way" do
    # @return [Conformance::Config] a config whose first `online` runs the block
    def leaving
      times = 0
      recording(online: ->(_) { yield if (times += 1) == 1 })
    end

    # Expects that the user is offline, and that the next heartbeat calls `online` again.
    def expect_offline(manager, config)
      expect([manager.online?(7), manager.stats[:announcing]]).to eq [false, 0]
      expect(manager.seen(7)).to be true
      expect(config.calls).to eq [[:online, 7]] * 2
      expect(manager.online?(7)).to be true
    end

    it "leaves the user offline by throw" do
      config = leaving { throw :out, :thrown }
      manager = start(config)

      expect(catch(:out) { manager.seen(7) }).to eq :thrown
      expect_offline(manager, config)
    end

    it "leaves the user offline by exit" do
      config = leaving { exit 3 }
      manager = start(config)

      expect { manager.seen(7) }.to raise_error(SystemExit) { |exit| expect(exit.status).to eq 3 }
      expect_offline(manager, config)
    end

    it "leaves the user offline by an interrupt" do
      config = leaving { raise Interrupt }
      manager = start(config)

      expect { manager.seen(7) }.to raise_error(Interrupt)
      expect_offline(manager, config)
    end

    it "leaves the user offline by the end of its thread" do
      gate = new_gate
      config = leaving { gate.pass }
      manager = start(config)
      sender = background { manager.seen(7) }
      wait_until { gate.reached? }
      manager.seen(7)
      sender.kill

      expect_offline(manager, config)
    end

    it "leaves the user offline by Timeout" do
      gate = new_gate
      config = leaving { gate.pass }
      manager = start(config)

      expect { Timeout.timeout(0.05) { manager.seen(7) } }.to raise_error(Timeout::Error)
      expect_offline(manager, config)
    end

    it "leaves the user offline by an error raised into its thread" do
      gate = new_gate
      config = leaving { gate.pass }
      manager = start(config)
      sender = background { manager.seen(7) }
      wait_until { gate.reached? }
      sender.thread.raise(IOError)

      expect { sender.value }.to raise_error(IOError)
      expect_offline(manager, config)
    end
  end

  describe "an online_all that is left" do
    { "by throw" => -> { throw :out }, "by exit" => -> { exit 3 }, "by the end of its thread" => -> { Thread.exit } }
      .each do |way, leave|
      it "#{way} leaves all of its users offline" do
        times = 0
        config = recording(online_all: ->(_) { leave.call if (times += 1) == 1 })
        manager = start(config)
        sender = background { catch(:out) { manager.seen_all([1, 2]) } }
        Conformance::Outcome.of { sender.value }

        expect([manager.online_users, manager.stats[:announcing]]).to eq [[], 0]
        expect(manager.seen_all([1, 2])).to be true
        expect(config.calls).to eq [[:online_all, [1, 2]]] * 2
        expect(manager.online_users).to contain_exactly(1, 2)
      end
    end
  end

  # The callbacks on the reactor. Each does something once, for the first of three users.
  reactors_callbacks = {
    "offline" => ->(act) { { offline: ->(id) { act.call if id == 1 } } },
    "offline_all" => ->(act) { { offline_all: ->(ids) { act.call if ids.include?(1) } } },
    "on_error" => ->(act) { { offline: ->(id) { raise IOError if id == 1 }, on_error: ->(*) { act.call } } },
    "the online that follows an offline" => lambda do |act|
      is_back = false
      { offline: ->(id) { OnlineManager.current.seen(1) && (is_back = true) if id == 1 },
        online: ->(_) { act.call if is_back } }
    end
  }

  # @return [Array] the users who were set offline, in order
  def left(config)
    config.transitions.select { |call| %i[offline offline_all].include?(call.name) }.flat_map { |call| call.args.first }
  end

  # Runs a manager with three users, and lets the first one leave. The runner's value is what `run` returns or raises.
  #
  # @return [OnlineManager]
  def run_until_left(config)
    host.run do
      catch(:out) { OnlineManager.run(config, reactor:) }
    rescue SystemExit => e
      e.status
    end
    wait_until { config.last(:setup) }
    OnlineManager.current.tap do |manager|
      manager.seen_all([1, 2, 3])
      manager.leave(1)
    end
  end

  reactors_callbacks.each do |callback, hooks|
    {
      "exit" => [-> { exit 3 }, 3],
      "throw" => [-> { throw :out, 3 }, 3],
      "the end of its thread" => [-> { Thread.exit }, nil]
    }.each do |way, (leave, outcome)|
      it "passes #{way} in #{callback} out of run and sets the others offline before" do
        config = recording(**hooks.call(leave))
        manager = run_until_left(config)

        expect(host.runner.value).to eq outcome
        expect(left(config)).to contain_exactly(1, 2, 3)
        expect(manager.stats).to include(state: :stopped, online: 0, departing: 0)
      end
    end
  end

  it "passes an exit out of run and sets the others offline before, though each offline exits" do
    config = recording(offline: ->(id) { exit id })
    manager = run_until_left(config)

    expect([1, 2, 3]).to include host.runner.value
    expect(left(config)).to contain_exactly(1, 2, 3)
    expect(manager.stats).to include(state: :stopped, online: 0, departing: 0)
    # The manager has cleaned up, and another can run.
    expect(EM).not_to be_reactor_running
  end

  # Thread#kill on EventMachine's thread ends its reactor, and on Async's thread its scheduler; the gem restarts its
  # own.
  it "sets the others offline when an offline after setup ends its thread" do
    config = recording(offline: ->(id) { Thread.exit if id == 1 })
    manager = start(config)
    manager.seen_all([1, 2, 3])
    manager.leave(1)
    if reactor == :thread
      eventually { expect(@said.string).to match(/has been restarted, and no callback is lost/) }
      said
      manager.leave(2)
      eventually { expect(left(config)).to eq [1, 2] }
      manager.stop
    else
      host.thread.join
      host.forget
    end

    eventually { expect(manager.stats).to include(state: :stopped, online: 0, departing: 0) }
    expect(left(config)).to contain_exactly(1, 2, 3)
  end

  # On EventMachine the throw leaves EM.run.
  if reactor != :eventmachine
    it "reports a throw that nothing catches as an error, after setup" do
      config = recording(offline: ->(_) { throw :out }, on_error: ->(*) {})
      manager = start(config)
      [1, 2].each { |id| set_offline(manager, id) }

      errors = config.transitions.select { |call| call.name == :on_error }.map(&:args)
      expect(errors).to match [[UncaughtThrowError, 1], [UncaughtThrowError, 2]]
      expect(config.transitions.map(&:name)).to eq %i[online offline on_error] * 2
    end
  end

  # As in 0.0.3, the caller handles an error of `setup`.
  it "raises an error of setup and leaves nothing behind" do
    config = recording(setup: lambda { |heartbeat|
      heartbeat.call(7)
      raise IOError, "no setup"
    })
    manager = OnlineManager.new(config, reactor:)

    expect { host.call { manager.setup } }.to raise_error(IOError, "no setup")
    expect(config.calls).to eq [[:online, 7], [:offline, 7]]
    expect([OnlineManager.current, manager.stats[:state], manager.seen(7)]).to eq [nil, :stopped, false]
    expect { host.call { manager.setup } }.to raise_error(OnlineManager::Error, /stopped/)
  end

  it "passes an error of setup out of run and leaves nothing behind" do
    [IOError.new("no setup"), NotImplementedError.new("todo")].each do |error|
      config = recording(setup: lambda { |heartbeat|
        heartbeat.call(7)
        raise error
      })
      run = host.run { OnlineManager.run(config, reactor:) }

      expect { run.value }.to raise_error(error) { |raised| expect(raised.backtrace.first).to include __FILE__ }
      expect(config.calls).to eq [[:online, 7], [:offline, 7]]
      expect(OnlineManager.current).to be_nil
    end
  end
end
