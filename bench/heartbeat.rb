# frozen_string_literal: true

# What does a heartbeat of a known user cost, and what would the alternatives cost?

require_relative "support/bench"
require_relative "support/contenders/in_process"
require_relative "support/contenders/postgres"
require_relative "support/contenders/redis"
require_relative "support/contenders/sqlite"
require_relative "support/contenders/timers"

# One contender in its own process, with the heartbeats to time it with.
class TimedContender
  # The approximate length of a measurement, in nanoseconds.
  LENGTH = Float(ENV.fetch("BENCH_SECONDS", 0.1)) * 1e9
  # The minimum number of heartbeats in a measurement.
  FEWEST = 50

  def initialize(contender, ids)
    @contender = contender
    @ids = ids
    @position = 0
  end

  def prepare
    @contender.prepare(@ids)
    @heartbeats = Bench::Ids.as_they_come(@ids)
    GC.start
    nil
  end

  # @return [Float] nanoseconds for each heartbeat
  def time(threads)
    ids, passes = portion(threads)
    duration = threads == 1 ? @contender.time(ids, passes) : @contender.time_threads(ids, passes, threads)
    duration.to_f / ids.size / passes
  end

  def close
    @contender.close
    nil
  end

  private

  # All ids, several times if they are quick; otherwise as many as fit into LENGTH, each time the next ones.
  def portion(threads)
    wanted = (LENGTH / cost(threads)).ceil.clamp(FEWEST, 10_000_000)
    return [@heartbeats, wanted / @heartbeats.size] if wanted >= @heartbeats.size

    [following(wanted), 1]
  end

  # @return [Float] the approximate cost of a heartbeat in nanoseconds, from a trial
  def cost(threads)
    @costs ||= {}
    @costs[threads] ||= begin
      ids = following(FEWEST)
      ids = following(2_000) if @contender.time(ids, 1) < LENGTH / 50
      @contender.time(ids, 1).fdiv(ids.size)
    end
  end

  def following(number)
    number = [number, @heartbeats.size].min
    @position = 0 if @position + number > @heartbeats.size
    @heartbeats[@position, number].tap { @position += number }
  end
end

OURS = "OnlineManager"
CONTENDERS = {
  "an empty block" => ->(_, _) { Bench::EmptyBlock.new },
  OURS => ->(_, _) { Bench::Ours.new },
  "`hash[id] = 1`" => ->(_, _) { Bench::BareHash.new },
  "Hash, Mutex and clock" => ->(_, _) { Bench::LockedHash.new },
  "an EventMachine timer each" => ->(_, _) { Bench::Timers.new },
  "Redis `ZADD`" => ->(servers, _) { Bench::RedisContender.new(servers.fetch(:redis)) },
  "SQLite `UPDATE`" => ->(_, _) { Bench::SqliteContender.new },
  "PostgreSQL `UPDATE`" => ->(servers, kind) { Bench::PostgresContender.new(servers.fetch(:postgres), kind) }
}.freeze

# The sizes of the tables, then the additional sizes of the plot.
SIZES = [10_000, 1_000_000].freeze
CURVE = [1_000, 100_000].freeze
CASES = Bench::Ids::KINDS.product(SIZES) + %w[integers UUIDs].product(CURVE)

# @return [Hash{Integer => Hash}] the samples of each contender, by the number of threads
def samples_of(run, servers, kind, size)
  ids = Bench::Ids.of(kind, Bench.users(size))
  beaters = CONTENDERS.transform_values do |contender|
    Bench::Child.new { TimedContender.new(contender.call(servers, kind), ids) }
  end
  beaters.each_value { |beater| beater.call(:prepare) }
  threads = SIZES.include?(size) ? [1, 4] : [1]
  samples = {}
  run.each(threads) do |number|
    samples[number] = run.alternate(beaters, rounds: run.rounds(7)) { |beater| beater.call(:time, number) }
  end
  samples
ensure
  beaters&.each_value(&:retire)
end

def keep(run, path, samples)
  samples.each do |name, durations|
    run.figure("#{path}/#{name}", Bench.median(durations))
    run.figure("#{path}/ours to #{name}", Bench.ratio(samples[OURS], durations))
  end
end

# @return [Array<Array<String>>] a row for each contender with a cell for each kind of ids
def rows(columns)
  CONTENDERS.keys.map do |name|
    [name, *columns.map { |samples| Bench.compared(samples[name], samples[OURS]) }]
  end
end

REMARKS = <<~TEXT
  In brackets: how many times OnlineManager's. The heartbeats are of known users in random order, each with an id that
  is another object than the first one's. With four threads: the time until all of them are done, for each heartbeat.
  The symbols were made from strings, as applications would make them; a symbol literal costs what an integer does.

  EventMachine was configured to allow 20,000,000 timers: it comes with room for 100,000, which one heartbeat of each of
  100,001 users within the timeout exceeds. Redis and PostgreSQL are on a Unix socket of this machine, with their
  defaults, except that Redis writes nothing to the disk. PostgreSQL waits for the disk at each `UPDATE`. SQLite has a
  write-ahead log and does not wait for the disk, as Rails sets it up.
TEXT

# Yields the servers that some contenders need.
def with_servers(run)
  Bench::RedisServer.open do |redis|
    Bench::PostgresServer.open do |postgres|
      run.figure("versions", { "Redis" => redis.version, "PostgreSQL" => postgres.version,
                               "SQLite" => SQLite3::SQLITE_VERSION, "EventMachine" => EventMachine::VERSION })
      yield({ redis:, postgres: })
    end
  end
end

Bench.measure("heartbeat") do |run|
  all = {}
  with_servers(run) do |servers|
    run.each(CASES) do |kind, size|
      samples_of(run, servers, kind, size).each do |threads, samples|
        keep(run, "#{kind}/#{size}/#{threads}", samples)
        all[[kind, size, threads]] = samples
      end
    end
  end

  tables = SIZES.product([1, 4])
  tables.each do |size, threads|
    columns = Bench::Ids::KINDS.map { |kind| all.fetch([kind, size, threads]) }
    title = "#{Bench.thousands(Bench.users(size))} users, #{threads == 1 ? "one thread" : "four threads"}"
    run.table(title, ["a heartbeat by", *Bench::Ids::KINDS], rows(columns),
              remarks: tables.last == [size, threads] ? REMARKS : "")
  end
end
