# frozen_string_literal: true

# What does a store cost that several machines share, and how much load does it put on the Redis server?

require_relative "support/bench"
require_relative "support/contenders/in_process"
require_relative "support/contenders/redis"
require_relative "support/contenders/shared"

KINDS = %w[integers UUIDs].freeze
USERS = 100_000
# Seconds. A user who keeps sending heartbeats is written again after a third of it.
TIMEOUT = 6
OURS = "store `:memory`"

# Reads the server's statistics from INFO.
class Counter
  def initialize(server)
    @redis = server.connect
  end

  # @return [Integer] bytes
  def memory = Integer(@redis.info("memory").fetch("used_memory"))

  # @return [Hash{String => Array<Integer>}] by command: the number of calls, and the microseconds that they took
  def commands
    @redis.info("commandstats").transform_values { |of| of.values_at("calls", "usec").map { |number| Integer(number) } }
  end

  # @return [Array<Integer>] the number of scripts that ran while the block ran, and the microseconds that they took
  def scripts
    before = totals
    yield
    totals.zip(before).map { |now, then_| now - then_ }
  end

  private

  def totals
    of_scripts = commands.values_at("evalsha", "eval").compact
    of_scripts.empty? ? [0, 0] : of_scripts.transpose.map(&:sum)
  end
end

# One contender in its own process.
class TimedContender < Bench::TimedContender
  # @return [Float] nanoseconds per heartbeat
  def time(number)
    passes = number.fdiv(@heartbeats.size).ceil
    @contender.time(@heartbeats.first(number), passes).fdiv([number, @heartbeats.size].min * passes)
  end
end

HEARTBEATS = <<~TEXT
  In brackets: how many times that of the memory store. The server is on this machine, on a socket. A heartbeat ends in the
  process' own memory, as it does without a store.
TEXT

# @return [Hash{String => Array}] how to make each contender, and how many heartbeats a round has
def contenders(server)
  { OURS => [-> { Bench::Ours.new }, 1_000_000],
    "store `\"redis://…\"`" => [-> { Bench::Shared.new(server.url, namespace: "heartbeats") }, 1_000_000],
    "Redis `ZADD` for each" => [-> { Bench::RedisContender.new(server) }, 2_000] }
end

def measure_heartbeats(run, server)
  columns = KINDS.map do |kind|
    samples = heartbeats_of(run, server, Bench::Ids.of(kind, Bench.users(10_000)))
    run.figure("#{kind}/to memory", Bench.ratio(samples.values[1], samples[OURS]))
    samples
  end
  rows = columns.first.keys.map do |name|
    [name, *columns.map { |samples| Bench.compared(samples[name], samples[OURS]) }]
  end
  users = Bench.thousands(Bench.users(10_000))
  run.table("Heartbeats", ["a heartbeat of a known user", *KINDS.map { |kind| "#{users} #{kind}" }], rows,
            remarks: HEARTBEATS)
end

# @return [Hash{String => Array<Float>}] the samples of each contender
def heartbeats_of(run, server, ids)
  server.connect.flushall
  beaters = contenders(server).transform_values do |make, number|
    [Bench::Child.new { TimedContender.new(make.call, ids) }, number]
  end
  run.alternate(beaters, rounds: run.rounds(5)) { |(beater, number)| beater.call(:time, number) }
ensure
  beaters&.each_value { |beater, _| beater.retire }
end

# The load on the server, from one process.
class Load
  def initialize(server, ids)
    @server = server
    @ids = ids
    @counter = Counter.new(server)
  end

  # Sends heartbeats of all users as fast as one thread can, for a number of timeouts.
  #
  # @return [Hash{String => Float}] heartbeats per second, and scripts per user and timeout
  def steady(timeouts)
    shared = Bench::Shared.new(@server.url, TIMEOUT, namespace: "steady")
    shared.prepare(@ids)
    heartbeats = 0
    took = nil
    scripts, micros = @counter.scripts do
      took = Bench.time do
        heartbeats += shared.send_heartbeats(@ids) && @ids.size while Bench.now < (@until ||= finish(timeouts))
      end
    end
    per = @ids.size * took / 1e9 / TIMEOUT
    { "rate" => heartbeats * 1e9 / took, "commands" => scripts / per, "busy" => micros / (took / 1e3) }
  ensure
    shared.close
  end

  # @return [Hash{String => Float}] nanoseconds until all users are written, and the server's microseconds per user
  def heartbeats(rounds)
    shared = Bench::Shared.new(@server.url, TIMEOUT, namespace: "heartbeats")
    shared.prepare(@ids)
    samples = Array.new(rounds) do
      sleep (TIMEOUT / 3.0) + 0.1
      took = nil
      _, micros = @counter.scripts { took = shared.flush(@ids) }
      [took, micros.fdiv(@ids.size)]
    end
    %w[flush server].zip(samples.transpose.map { |values| Bench.median(values) }).to_h
  ensure
    shared.close
  end

  # @return [Hash{String => Float}] transitions per second, and the server's microseconds per transition
  def transitions(rounds)
    shared = Bench::Shared.new(@server.url, namespace: "transitions")
    samples = Array.new(rounds) do
      rate = nil
      _, micros = @counter.scripts { rate = shared.transitions(@ids) }
      [rate, micros.fdiv(2 * @ids.size)]
    end
    %w[rate server].zip(samples.transpose.map { |values| Bench.median(values) }).to_h
  ensure
    shared.close
  end

  # @return [Float] bytes of the server's memory per online user
  def memory
    before = @counter.memory
    shared = Bench::Shared.new(@server.url, namespace: "memory")
    shared.prepare(@ids)
    sleep 0.5 # until what has been delivered is out of the log
    (@counter.memory - before).fdiv(@ids.size)
  ensure
    shared.close
  end

  private

  def finish(timeouts) = Bench.now + (timeouts * TIMEOUT * 1_000_000_000)
