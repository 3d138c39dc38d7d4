# frozen_string_literal: true

# How long after its deadline is `offline` called?

require_relative "support/bench"
require_relative "support/heartbeat_thread"
require_relative "support/departure_config"

# A tenth of the users send their last heartbeat, one after the other, while the rest go on, in its own process.
class Leaving
  # Seconds.
  TIMEOUT = 2
  # The last heartbeats spread over this many seconds: nobody may expire within it.
  SPREAD = 1
  # The interval at which everybody else sends heartbeats, in seconds.
  INTERVAL = 0.7
  # How often the benchmark checks which users are due for their last heartbeat, in seconds.
  POLL_INTERVAL = 0.001
  # How long the benchmark waits for late users, in seconds.
  MAX_LATENESS = 5

  # @param users [Integer]
  # @param is_busy [Boolean] whether another Ruby thread computes all the time
  def initialize(users, is_busy)
    @config = Bench::DepartureConfig.new(TIMEOUT)
    @manager = OnlineManager.new(@config, reactor: :thread)
    @manager.setup
    @stayers = 1..users
    @leavers = (users + 1..users + [users / 10, 1].max).to_a
    @is_busy = is_busy
    @last_heartbeats = {}
  end

  # @return [Array<Integer>] by how many nanoseconds each user was late
  def run
    [@stayers, @leavers].each { |ids| @manager.seen_all(ids) }
    others = Bench::HeartbeatThread.new(@manager, @stayers, INTERVAL)
    busy = Thread.new { loop {} } if @is_busy # rubocop:disable Lint/EmptyBlock -- busy with nothing
    leave
    wait
    others.stop
    busy&.kill
    # A user who is still online now is late by at least this much.
    end_of_wait = Bench.now
    @last_heartbeats.map { |id, seen| (@config.departures[id] || end_of_wait) - seen - (TIMEOUT * 1_000_000_000).to_i }
  end

  private

  # Spreads the last heartbeats: a user who leaves with a thousand others waits for their `offline`.
  def leave
    start = Bench.now
    leavers = @leavers.dup
    until leavers.empty?
      share = (Bench.now - start).fdiv(SPREAD * 1_000_000_000)
      due = (share * @leavers.size).ceil
      leavers.shift(due - @last_heartbeats.size).each do |id|
        @last_heartbeats[id] = Bench.now
        @manager.seen(id)
      end
      sleep POLL_INTERVAL
    end
  end

  def wait
    limit = Bench.now + (MAX_LATENESS * 1_000_000_000)
    sleep 0.05 until @config.departures.size == @leavers.size || Bench.now > limit
  end
end

MILLISECOND = 1_000_000.0
# The upper bounds of the histogram's buckets, in milliseconds.
BUCKETS = [0, 2, 5, 10, 15, 20, 50, 100, 200, 500].freeze

def histogram(lateness)
  counts = BUCKETS.map { |bucket| lateness.count { |late| late < bucket * MILLISECOND } } + [lateness.size]
  counts.each_cons(2).map { |below, up_to| up_to - below }.unshift(counts.first)
end

def percent(number, all)
  share = 100.0 * number / all
  return "0" if share.zero?

  share < 0.1 ? "< 0.1 %" : "#{share.round(1)} %"
end

REMARKS = <<~TEXT
  From the moment before the last heartbeat, plus the timeout, to the call of `offline`. A tenth as many users again
  leave, spread over a second, while the others send heartbeats by `seen_all`. When a Ruby thread is always busy,
  the reactor waits for Ruby's lock: up to 100 ms for each such thread.
TEXT

Bench.measure("lateness") do |run|
  cases = [1_000, 100_000, 1_000_000].product([false, true])
  samples = run.alternate(cases.to_h { |element| [element, element] }) do |(users, is_busy)|
    Bench::Child.open(-> { Leaving.new(Bench.users(users), is_busy) }) { |child| child.call(:run) }
  end

  names = ["too early", *BUCKETS.each_cons(2).map { |from, to| "#{from} to #{to} ms" }, "more"]
  columns = cases.map do |users, is_busy|
    lateness = samples[[users, is_busy]]
    all = lateness.flatten
    path = "#{users}/#{is_busy ? "busy" : "idle"}"
    percentiles = [0.5, 0.99].map { |share| Bench.median(lateness.map { |round| Bench.percentile(round, share) }) }
    run.figure("#{path}/p99", percentiles.last)
    run.figure("#{path}/early", all.count(&:negative?))
    [*histogram(all).map { |count| percent(count, all.size) }, *percentiles.map { |late| Bench.duration(late) },
     Bench.duration(all.max), Bench.thousands(all.size)]
  end
  header = ["late by", *cases.map { |users, is_busy| "#{Bench.thousands(users)}, #{is_busy ? "busy" : "idle"}" }]
  run.table("Users, and Ruby's lock", header, [*names, "median", "99th percentile", "longest", "users"].zip(*columns),
            remarks: REMARKS)
end
