# frozen_string_literal: true

# Heartbeats of a set of users that moves on: who falls out of it leaves, and a new one comes for each. Prints the
# resident memory in KiB, first at a fiftieth of the way and then at its end.
#
# Arguments: how many heartbeats, and how many users the set has.

require "online_manager"
require_relative "../progress"

HEARTBEATS = Integer(ARGV.fetch(0))
USERS = Integer(ARGV.fetch(1))

class Quiet
  attr_reader :heartbeat

  def timeout = 0.5
  def setup(&heartbeat) = @heartbeat = heartbeat
  def online(user_id) = nil
  def offline(user_id) = nil
end

# Most ids are integers, some are strings, and some are other objects.
def id_of(number)
  case number % 20
  when 0 then [number, "array"]
  when 1..4 then format("%036d", number)
  else number
  end
end

def beat(users)
  i = 0
  while i < USERS
    yield users[i]
    i += 1
  end
end

def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

config = Quiet.new
OnlineManager.setup(config, reactor: :thread)
manager = OnlineManager.current
users = Array.new(USERS) { |number| id_of(number) }

# The wheel keeps eight bytes for who has left until the time that would have been the deadline.
report = lambda do
  stop_at = now + (2 * config.timeout)
  beat(users, &config.heartbeat) while now < stop_at
  3.times { GC.start }
  puts File.read("/proc/self/status")[/^VmRSS:\s+(\d+)/, 1]
end

came = USERS
rounds = HEARTBEATS / USERS
rounds.times do |round|
  beat(users, &config.heartbeat)
  report.call if round == rounds / 50
  Progress.at(round, rounds)

  # A tenth of the set, taken from anywhere in it.
  (USERS / 10).times do
    place = rand(USERS)
    manager.leave(users[place])
    users[place] = id_of(came)
    came += 1
  end
  sleep 0.001 until manager.size <= USERS && manager.stats[:due].zero?
end
report.call
