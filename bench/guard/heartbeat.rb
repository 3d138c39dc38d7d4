# frozen_string_literal: true

# A fixed number of heartbeats, to be counted by valgrind: `ruby heartbeat.rb KIND ROUNDS`, of a thousand users.

# Nothing else, since valgrind runs it all fifty times slower.
$LOAD_PATH.unshift(File.expand_path("../../tmp/bench/lib", __dir__))
require "online_manager"
require_relative "../support/heartbeats"
require_relative "../support/ids"
require_relative "../support/contenders/in_process"

kind, rounds = ARGV
contender = kind == "nothing" ? Bench::EmptyBlock.new : Bench::Ours.new
ids = Bench::Ids.of(kind == "strings" ? "UUIDs" : "integers", 1_000)
contender.prepare(ids)
GC.start
GC.disable
contender.send_heartbeats(Bench::Ids.as_they_come(ids), Integer(rounds))
exit!(0)
