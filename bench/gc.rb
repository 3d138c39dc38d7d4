# frozen_string_literal: true

# How much longer does a garbage collection take because of a million users?

require_relative "support/bench"
require_relative "support/contenders/in_process"

# Measures garbage collections in its own process.
class Collector
  # The number of minor collections in one measurement.
  TIMES = 15
  # The number of heartbeats before each collection. One of them is a new user's.
  HEARTBEATS = 100

  # @param contender [Bench::Contender, nil]
  def initialize(contender, kind, users)
    @contender = contender
    @random = Random.new(1)
    @kind = kind
    @number = 0
    (1..users).each_slice(10_000) { |slice| send_heartbeats(ids(slice.size)) } if contender
    @known = ids(HEARTBEATS - 1)
    # An object that survived three collections is old, and minor collections skip it.
    4.times { GC.start }
  end

  # @return [Array(Float, Integer)] the time of a minor collection and of a full one, in nanoseconds
  def run
    minor = Array.new(TIMES) do
      send_heartbeats(@known + ids(1))
      Bench.time { GC.start(full_mark: false) }
    end
    [Bench.median(minor), Bench.time { GC.start }]
  end

  private

  def send_heartbeats(ids) = @contender&.send_heartbeats(ids)

  def ids(number)
    return Array.new(number) { Bench::Ids.uuid(@random) } unless @kind == "integers"

    Array.new(number) { @number += 1 }
  end
end

USERS = 1_000_000
NOBODY = "nobody"
CONTENDERS = { NOBODY => nil, "OnlineManager" => Bench::Ours, "Hash, Mutex and clock" => Bench::LockedHash }.freeze

REMARKS = <<~TEXT
  Each minor collection comes after a hundred heartbeats, one of them a new user's: an object that a new one has been
  put into is marked by the next minor collection, and a Hash is one object.
TEXT

Bench.measure("gc") do |run|
  kinds = %w[integers UUIDs]
  run.each(kinds) do |kind|
    samples = run.alternate(CONTENDERS) do |contender|
      Bench::Child.open(-> { Collector.new(contender&.new, kind, Bench.users(USERS)) }) { |child| child.call(:run) }
    end
    nobody = samples.delete(NOBODY).transpose
    rows = samples.map do |name, results|
      minor, full = results.transpose.zip(nobody).map { |with, without| Bench.median(with) - Bench.median(without) }
      run.figure("#{kind}/#{name}", minor)
      [name, Bench.duration(minor), Bench.duration(full)]
    end
    run.table("#{Bench.thousands(Bench.users(USERS))} users, #{kind}: time added",
              ["users kept by", "minor collection", "full collection"], rows,
              remarks: kind == kinds.last ? REMARKS : "")
  end
end
