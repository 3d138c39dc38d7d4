# frozen_string_literal: true

# A fixed number of heartbeats, to be counted by valgrind: `ruby heartbeat.rb KIND ROUNDS`, of a thousand users.

require_relative "../support/bench"
Bench.load_gem
require_relative "../support/contenders/in_process"

kind, rounds = ARGV
contender = kind == "none" ? Bench::EmptyBlock.new : Bench::Ours.new
ids = Bench::Ids.of(kind == "strings" ? "UUIDs" : "integers", 1_000)
contender.prepare(ids)
GC.start
GC.disable
contender.beat(Bench::Ids.as_they_come(ids), Integer(rounds))
exit!(0)
