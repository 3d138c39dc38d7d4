# frozen_string_literal: true

# Sends a fixed number of heartbeats of a thousand users, for valgrind to count: `ruby heartbeat.rb KIND ROUNDS`.

# It does nothing else, since everything runs fifty times slower under valgrind.
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
