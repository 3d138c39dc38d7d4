# frozen_string_literal: true

# Calls everything that the extension has, with ids that nothing else references, and checks the results. For child
# processes under memory stress: garbage collections at every allocation, objects that move, valgrind.
#
# Arguments: the reactor, and the stress. "start" and "compact" act between steps, "stress" and "move" at each
# allocation within them. The first of each pair collects garbage, the second also moves all objects that can move.

require "online_manager"
require "timeout"

REACTOR = ARGV.fetch(0).to_sym
MEMORY_STRESS = ARGV.fetch(1)
require "eventmachine" if REACTOR == :eventmachine
require "async" if REACTOR == :fiber

# How long a callback may take to come, in seconds: the garbage collector and valgrind are slow.
LIMIT = 60

# An id with its own `hash` and `eql?`. Half of the ids share one `hash`.
class Point
  attr_reader :x

  def initialize(coordinate) = @x = coordinate
  def hash = (x % 2).hash
  def eql?(other) = other.is_a?(Point) && x == other.x
end

SEVEN = 7

# Each call creates a new object of an equal id.
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

# Records its callbacks.
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

  # Checks that these callbacks came, in this order.
  def expect(*expected)
    expected.each do |call|
      came = Timeout.timeout(LIMIT) { calls.pop }
      came.eql?(call) or raise "expected #{call.inspect}, got #{came.inspect}"
    end
  end
end

# The same with the `_all` callbacks.
class RecorderOfMany < Recorder
  def online_all(user_ids) = note(:online_all, user_ids)
  def offline_all(user_ids) = note(:offline_all, user_ids)

  # Checks that these users went offline, in batches of any size.
  def expect_gone(users)
    gone = []
    Timeout.timeout(LIMIT) { gone.concat(calls.pop.last) until gone.size == users.size }
    check(same?(gone, users))
  end
end

# Controls the stress on the memory.
module Memory
  # Applies the stress before a step, and with "stress" and "move" during it.
  def self.start_stress
    case MEMORY_STRESS
    when "start" then GC.start
    when "compact" then GC.verify_compaction_references(toward: :empty)
    when "stress" then GC.stress = true
    when "move" then GC.auto_compact = GC.stress = true
    end
    # Allocates new objects, so that the places of collected or moved objects are reused.
    Array.new(GC.stress ? 1 : 1_000) { "rubble #{rand}" }
  end

  def self.stop_stress
    GC.stress = GC.auto_compact = false
  end
end

# A part of the exercise: one manager, and steps that use it.
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

  # Runs the block in the reactor, if the reactor can run blocks of others.
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

  # Sends a heartbeat in `offline`. Its `online` follows on the reactor, and raises.
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
    # Before that, a heartbeat would be lost with the `online` that raised.
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

# Heartbeats and callbacks of many users.
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

# The first `online` clears the list that `seen_all` was given.
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

# A forked child with a user of each kind of id, beside its parent.
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

# Copies of a heartbeat Proc that outlive their manager.
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
# move, without our gem too. The arguments of a running method do not move.
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
