# frozen_string_literal: true

# How much memory does a user take?

require_relative "support/bench"
require_relative "support/contenders/in_process"
require_relative "support/contenders/postgres"
require_relative "support/contenders/redis"
require_relative "support/contenders/sqlite"
require_relative "support/contenders/timers"
require_relative "support/memory"

# A contender that learns new users, in its own process. The ids are created one by one and become garbage, as in an
# application.
class Newcomers
  # The number of garbage collections in one measurement.
  COLLECTIONS = 10

  # @param pid [Integer, String] the process to measure
  def initialize(contender, kind, users, pid = "self")
    @contender = contender
    @pid = pid
    @random = Random.new(1)
    @kind = kind
    @users = users
  end

  # @return [Float] bytes per user
  def bytes
    together = (@users / COLLECTIONS).clamp(1..)
    # Fills the heap with garbage first, so that later garbage needs no new memory.
    ids(0, together)
    GC.start
    before = Bench::Memory.resident(@pid)
    (0...@users).step(together) do |first|
      @contender.send_heartbeats(ids(first, [together, @users - first].min))
      GC.start
    end
    (Bench::Memory.resident(@pid) - before).fdiv(@users)
  end

  private

  def ids(first, number)
    @kind == "integers" ? (first...first + number).to_a : Array.new(number) { Bench::Ids.uuid(@random) }
  end
end

# What a database keeps on disk.
class OnDisk
  def initialize(contender, kind, users)
    @contender = contender
    @kind = kind
    @users = users
  end

  # @return [Float] bytes per user
  def bytes
    @contender.prepare(Bench::Ids.of(@kind, @users))
    @contender.size.fdiv(@users)
  ensure
    @contender.close
  end
end

OURS = "OnlineManager"
CONTENDERS = { OURS => Bench::Ours, "Hash, Mutex and clock" => Bench::LockedHash }.freeze
# The sizes of the plot. The table shows the last one.
SIZES = [10_000, 100_000, 1_000_000].freeze

REMARKS = <<~TEXT
  Resident memory of the process (of the server, for Redis), as the kernel counts it, after one heartbeat of each
  user. With a timer for each heartbeat it grows with every further one within the timeout. What PostgreSQL and SQLite
  take is on disk, table and index, before any `UPDATE`; they, Redis and the timers were measured once.
TEXT

# Runs in a child process: free memory that one contender leaves in the heap would hide the next one's.
#
# @return [Float] bytes per user
def bytes(&maker) = Bench::Child.open(maker) { |child| child.call(:bytes) }

# @return [Hash{String => Array<Float>}] bytes per user, by contender
def samples_of(run, kind, users)
  samples = run.alternate(CONTENDERS) { |contender| bytes { Newcomers.new(contender.new, kind, users) } }
  samples["an EventMachine timer each"] = [bytes { Newcomers.new(Bench::Timers.new, kind, users) }]
  # Each sample has its own server: a server that forgot its users would not return their memory.
  Bench::RedisServer.open do |redis|
    samples["Redis sorted set"] = [bytes { Newcomers.new(Bench::RedisContender.new(redis), kind, users, redis.pid) }]
  end
  samples
end

# @return [Hash{String => Array<Float>}] bytes per user on disk, by contender
def on_disk(postgres, kind, users)
  databases = { "SQLite" => -> { Bench::SqliteContender.new },
                "PostgreSQL" => -> { Bench::PostgresContender.new(postgres, kind) } }
  databases.to_h { |name, maker| ["#{name} (on disk)", [bytes { OnDisk.new(maker.call, kind, users) }]] }
end

Bench.measure("memory") do |run|
  kinds = %w[integers UUIDs]
  columns = {}
  run.each(kinds.product(SIZES)) do |kind, size|
    columns[kind] = samples_of(run, kind, Bench.users(size))
    columns[kind].each { |name, bytes| run.figure("#{kind}/#{size}/#{name}", Bench.median(bytes)) }
  end
  Bench::PostgresServer.open do |postgres|
    kinds.each { |kind| columns[kind].merge!(on_disk(postgres, kind, Bench.users(SIZES.last))) }
  end

  rows = columns.values.first.keys.map do |name|
    [name, *kinds.map do |kind|
      bytes = Bench.median(columns[kind][name])
      "#{bytes.round} B (#{Bench.times(bytes / Bench.median(columns[kind][OURS]))})"
    end]
  end
  run.table("A user, of #{Bench.thousands(Bench.users(SIZES.last))}", ["kept by", *kinds], rows, remarks: REMARKS)
end
