# frozen_string_literal: true

# Calls everything that the extension has, with ids that nothing else holds, and checks what comes of it. For child
# processes in which memory is handled roughly: the garbage collector at every allocation, objects that move, valgrind.
#
# Arguments: the reactor, and how roughly. "start" and "compact" are what is done between the steps, "stress" and "move"
# at each allocation in them. The first of either collects garbage, the second moves all objects that may be moved too.

require "online_manager"
require "timeout"

REACTOR = ARGV.fetch(0).to_sym
MEMORY_STRESS = ARGV.fetch(1)
require "eventmachine" if REACTOR == :eventmachine
require "async" if REACTOR == :fiber

# Seconds for a callback to come: the garbage collector and valgrind take their time.
LIMIT = 60

# An id with `hash` and `eql?` of its own, whose `hash` is that of half the others.
class Point
  attr_reader :x

  def initialize(coordinate) = @x = coordinate
  def hash = (x % 2).hash
  def eql?(other) = other.is_a?(Point) && x == other.x
end

SEVEN = 7

# Each call makes another object of an equal id.
IDS = [
  -> { SEVEN }, -> { :static }, -> { "dynamic #{SEVEN}".to_sym }, -> {},
  -> { "short #{SEVEN}" }, -> { "long #{SEVEN} " * 20 }, -> { "grüße #{SEVEN}" }, -> { "bytes #{SEVEN}\xff".b },
  -> { "wide #{SEVEN}".encode("UTF-16LE") },
  -> { SEVEN * 1e300 }, -> { (2**70) + SEVEN }, -> { Rational(SEVEN, 3) },
  -> { [SEVEN, ["array #{SEVEN}"]] }, -> { { "key #{SEVEN}" => [SEVEN] } },
  -> { Point.new(SEVEN) }, -> { Point.new(9) }
].freeze

def ids = IDS.map(&:call)

def same?(some, others)
  some.size == others.size && some.to_h { |id| [id, true] }.then { |all| others.all? { |id| all.key?(id) } }
end

def check(what) = what || raise("not so at #{caller(1, 1).first}")

# Writes down what is called.
class Recorder
  attr_reader :heartbeat, :calls
  attr_accessor :hook

  def initialize = @calls = Thread::Queue.new
  def timeout = 3_600
  def setup(&heartbeat) = @heartbeat = heartbeat
  def online(user_id) = note(:online, user_id)
  def offline(user_id) = note(:offline, user_id)
  def on_error(error, user_id) = note(:on_error, [error.class, user_id])

  def note(method, argument)
    calls << [method, argument]
    hook&.call(method, argument)
  end

  # Makes sure that these were called, in this order.
  def expect(*expected)
    expected.each do |call|
      came = Timeout.timeout(LIMIT) { calls.pop }
      came.eql?(call) or raise "expected #{call.inspect}, got #{came.inspect}"
    end
  end
end

# The same, with the callbacks for many.
class RecorderOfMany < Recorder
  def online_all(user_ids) = note(:online_all, user_ids)
  def offline_all(user_ids) = note(:offline_all, user_ids)

  # Makes sure that these went offline, in whichever parts.
  def expect_gone(users)
    gone = []
    Timeout.timeout(LIMIT) { gone.concat(calls.pop.last) until gone.size == users.size }
    check(same?(gone, users))
  end
end

# What is done to the memory.
module Memory
  # Before a step: and with "stress" and "move", what goes on in it.
  def self.start_stress
    case MEMORY_STRESS
    when "start" then GC.start
    when "compact" then GC.verify_compaction_references(toward: :empty)
    when "stress" then GC.stress = true
    when "move" then GC.auto_compact = GC.stress = true
    end
    # As in a program that goes on: the place of what has been collected or moved is used again.
    Array.new(GC.stress ? 1 : 1_000) { "rubble #{rand}" }
  end

  def self.stop_stress
    GC.stress = GC.auto_compact = false
  end
end

# One manager, from which steps ask this and that.
class Part
  # @param config [Recorder]
  def initialize(config)
    @config = config
    @manager = OnlineManager.new(config, reactor: REACTOR)
    step("setup") { in_reactor { @manager.setup } }
  end

  private

  def step(name)
    Memory.start_stress
    yield
  ensure
    Memory.stop_stress
    puts "#{self.class}: #{name}"
  end

  # In the reactor, if that is one that can be entered.
  def in_reactor(&block)
    return yield if REACTOR == :thread

    answers = Thread::Queue.new
    job = -> { answers << block.call }
    REACTOR == :fiber ? JOBS << job : EM.schedule(&job)
    answers.pop
  end
end

