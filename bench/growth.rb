# frozen_string_literal: true

# How long does the longest heartbeat take while the number of users grows to millions?

require_relative "support/bench"
require_relative "support/contenders/in_process"

# Sends one heartbeat for each of many new users, and times each heartbeat.
class Growth
  # Nanoseconds. Heartbeats that take longer are counted.
  LONG = 1_000_000

  # @param contender [Class]
  def initialize(contender, ids)
    @contender = contender.new
    @ids = ids
  end

  # @return [Hash] the longest heartbeat and the sum of all, in nanoseconds; and the number of heartbeats above LONG
  def run
    watched = Watched.new(@ids)
    @contender.send_heartbeats(watched)
    watched.result
  end

  # Enumerates the ids and reads the clock before each.
  class Watched
    def initialize(ids)
      @ids = ids
    end

    def each
      longest = long = 0
      start = before = Bench.now
      @ids.each do |id|
        yield id
        now = Bench.now
        duration = now - before
        longest = duration if duration > longest
        long += 1 if duration > LONG
        before = now
      end
      @result = { longest:, long:, total: before - start }
    end

    attr_reader :result
  end
end

USERS = { "integers" => 4_000_000, "UUIDs" => 1_000_000 }.freeze
CONTENDERS = {
  "an empty block" => Bench::EmptyBlock,
  "OnlineManager" => Bench::Ours,
  "`hash[id] = 1`" => Bench::BareHash
}.freeze

REMARKS = <<~TEXT
  What the empty block shows is what this machine itself does to a Ruby process that looks at the clock all the time.
  OnlineManager's time includes the call of the config's `online`.
TEXT

Bench.measure("growth") do |run|
  run.each(USERS.keys) do |kind|
    ids = Bench::Ids.as_they_come(Bench::Ids.of(kind, Bench.users(USERS[kind])))
    samples = run.alternate(CONTENDERS) do |contender|
      Bench::Child.open(-> { Growth.new(contender, ids) }) { |child| child.call(:run) }
    end

    rows = samples.map do |name, results|
      longest, long, total = %i[longest long total].map { |key| results.map { |result| result[key] } }
      run.figure("#{kind}/#{name}", Bench.median(longest))
      [name, Bench.duration(Bench.median(longest)), Bench.duration(longest.max), Bench.median(long).round.to_s,
       Bench.duration(Bench.median(total).fdiv(ids.size))]
    end
    run.table("#{kind}, from 0 to #{Bench.thousands(ids.size)} users",
              ["first heartbeats by", "longest", "longest of all rounds", "above 1 ms", "mean"], rows,
              remarks: kind == USERS.keys.last ? REMARKS : "")
  end
end
