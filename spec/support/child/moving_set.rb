# frozen_string_literal: true

# Sends heartbeats of a set of users that changes: users who drop out leave, and a new user replaces each. Prints the
# resident memory in KiB twice: after the first fiftieth, when the set has been replaced once, and at the end.
#
# Arguments: the number of heartbeats, and the size of the set.

require "fiddle"
require "online_manager"
require_relative "../progress"

HEARTBEATS, USERS = ARGV.map { |number| Integer(number) }

# A config that does nothing.
class SilentConfig
  attr_reader :heartbeat

  def timeout = 0.5
  def setup(&heartbeat) = @heartbeat = heartbeat
  def online(_user_id) = nil
  def offline(_user_id) = nil
end

# The current users.
class MovingSet
  def initialize(config, manager)
    @config = config
    @manager = manager
    @came = 0
    @users = Array.new(USERS) { add_user }
  end

  # Sends one heartbeat of each user.
  def send_heartbeats
    heartbeat = @config.heartbeat
    i = 0
    while i < USERS
      heartbeat.call(@users[i])
      i += 1
    end
  end

  # Replaces a tenth of the set, at random places.
  def move
    (USERS / 10).times do
      place = rand(USERS)
      @manager.leave(@users[place])
      @users[place] = add_user
    end
    sleep 0.001 until @manager.size <= USERS && @manager.stats[:due].zero?
  end

  # Waits until the wheel has dropped the users who left: it keeps eight bytes for each of them until the time of the
  # former deadline.
  def wait_for_wheel
    stop_at = now + (2 * @config.timeout)
    send_heartbeats while now < stop_at
  end

  private

  # Creates an id: most are integers, some are strings, and some are other objects.
  def add_user
    number = @came += 1
    case number % 5
    when 0 then [number, "array"]
    when 1 then format("%036d", number)
    else number
    end
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

# Memory in use, without what Ruby and malloc have freed and keep.
def resident_memory
  3.times { GC.compact }
  Fiddle::Function.new(Fiddle.dlopen(nil)["malloc_trim"], [Fiddle::TYPE_INT], Fiddle::TYPE_INT).call(0)
  File.read("/proc/self/status")[/^VmRSS:\s+(\d+)/, 1]
end

config = SilentConfig.new
OnlineManager.setup(config, reactor: :thread)
set = MovingSet.new(config, OnlineManager.current)
rounds = HEARTBEATS / USERS
rounds.times do |round|
  Progress.at(round, rounds)
  set.send_heartbeats
  set.move
  next unless round == [rounds / 50, 10].max

  set.wait_for_wheel
  puts resident_memory
end
set.wait_for_wheel
puts resident_memory