end

SERVER = <<~TEXT
  One process, one server. The time is the server's own, in its scripts. Commands are scripts that ran, for each user and
  timeout, while one Ruby thread sent heartbeats of all users as fast as it could; they include sweeps and polls.
TEXT

def measure_server(run, server)
  rows = []
  run.each(KINDS) do |kind|
    ids = Bench::Ids.of(kind, Bench.users(USERS))
    server.connect.flushall
    figures = Bench::Child.open(-> { Load.new(server, ids) }) do |child|
      { "memory" => child.call(:memory), "heartbeats" => child.call(:heartbeats, run.rounds(3)),
        "transitions" => child.call(:transitions, run.rounds(3)), "steady" => child.call(:steady, 3) }
    end
    run.figure(kind, figures)
    run.figure("#{kind}/commands", figures["steady"]["commands"])
    rows << row(kind, figures)
  end
  header = ["#{Bench.thousands(Bench.users(USERS))} users", "memory, a user", "all written", "server, a heartbeat",
            "transitions a second", "server, a transition", "heartbeats a second", "commands", "server busy"]
  run.table("The server", header, rows, remarks: SERVER)
end

def row(kind, figures)
  heartbeats, transitions, steady = figures.values_at("heartbeats", "transitions", "steady")
  [kind, "#{figures["memory"].round} B", Bench.duration(heartbeats["flush"]),
   Bench.duration(heartbeats["server"] * 1_000),
   Bench.thousands(transitions["rate"].round), Bench.duration(transitions["server"] * 1_000),
   Bench.thousands(steady["rate"].round), Bench.digits(steady["commands"]), "#{Bench.digits(steady["busy"] * 100)} %"]
end

# One of several processes: sends heartbeats of its own users, and records each callback, of any process' user.
class Member
  # Records each callback.
  class Config < Bench::SilentConfig
    attr_reader :calls

    def initialize(timeout)
      super
      @calls = []
    end

    def online(user_id) = @calls << [user_id, Bench.now]
    def offline(_user_id) = nil
  end

  def initialize(server)
    @config = Config.new(60)
    @manager = OnlineManager.new(@config, reactor: :thread, store: server.url, namespace: "members")
    @manager.setup
    @manager.start
  end

  def leases = @manager.stats[:leases]

  # @return [Array<Array>] each id, and the time of its heartbeat
  def come(ids, pause)
    ids.map do |id|
      sleep pause
      at = Bench.now
      @manager.seen(id)
      [id, at]
    end
  end

  def calls = @config.calls

  def close
    @manager.stop
    nil
  end
end

DELAYS = <<~TEXT
  From a user's first heartbeat in one of three processes to `online` in the one that delivers, of users who come one by
  one, 2 ms apart in each process. The others poll the log every 20 ms.
TEXT

def measure_delay(run, server)
  server.connect.flushall
  delays = with_members(server) { |members| delays_of(members, Bench.users(3_000)) }
  shares = { "median" => 0.5, "p99" => 0.99, "longest" => 1.0 }
           .transform_values { |share| Bench.percentile(delays, share) }
  run.figure("delay", shares)
  run.table("How long a transition takes, with three processes", ["", *shares.keys],
            [["`online`", *shares.values.map { |value| Bench.duration(value) }]], remarks: DELAYS)
end

# Yields three processes, once they have distributed the partitions among themselves.
def with_members(server)
  members = Array.new(3) { Bench::Child.new { Member.new(server) } }
  sleep 0.1 until members.map { |member| member.call(:leases) }.then { |all| all.sum == 16 && all.min >= 4 }
  yield members
ensure
  members&.each(&:retire)
end

# @param count [Integer] how many users come online in each process
# @return [Array<Integer>] nanoseconds from each heartbeat to its callback
def delays_of(members, count)
  coming = members.each_with_index.map do |member, number|
    Thread.new { member.call(:come, Array.new(count) { |user| "#{number}:#{user}" }, 0.002) }
  end
  came = coming.flat_map(&:value)
  sleep 1
  called = members.flat_map { |member| member.call(:calls) }.to_h
  came.map { |id, at| called.fetch(id) - at }
end

Bench.measure("redis_store") do |run|
  Bench::RedisServer.open do |server|
    run.each(%i[measure_heartbeats measure_server measure_delay]) { |method| send(method, run, server) }
  end
end
