# frozen_string_literal: true

# What does a shared store cost, on one machine?

require_relative "support/bench"
require_relative "support/contenders/in_process"
require_relative "support/contenders/shared"
require_relative "support/contenders/sqlite"

KINDS = %w[integers UUIDs].freeze
SIZES = [10_000, 1_000_000].freeze
FLUSHED = 100_000
# Seconds. A user who keeps sending heartbeats is written again after a third of it.
SHORT = 6

OURS = "store `:memory`"
CONTENDERS = {
  OURS => -> { Bench::Ours.new },
  "store `\"sqlite:…\"`" => -> { Bench::SharedFile.new },
  "SQLite `UPDATE` for each" => -> { Bench::SqliteContender.new }
}.freeze

# One contender in its own process.
class TimedContender < Bench::TimedContender
  FEWEST = 1_000

  # @return [Float] nanoseconds per heartbeat
  def time
    one = @contender.time(@heartbeats.first(FEWEST), 1).fdiv(FEWEST)
    number = (1e8 / one).ceil
    return @contender.time(@heartbeats.first(number), 1).fdiv(number) if number < @heartbeats.size

    passes = number / @heartbeats.size
    @contender.time(@heartbeats, passes).fdiv(@heartbeats.size * passes)
  end
end

HEARTBEATS = <<~TEXT
  In brackets: how many times that of the memory store. With the file a heartbeat ends in the process' own memory, as
  it does without. What is written, and how often, does not depend on a user's heartbeat rate.
TEXT

# @return [Hash{String => Array<Float>}] the samples of each contender
def heartbeats_of(run, ids)
  children = CONTENDERS.transform_values { |contender| Bench::Child.new { TimedContender.new(contender.call, ids) } }
  run.alternate(children, rounds: run.rounds(7)) { |child| child.call(:time) }
ensure
  children&.each_value(&:retire)
end

def measure_heartbeats(run)
  cases = KINDS.product(SIZES)
  columns = []
  run.each(cases) do |kind, size|
    columns << (samples = heartbeats_of(run, Bench::Ids.of(kind, Bench.users(size))))
    run.figure("#{kind}/#{size}/to memory", Bench.ratio(samples.values[1], samples[OURS]))
  end
  rows = CONTENDERS.keys.map do |name|
    [name, *columns.map { |samples| Bench.compared(samples[name], samples[OURS]) }]
  end
  header = ["a heartbeat of a known user", *cases.map { |kind, size| "#{Bench.thousands(size)} #{kind}" }]
  run.table("Heartbeats", header, rows, remarks: HEARTBEATS)
end

WRITTEN = <<~TEXT
  The heartbeats come all at once, and are written since no user was written within a third of the timeout. The
  transitions are those of as many users who come and leave, from the first heartbeat to the last callback.
TEXT

def measure_writing(run)
  rows = []
  run.each(KINDS) do |kind|
    ids = Bench::Ids.of(kind, Bench.users(FLUSHED))
    figures = Bench::Child.open(-> { Writing.new(ids) }) { |child| child.call(:measure, run.rounds) }
    figures.each { |name, figure| run.figure("#{kind}/#{name}", figure) }
    rows << [kind, Bench.duration(figures["flush"]), Bench.duration(figures["updates"]),
             Bench.thousands(figures["rate"].round), "#{figures["size"].round} B"]
  end
  users = Bench.thousands(Bench.users(FLUSHED))
  header = ["ids", "heartbeats of #{users} users", "#{users} `UPDATE`s", "transitions a second", "on disk, a user"]
  run.table("What is written", header, rows, remarks: WRITTEN)
end

# What is written to the file, in its own process.
class Writing
  def initialize(ids)
    @ids = ids
  end

  # @return [Hash{String => Float}] nanoseconds to write all users, transitions per second, bytes per user
  def measure(rounds)
    { "flush" => Bench.median(flushes(rounds)), "updates" => Bench.median(updates(rounds)),
      "rate" => Bench.median(rates(rounds)), "size" => size }
  end

  private

  def flushes(rounds)
    shared = Bench::SharedFile.new(SHORT)
    shared.prepare(@ids)
    Array.new(rounds) do
      sleep (SHORT / 3.0) + 0.1
      shared.flush(@ids)
    end
  ensure
    shared.close
  end

  def rates(rounds)
    shared = Bench::SharedFile.new
    Array.new(rounds) { shared.transitions(@ids) }
  ensure
    shared.close
  end

  def size
    shared = Bench::SharedFile.new
    shared.prepare(@ids)
    shared.size.fdiv(@ids.size)
  ensure
    shared.close
  end

  def updates(rounds)
    contender = Bench::SqliteContender.new
    contender.prepare(@ids)
    heartbeats = Bench::Ids.as_they_come(@ids)
    Array.new(rounds) { contender.time(heartbeats, 1) }
  ensure
    contender.close
  end
end

Bench.measure("store") do |run|
  run.each(%i[measure_heartbeats measure_writing]) { |method| send(method, run) }
end
