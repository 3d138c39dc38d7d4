# frozen_string_literal: true

# What do a heartbeat and a leave cost when an attacker chose the ids so that a predictable hash function would put them
# all into one bucket?

require_relative "support/bench"
require_relative "support/contenders/in_process"

# The chosen ids, and random ids of the same length for comparison.
module Flood
  # The low sixteen bits of every chosen id.
  SAME = 0x9d37
  PADDING = "the same in each of them and no shorter than what is hashed at once "

  RANDOM = "random"
  KINDS = {
    "integers" => {
      RANDOM => ->(_, random) { random.rand(2**60) },
      "same low bits" => ->(number, _) { (number << 40) | SAME },
      "same high bits" => ->(number, _) { (SAME << 45) | number },
      "same low and high bits" => ->(number, _) { (SAME << 44) | (number << 16) | SAME },
      "multiples of 2^20" => ->(number, _) { number << 20 },
      "multiples of 2^40" => ->(number, _) { number << 40 }
    },
    "strings" => {
      RANDOM => ->(_, random) { random.bytes((PADDING.size / 2) + 4).unpack1("H*") },
      "common prefix" => ->(number, _) { PADDING + digits(number) },
      "common suffix" => ->(number, _) { digits(number) + PADDING },
      "common prefix and suffix" => ->(number, _) { PADDING[...34] + digits(number) + PADDING[34..] }
    }
  }.freeze

  # Modulo 2^64 the inverse of the multiplier of Fibonacci hashing: the products of these ids' keys are small numbers.
  INVERSE = 0xf1de83e19937733d

  LEAVES = {
    RANDOM => KINDS.fetch("integers").fetch(RANDOM),
    "small products with Fibonacci's multiplier" => lambda do |number, _|
      half = ((INVERSE * ((2 * number) + 1)) % (2**64)) >> 1
      half < 2**62 ? half : half - (2**63)
    end
  }.freeze

  # @return [String] eight digits
  def self.digits(number) = number.to_s.rjust(8, "0")

  # @return [Array]
  def self.ids(kind, choice, users)
    random = Random.new(1)
    Array.new(users) { |number| KINDS.fetch(kind).fetch(choice).call(number, random) }
  end
end

# Sends heartbeats for all of the ids, always in the same random order.
class TimedContender < Bench::TimedContender
  # The minimum number of heartbeats in one measurement.
  LENGTH = 500_000

  def initialize(kind, choice, users)
    @passes = (LENGTH / users.to_f).ceil
    super(Bench::Ours.new, Flood.ids(kind, choice, users))
  end

  # @return [Float] nanoseconds for each heartbeat
  def time = @contender.time(@heartbeats, @passes).fdiv(@heartbeats.size * @passes)
end

# @return [Hash{String => Array<Float>}] the samples of each choice
def samples_of(run, kind, users)
  beaters = Flood::KINDS.fetch(kind).keys.to_h do |choice|
    [choice, Bench::Child.new { TimedContender.new(kind, choice, users) }]
  end
  run.alternate(beaters, rounds: run.rounds(7)) { |beater| beater.call(:time) }
ensure
  beaters&.each_value(&:close)
end

# The users leave one after the other, in half an hour.
class TimedLeaves
  def initialize(choice, users)
    random = Random.new(1)
    @ids = Array.new(users) { |number| Flood::LEAVES.fetch(choice).call(number, random) }
    ours = Bench::Ours.new
    ours.prepare(@ids)
    @manager = ours.manager
  end

  # @return [Float] nanoseconds of the longest leave
  def longest
    @ids.map do |id|
      start = Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)
      @manager.leave(id, after: 1_800)
      Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond) - start
    end.max.to_f
  end
end

# @return [Hash{String => Array<Float>}] the longest leave of each round, by choice
def longest_leaves(run, users)
  choices = Flood::LEAVES.keys.to_h { |choice| [choice, choice] }
  run.alternate(choices, rounds: run.rounds(5)) do |choice|
    Bench::Child.open(-> { TimedLeaves.new(choice, users) }) { |child| child.call(:longest) }
  end
end

REMARKS = <<~TEXT
  Each of the compared processes draws its own hash key. `cargo test` counts how many entries a lookup compares for such
  ids and for others, under a dozen keys.
TEXT

Bench.measure("flooding") do |run|
  users = Bench.users(1_000_000)
  rows = []
  run.each(Flood::KINDS.keys) do |kind|
    samples = samples_of(run, kind, users)
    samples.each do |choice, durations|
      ratio = Bench.ratio(durations, samples.fetch(Flood::RANDOM))
      run.figure("#{kind}/#{choice}", ratio) unless choice == Flood::RANDOM
      rows << ["#{kind}, #{choice}", Bench.duration(Bench.median(durations)), Bench.times(ratio)]
    end
  end
  run.table("A heartbeat among #{Bench.thousands(users)} users whose ids were chosen to be slow",
            ["ids", "a heartbeat", "to random ones"], rows)

  leaves = longest_leaves(run, users)
  rows = leaves.map do |choice, durations|
    ratio = Bench.ratio(durations, leaves.fetch(Flood::RANDOM))
    run.figure("leave/#{choice}", ratio) unless choice == Flood::RANDOM
    ["integers, #{choice}", Bench.duration(Bench.median(durations)), Bench.times(ratio)]
  end
  run.table("The longest leave of #{Bench.thousands(users)} users", ["ids", "longest leave", "to random ones"], rows,
            remarks: REMARKS)
end
