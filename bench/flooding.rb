# frozen_string_literal: true

# What does a heartbeat cost when an attacker chose the ids so that a predictable hash function would put them all into
# one bucket?

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
            ["ids", "a heartbeat", "to random ones"], rows, remarks: REMARKS)
end
