# frozen_string_literal: true

Dir[File.join(__dir__, "../support/conformance/*.rb")].each { |file| require file }
require "online_manager/reactor/event_machine"

# The behaviour that is specific to EventMachine. The rest is in conformance_spec.rb.
RSpec.describe "The reactor :eventmachine" do
  let(:reactor) { :eventmachine }

  include_context "with a manager"

  after { EM.error_handler } # resets it to none

  # A config as people wrote them for 0.0.3, with its own timers and sockets: a user who sends a line is online, and the
  # reactor stops when everybody is offline.
  legacy = Class.new do
    receiver = Class.new(EM::Connection) do
      include EM::Protocols::LineProtocol
      attr_accessor :heartbeat

      def receive_line(user) = heartbeat.call(user)
    end
    sender = Class.new(EM::Connection) do
      attr_writer :user

      def post_init
        @timer = EM.add_periodic_timer(0.04) { send_data("#{@user}\n") }
      end

      def unbind = @timer.cancel
    end
    define_method(:receiver) { receiver }
    define_method(:sender) { sender }
    attr_reader :log

    def initialize = @log = []

    def timeout
      0.2
    end

    def setup(&block)
      note(:setup)
      server = EM.start_server("127.0.0.1", 0, receiver) { |connection| connection.heartbeat = block }
      port, = Socket.unpack_sockaddr_in(EM.get_sockname(server))
      { "ann" => 0.1, "bob" => 0.35 }.each do |user, time|
        EM.connect("127.0.0.1", port, sender) do |client|
          client.user = user
          EM.add_timer(time) { client.close_connection }
        end
      end
    end

    def online(user)
      note(:online, user)
    end

    def offline(user)
      note(:offline, user)
      EM.stop if @log.count { |call| call[1] == :offline } == 2
    end

    private

    def note(*call) = @log << [EM.reactor_thread?, *call]
  end

  it "runs an unchanged config of 0.0.3 completely on the reactor's thread" do
    config = legacy.new
    run = host.run { OnlineManager.run(config) }

    expect(run.value).to be_nil
    expect(config.log).to eq [[true, :setup], [true, :online, "ann"], [true, :online, "bob"],
                              [true, :offline, "ann"], [true, :offline, "bob"]]
  end

  it "runs several configs in one reactor" do
    configs = Array.new(2) { legacy.new }
    configs.each { |config| config.define_singleton_method(:offline) { |user| note(:offline, user) } }
    host.call { configs.each { |config| OnlineManager.setup(config) } }

    eventually { expect(configs.map { |config| config.log.size }).to eq [5, 5] }
    expect(configs.map(&:log)).to all(match([[true, :setup], [true, :online, "ann"], [true, :online, "bob"],
                                             [true, :offline, "ann"], [true, :offline, "bob"]]))
    2.times { OnlineManager.current.stop }
  end

  it "calls online within the tick of the heartbeat, wherever that is called" do
    config = recording
    start(config)
    answers = Thread::Queue.new
    EM.schedule do
      EM.next_tick { answers << [config.heartbeat.call(7), config.calls] }
      EM.add_timer(0.01) { answers << [config.heartbeat.call(8), config.calls.last] }
      EM.defer { answers << [config.heartbeat.call(9), Thread.current] }
    end
    found = Array.new(3) { answers.pop }

    expect(found).to include([true, [[:online, 7]]]).or include([true, [[:online, 9], [:online, 7]]])
    expect(found).to include([true, [:online, 8]])
    expect(found).to include([true, config.last(:online, 9).thread])
    expect([7, 8].map { |id| config.last(:online, id) }).to all(satisfy { |call| host.delivers?(call) })
    EM.threadpool.each(&:kill)
    EM.instance_variable_set(:@threadpool, nil)
  end

  it "returns the config's setup value when it is set up inside a running reactor" do
    config = recording(timeout: 0.05, setup: ->(_) { :done })
    expect(host.call { OnlineManager.run(config) }).to eq :done
    config.heartbeat.call(7)

    eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    expect(host).to be_delivers(config.last(:offline))
    OnlineManager.current.stop
    expect(EM).to be_reactor_running
  end

  it "uses a reactor that runs on another thread" do
    host.call { nil }
    config = recording(timeout: 0.05)
    manager = OnlineManager.new(config)
    manager.setup
    manager.seen(7)

    eventually { expect(config.calls).to eq [[:online, 7], [:offline, 7]] }
    expect(config.last(:setup).thread).to be Thread.current
    expect(host).to be_delivers(config.last(:offline))
    expect(manager.stats[:reactor]).to be :eventmachine
    manager.stop
  end

  it "raises an error when there is no reactor to set up in" do
    expect { OnlineManager.setup(recording, reactor:) }
      .to raise_error(OnlineManager::Error, /no EventMachine reactor runs/)
  end

  it "lets timers and sockets run while a crowd leaves" do
    config = recording(offline: ->(_) { pass_time(0.002) })
    manager = start(config)
    ticks = Thread::Queue.new
    host.call { EM.add_periodic_timer(0.001) { ticks << true } }
    manager.seen_all((1..60).to_a)
    ticks.clear
    (1..60).each { |id| manager.leave(id) }
    wait_until { config.last(:offline, 60) }

    # 60 callbacks of 2 ms. The reactor makes calls for 5 ms at a time.
    expect(ticks.size).to be > 5
  end

  describe "an offline that raises" do
    it "passes its error to EM.error_handler; the user is offline, and the reactor goes on" do
      errors = Thread::Queue.new
      EM.error_handler { |error| errors << [error.message, EM.reactor_thread?] }
      config = recording(timeout: 0.05, offline: ->(id) { raise "oops #{id}" if id.odd? })
      manager = start(config)
      manager.seen_all([1, 2, 3, 4])

      eventually { expect(config.calls.size).to eq 8 }
      settle(manager)
      expect(Array.new(2) { errors.pop }).to contain_exactly(["oops 1", true], ["oops 3", true])
      expect(errors).to be_empty
      expect(manager.seen(1)).to be true
      expect(config.calls_of(1)).to eq %i[online offline online]
      expect(manager.stats[:errors]).to eq 2
      expect(manager.stop).to eq 0
      expect(errors.pop).to eq ["oops 1", true]
    end

    it "raises from EM.run without a handler, and the others are set offline before" do
      EM.error_handler
      config = recording(offline: ->(id) { raise IOError, "oops" if id == 1 })
      start(config).seen_all([1, 2, 3])
      OnlineManager.current.leave(1)

      expect { host.thread.join }.not_to raise_error
      expect { host.stop }.to raise_error(IOError, "oops")
      expect([1, 2, 3].map { |id| config.calls_of(id) }).to eq [%i[online offline]] * 3
      host.forget
    end

    it "raises from OnlineManager.run, and the others are set offline before" do
      config = recording(offline: ->(id) { raise IOError, "oops" if id == 1 })
      manager = start(config, way: :run)
      manager.seen_all([1, 2, 3])
      manager.leave(1)

      expect { host.runner.value }.to raise_error(IOError, "oops")
      expect([1, 2, 3].map { |id| config.calls_of(id) }).to eq [%i[online offline]] * 3
      expect(manager.stats[:state]).to be :stopped
    end

    it "does not affect the reactor if the config has an on_error" do
      config = recording(offline: ->(_) { raise IOError }, on_error: ->(*) {})
      manager = start(config)
      manager.seen(7)
      manager.leave(7)

      eventually { expect(config.calls_of(7)).to eq %i[online offline on_error] }
      expect(EM).to be_reactor_running
    end
  end

  it "passes the error of an online that follows an offline to EM.error_handler too" do
    errors = Thread::Queue.new
    EM.error_handler { |error| errors << error }
    gate = new_gate
    first = true
    config = recording(offline: ->(_) { gate.pass }, online: lambda { |_|
      first ? first = false : raise(IOError)
    })
    manager = start(config)
    manager.seen(7)
    manager.leave(7)
    wait_until { gate.reached? }
    manager.seen(7)
    gate.open

    expect(errors.pop).to be_a(IOError)
    settle(manager)
    expect(config.calls_of(7)).to eq %i[online offline online]
    expect(manager.online?(7)).to be false
  end

  describe "EM.stop" do
    # @return [Conformance::Config] a config whose `offline` needs EventMachine
    def needy
      recording(offline: lambda { |_|
        EM.add_timer(60) { nil }
        EM.next_tick { nil }
        raise "no reactor" unless EM.reactor_running? && EM.reactor_thread?
      })
    end

    it "sets the remaining users offline while EventMachine's API works, in run" do
      config = needy
      manager = start(config, way: :run)
      manager.seen_all([1, 2])
      EM.schedule { EM.stop }

      expect(host.runner.value).to be_nil
      expect([1, 2].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
      expect(manager.stats).to include(state: :stopped, errors: 0)
      expect([OnlineManager.current, manager.seen(1)]).to eq [nil, false]
    end

    it "sets the remaining users of all managers offline while EventMachine's API works, after setup" do
      configs = Array.new(2) { needy }
      managers = configs.map { |config| start(config) }
      managers.each { |manager| manager.seen_all([1, 2]) }
      host.stop

      expect(configs.flat_map { |config| [1, 2].map { |id| config.calls_of(id) } }).to all eq(%i[online offline])
      expect(managers.map { |manager| manager.stats.values_at(:state, :errors) }).to eq [[:stopped, 0]] * 2
    end

    it "sets everybody offline though every offline raises, with warnings" do
      config = recording(offline: ->(id) { raise IOError, "oops #{id}" })
      start(config).seen_all([1, 2, 3])
      host.stop

      expect([1, 2, 3].map { |id| config.calls_of(id) }).to all eq(%i[online offline])
      expect(said.scan(/#offline raised:\n.*: (oops \d)/).flatten).to contain_exactly("oops 1", "oops 2", "oops 3")
    end

    it "works inside offline, online and setup too" do
      configs = [recording(offline: ->(_) { EM.stop }, setup: ->(heartbeat) { heartbeat.call(1) }, timeout: 0.03),
                 recording(online: ->(_) { EM.stop }, setup: ->(heartbeat) { heartbeat.call(1) }),
                 recording(setup: ->(heartbeat) { heartbeat.call(1) && EM.stop })]
      configs.each do |config|
        expect(host.run { OnlineManager.run(config) }.value).to be_nil
        expect(config.calls).to eq [[:online, 1], [:offline, 1]]
      end
    end

    # EventMachine drops blocks that another thread schedules in its last tick.
    describe "in the tick in which another thread" do
      let(:gate) { new_gate }

      before do
        host.call { nil }
        EM.schedule do
          gate.pass
          EM.stop
        end
        wait_until { gate.reached? }
      end

      it "sends the first heartbeat: that user is set offline too" do
        config = recording
        manager = OnlineManager.new(config, reactor:)
        manager.setup
        manager.seen(7)
        gate.open
        host.thread.join

        expect(config.calls).to eq [[:online, 7], [:offline, 7]]
        expect(config.last(:offline).thread).to be host.thread
        expect(manager.stats[:state]).to be :stopped
      end

      it "stops a manager that has had no heartbeat: the stop returns" do
        manager = OnlineManager.new(recording, reactor:)
        manager.setup
        stopper = background { manager.stop }
        wait_until { manager.stats[:state] == :stopping && stopper.thread.stop? }
        gate.open

        expect(stopper.value).to eq 0
      end
    end

    it "lets another reactor start afresh" do
      2.times do
        config = recording(timeout: 0.03, setup: ->(heartbeat) { heartbeat.call(1) }, offline: ->(_) { EM.stop })
        expect(host.run { OnlineManager.run(config) }.value).to be_nil
        expect(config.calls).to eq [[:online, 1], [:offline, 1]]
      end
    end
  end

  # EventMachine itself leaks a watch that ends in the tick in which it began.
  it "frees a manager that is stopped in the tick in which it was set up" do
    alive = ObjectSpace::WeakMap.new
    host.call do
      20.times do
        OnlineManager.setup(recording(setup: ->(heartbeat) { heartbeat.call(7) }), reactor:)
        alive[OnlineManager.current] = true
        OnlineManager.current.stop
      end
    end

    eventually do
      GC.start
      # References may remain on the machine stack by accident.
      expect(alive.size).to be < 10
    end
  end

  describe "a setup that keeps the reactor from running" do
    it "is named in a warning that says what to do" do
      stub_const("OnlineManager::Reactor::EventMachine::WARN_AFTER", 0.05)
      gate = new_gate
      config = recording(setup: ->(_) { gate.pass })
      host.run { OnlineManager.run(config, reactor:) }
      eventually do
        expect(@said.string).to eq "OnlineManager: Conformance::Config#setup has blocked the EventMachine reactor " \
                                   "for 0.05 s, so no user can be set offline: let it return, or pass " \
                                   "`reactor: :thread` if it has to block\n"
      end
      said
      gate.open
      OnlineManager.current.stop
      host.runner.value
    end

    it "causes no warning if setup returns, raises or runs on another thread than the reactor's" do
      stub_const("OnlineManager::Reactor::EventMachine::WARN_AFTER", 0.05)
      start
      expect { start(recording(setup: ->(_) { raise IOError })) }.to raise_error(IOError)
      manager = OnlineManager.new(recording(setup: ->(_) { pass_time(0.1) }), reactor:)
      manager.setup
      manager.stop

      throughout(0.1) { expect(@said.string).to be_empty }
    end
  end
end
