# frozen_string_literal: true

require "stringio"
require "timeout"
require_relative "config"
require_relative "gate"
require_relative "host"

# Since Ruby 3.2 the first Timeout starts a thread that stays. It must not count as an example's.
Timeout.timeout(1) { nil }

# Helpers for the examples of a manager. The including group defines `reactor`.
#
# Every example must end with everything stopped, no thread left, and nothing on stderr that it did not expect.
RSpec.shared_context "with a manager" do
  let(:host) { Conformance::Host.for(reactor) }

  before do
    @threads = Thread.list
    @said = $stderr = StringIO.new
    @managers = []
    @gates = []
    @backgrounds = []
  end

  after do |example|
    @gates.each(&:open)
    @managers.each { |manager| manager.stop(timeout: 5) }
    host.stop
    eventually { expect(Thread.list - @threads).to be_empty } unless example.exception
    expect(OnlineManager.current).to be_nil
    expect(@said.string).to eq "" unless example.exception
  ensure
    [*@backgrounds, host.runner].compact.each(&:kill)
    $stderr = STDERR
    warn(@said.string) unless @said.string.empty?
  end

  # Returns and clears the output on stderr. Output that is left at the end fails the example.
  #
  # @return [String]
  def said = @said.string.dup.tap { @said.string = +"" }

  # @return [Conformance::Config]
  def recording(**options) = Conformance::Config.new(**options)

  # Sets a manager up in the reactor, or runs it in a reactor of its own.
  #
  # @param config [Object]
  # @param way [Symbol] :setup or :run
  # @return [OnlineManager]
  def start(config = recording, way: :setup, **options)
    manager = OnlineManager.new(config, reactor:, **options)
    @managers << manager
    if way == :setup
      host.call { manager.setup }
    else
      host.run { manager.run }
      wait_until { config.last(:setup) }
    end
    manager
  end

  # @return [Conformance::Gate] a gate, which is opened at the end of the example at the latest
  def new_gate = Conformance::Gate.new.tap { |gate| @gates << gate }

  # @return [Conformance::Background] a thread, which is ended at the end of the example at the latest
  def background(&block) = Conformance::Background.new(&block).tap { |thread| @backgrounds << thread }

  # Waits until nobody is due and no callback runs.
  def settle(manager)
    wait_until { manager.stats.values_at(:due, :announcing, :departing, :delivering) == [0, 0, 0, nil] }
  end

  # Waits until a number of seconds has passed since `from`.
  def pass_time(seconds, from: Wait.monotonic)
    wait_until(limit: seconds + 5) { Wait.monotonic > from + seconds }
  end

  # Runs the block in a trap handler, on the current thread.
  #
  # @return what it returned
  # @raise what it raised
  def in_trap_handler(&block)
    outcome = nil
    previous = trap(:USR1) { outcome = Conformance::Outcome.of(&block) }
    Process.kill(:USR1, Process.pid)
    wait_until { outcome }.value
  ensure
    trap(:USR1, previous)
  end

  # Keeps the reactor busy inside `offline` while the block runs. The manager's config must be one of {#occupiable}.
  def occupying(manager)
    @occupied = new_gate
    manager.seen(:occupant)
    manager.leave(:occupant)
    wait_until { @occupied.reached? }
    yield
  ensure
    @occupied.open
    settle(manager)
  end

  # @return [Conformance::Config] for {#occupying}
  def occupiable(**options)
    recording(**options, offline: ->(id) { @occupied.pass if id == :occupant })
  end
end
