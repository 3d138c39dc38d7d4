# frozen_string_literal: true

# What does the timer thread cost with a million users, and does anything wake up without heartbeats?

require_relative "support/bench"
require_relative "support/heartbeat_thread"
require_relative "support/silent_config"
require_relative "support/threads"

# Users who send three heartbeats within their timeout, in their own process.
class Crowd
  # Seconds.
  TIMEOUT = 5

  # @param users [Integer]
  def initialize(users)
    manager = OnlineManager.new(Bench::SilentConfig.new(TIMEOUT), reactor: :thread)
    manager.setup
    Bench::HeartbeatThread.new(manager, 1..users, TIMEOUT / 3.0)
    # Waits until the timer thread has handled each user once.
    sleep TIMEOUT * 1.2
  end

  # @return [Float] the share of one core that the timer thread takes
  def share
    start = Bench.now
    before = Bench::Threads.timer.busy
    sleep TIMEOUT
    (Bench::Threads.timer.busy - before).fdiv(Bench.now - start)
  end
end

# A process without heartbeats.
class Idle
  # Seconds.
  LONG = 3_600
  SHORT = 0.05
  LENGTH = 2

  # @param users [Integer] users who stay online
  def initialize(users)
    manager = OnlineManager.new(Bench::SilentConfig.new(LONG), reactor: :thread)
    manager.setup
    manager.seen_all(1..users) if users.positive?
    manager.seen(:nobody, timeout: SHORT)
    sleep 0.01 while manager.online?(:nobody)
    # The watchdog thread runs for this long after a callback.
    sleep OnlineManager::Watchdog::WARN_AFTER + 1
  end

  # @return [Hash{String => Integer}] the number of context switches of each other thread
  def wakeups
    before = Bench::Threads.others.to_h { |thread| [thread.id, thread.switches] }
    sleep LENGTH
    Bench::Threads.others.to_h { |thread| [thread.name, thread.switches - before.fetch(thread.id, 0)] }
  end
end

USERS = 1_000_000
CROWDS = { "nobody is online" => 0, "10,000 users are online, with an hour to go" => 10_000 }.freeze

def measure_cpu_time(run)
  shares = Bench::Child.open(-> { Crowd.new(Bench.users(USERS)) }) do |child|
    run.alternate({ all: child }) { |crowd| crowd.call(:share) }.fetch(:all)
  end
  run.figure("share", Bench.median(shares))
  run.table("CPU time of the timer thread", ["with a timeout of 5 s", "median", "most"],
            [["#{Bench.thousands(Bench.users(USERS))} users send three heartbeats within it",
              *[Bench.median(shares), shares.max].map { |share| format("%.2f %% of a core", share * 100) }]])
end

def measure_wakeups(run)
  children = CROWDS.transform_values { |users| Bench::Child.new { Idle.new(users) } }
  samples = run.alternate(children) { |child| child.call(:wakeups) }
  rows = samples.map do |name, rounds|
    wakeups = rounds.sum { |threads| threads.values.sum }
    run.figure("wakeups/#{name}", wakeups)
    [name, wakeups.to_s, rounds.first.keys.join(", ")]
  end
  run.table("Wakeups within #{samples.values.first.size * Idle::LENGTH} s without heartbeats",
            ["while", "context switches", "of the threads"], rows,
            remarks: "The kernel's own count, voluntary and involuntary ones, of all threads but the main one.")
ensure
  children&.each_value(&:close)
end

Bench.measure("timer_thread") do |run|
  run.each(%i[measure_cpu_time measure_wakeups]) { |method| send(method, run) }
end
