# frozen_string_literal: true

# What does a heartbeat cost in a `seen_all` of a thousand ids, compared with a thousand single yields?

require_relative "support/bench"
require_relative "support/contenders/in_process"

# Both ways, with the same users.
class Ways
  TOGETHER = 1_000
  # The minimum number of heartbeats in a measurement.
  LENGTH = 500_000

  def initialize(ids)
    @contender = Bench::Ours.new
    @contender.prepare(ids)
    @ids = Bench::Ids.as_they_come(ids)
    @slices = @ids.each_slice(TOGETHER).to_a
    @passes = (LENGTH / ids.size).clamp(1..)
    GC.start
  end

  # @return [Float] nanoseconds per heartbeat
  def single = @contender.time(@ids, @passes).fdiv(@ids.size * @passes)

  # @return [Float] nanoseconds per heartbeat
  def together
    manager = @contender.manager
    duration = Bench.time do
      @passes.times do
        @slices.each { |slice| manager.seen_all(slice) }
      end
    end
    duration.fdiv(@ids.size * @passes)
  end
end

WAYS = { "single yields" => :single, "`seen_all`" => :together }.freeze

Bench.measure("seen_all") do |run|
  rows = []
  run.each(Bench::Ids::KINDS.product([10_000, 1_000_000])) do |kind, size|
    ids = Bench::Ids.of(kind, Bench.users(size))
    samples = Bench::Child.open(-> { Ways.new(ids) }) do |child|
      run.alternate(WAYS, rounds: run.rounds(9)) { |way| child.call(way) }
    end
    single, together = samples.values
    ratio = Bench.ratio(together, single)
    run.figure("#{kind}/#{size}", ratio)
    rows << ["#{Bench.thousands(size)} #{kind}", *[single, together].map { |way| Bench.duration(Bench.median(way)) },
             Bench.times(ratio)]
  end
  run.table("A heartbeat of a known user", ["users", *WAYS.keys, "ratio"], rows)
end