# Heartbeats one by one.
class Each < Part
  def call
    step("heartbeats of strangers") { bring_online }
    step("heartbeats of users") { send_heartbeats }
    step("questions") { query }
    step("lists") { check(same?(@manager.online_users, ids)) }
    step("errors") { fail_in_each_way }
    step("departures") { leave }
    step("a heartbeat in offline") { rejoin }
    step("and again") { return_online }
    step("stop") { stop }
  end

  private

  def bring_online
    IDS.each { |id| check(@manager.seen(id.call)) }
    @config.expect(*ids.map { |id| [:online, id] })
  end

  def send_heartbeats
    IDS.each { |id| check(@config.heartbeat.call(id.call) && @manager.seen(id.call, timeout: 3_600)) }
    check(@manager.seen_all(ids))
  end

  def query
    check(IDS.all? { |id| @manager.online?(id.call) && @manager.last_seen(id.call) })
    check(!@manager.online?([7]) && !@manager.last_seen(Point.new(11)) && !@manager.leave((2**70) + 9))
    check(@manager.size == IDS.size && @manager.stats[:online] == IDS.size && @manager.inspect)
  end

  def fail_in_each_way
    @config.hook = ->(_, id) { raise ArgumentError if id.eql?(Point.new(13)) }
    [
      -> { @manager.seen(Point.new(13)) }, -> { @config.heartbeat.call },
      -> { @manager.seen([1], timeout: "x") }, -> { @manager.seen_all([[2], BasicObject.new]) }
    ].each { |call| check(fails?(&call)) }
    @config.expect([:online, Point.new(13)])
  end

  def fails?
    yield
    false
  rescue ArgumentError, NoMethodError
    true
  end

  def leave
    IDS.each { |id| check(@manager.leave(id.call)) }
    @config.expect(*ids.map { |id| [:offline, id] })
  end

  # A heartbeat in `offline`, whose `online` follows on the reactor, and raises.
  def rejoin
    sender = Thread.current
    @config.hook = lambda do |method, id|
      @manager.seen(id.dup) if method == :offline
      raise IOError if method == :online && Thread.current != sender
    end
    @manager.seen([7, 3])
    @manager.leave([7, 3])
    @config.expect([:online, [7, 3]], [:offline, [7, 3]], [:online, [7, 3]], [:on_error, [IOError, [7, 3]]])
    @config.hook = nil
    # Before that a heartbeat would share the fate of the `online` that raised.
    sleep 0.001 until @manager.size.zero?
  end

  def return_online
    check(@manager.seen([7, 3]))
    @config.expect([:online, [7, 3]])
  end

  def stop
    @manager.stop
    @config.expect([:offline, [7, 3]])
    check(!@manager.seen(7) && !@config.heartbeat.call([8]) && @manager.size.zero?)
  end
end

# Heartbeats and callbacks of many.
class Together < Part
  def call
    step("heartbeats") { bring_online }
    step("all due") { expire }
    step("who stay") { bring_online }
    step("stop") { stop }
  end

  private

  def bring_online
    check(@manager.seen_all(ids))
    @config.expect([:online_all, ids])
  end

  def expire
    @manager.seen_all(ids, timeout: 0.001)
    @config.expect_gone(ids)
  end

  def stop
    @manager.stop
    @config.expect_gone(ids)
  end
end

# The list that `seen_all` was given is cleared by the first `online`.
class Clearing < Part
  def call
    list = ids
    @config.hook = ->(*) { list.clear.concat(Array.new(IDS.size) { "rubble #{rand}" }) }
    step("heartbeats") do
      check(@manager.seen_all(list))
      @config.expect(*ids.map { |id| [:online, id] })
    end
    @config.hook = nil
    @manager.stop
  end
end

# A child with a user in each of the two kinds of memory, beside its parent.
class Forking < Part
  def call
    check(@manager.seen([1]))
    child = fork { run_child }
    check(Process.wait2(child).last.success?)
    check(same?(@manager.online_users, [[1]]))
    @manager.stop
  end

  private

  def run_child
    Memory.start_stress
    check(@manager.online_users.empty? && @manager.seen([2]) && @manager.seen("two") && @manager.leave([2]))
    check(same?(@manager.online_users - [[2]], ["two"]))
    Memory.stop_stress
    exit
  end
end

# Copies of a heartbeat, which outlive their manager.
class Leftovers < Part
  def self.call
    copies = Array.new(5) { new(Recorder.new).leave_copies }
    Memory.start_stress
    GC.start
    Memory.stop_stress
    Array.new(10_000) { "rubble #{rand}" }
    copies.each { |heartbeats| check(heartbeats.none? { |heartbeat| heartbeat.call([1]) }) }
  end

  def leave_copies
    @manager.seen([1])
    @manager.stop
    holder = Class.new
    holder.define_method(:heartbeat, &@config.heartbeat)
    [@config.heartbeat.dup, holder.new.method(:heartbeat)]
  end
end

def exercise
  Each.new(Recorder.new).call
  Together.new(RecorderOfMany.new).call
  Clearing.new(Recorder.new).call
  Forking.new(Recorder.new).call
  Leftovers.call
  puts "done"
end

# EventMachine keeps the addresses of two Hashes where the garbage collector does not see them, and crashes when they
# are moved, without us too. The arguments of a method that runs stay where they are.
def in_place(_connections, _timers) = yield

case REACTOR
when :thread then exercise
when :eventmachine
  EM.run do
    Thread.new do
      in_place(EM.instance_variable_get(:@conns), EM.instance_variable_get(:@timers)) { exercise }
    ensure
      EM.stop
    end
  end
when :fiber
  JOBS = Thread::Queue.new
  worker = Thread.new do
    exercise
  ensure
    JOBS.close
  end
  Async do
    while (job = JOBS.pop)
      job.call
    end
  end
  worker.join
end
