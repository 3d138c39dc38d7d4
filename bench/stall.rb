# frozen_string_literal: true

# How much later is `offline` called for users who leave while the process stands still?

require "tmpdir"

require_relative "support/bench"
require_relative "support/departure_config"

# A process that gets the heartbeats of some users through a pipe, and is stopped by a signal for a while.
class StoppedProcess
  # Seconds.
  TIMEOUT = 1
  # The time between two heartbeats of the users who stay, in seconds.
  INTERVAL = 0.2
  # The number of users who stay.
  STAYERS = 100
  # The last heartbeats of the users who leave spread over this time before the signal, in seconds.
  SPREAD = 0.8
  LEAVERS = 200
  # How long the benchmark waits for late users, in seconds.
  MAX_LATENESS = 3

  # @param seconds [Numeric] how long it is stopped
  # @param in_file [Boolean] whether the users are in a SQLite store
  def initialize(seconds, in_file)
    @seconds = seconds
    @folder = Dir.mktmpdir("online_manager_bench") if in_file
    @config = Bench::DepartureConfig.new(TIMEOUT)
    @manager = OnlineManager.new(@config, reactor: :thread, **(in_file ? { store: "sqlite:#{@folder}/presence" } : {}))
    @manager.setup
  end

  # @return [Array(Array<Integer>, Integer)] by how many nanoseconds each user was late who left, and how many of those
  #   who stayed were set offline
  def run
    pid = start_client
    last_heartbeats = leave
    stop_process
    sleep MAX_LATENESS
    Process.kill(:KILL, pid)
    Process.wait(pid)
    end_of_wait = Bench.now
    due = last_heartbeats.transform_values { |seen| seen + (TIMEOUT * 1_000_000_000) }
    [due.map { |id, at| @config.departures.fetch(id, end_of_wait) - at },
     @config.departures.keys.count { |id| id <= STAYERS }]
  ensure
    FileUtils.remove_entry(@folder) if @folder
  end

  private

  # Another process sends the heartbeats of the users who stay.
  def start_client
    reader, writer = IO.pipe
    pid = fork do
      reader.close
      loop do
        (1..STAYERS).each { |id| writer.write([id].pack("N")) }
        sleep INTERVAL
      end
    end
    writer.close
    Thread.new do
      while (heartbeat = reader.read(4))
        @manager.seen(heartbeat.unpack1("N"))
      end
    end
    sleep TIMEOUT
    pid
  end

  # @return [Hash{Integer => Integer}] the time of each user's last heartbeat
  def leave
    (STAYERS + 1..STAYERS + LEAVERS).to_h do |id|
      seen = Bench.now
      @manager.seen(id)
      sleep SPREAD.fdiv(LEAVERS)
      [id, seen]
    end
  end

  def stop_process
    return sleep(0) if @seconds.zero?

    system("kill -STOP #{Process.pid}; sleep #{@seconds}; kill -CONT #{Process.pid}")
  end
end

REMARKS = <<~TEXT
  From the moment before the last heartbeat, plus the timeout of a second, to the call of `offline`: so a stop of 2 s
  alone makes users 1 to 2 s late. The last heartbeats are sent within 0.8 s before the signal. 100 other users send
  heartbeats through a pipe all the time; those that wait in it are read before anybody is set offline.
TEXT

Bench.measure("stall") do |run|
  cases = [false, true].product([0, 0.5, 2])
  samples = run.alternate(cases.to_h { |element| [element, element] }) do |(in_file, seconds)|
    Bench::Child.open(-> { StoppedProcess.new(seconds, in_file) }) { |child| child.call(:run) }
  end
  rows = cases.map do |in_file, seconds|
    lateness = samples[[in_file, seconds]].flat_map(&:first)
    percentiles = [0.5, 0.99].map { |share| Bench.percentile(lateness, share) }
    path = "#{in_file ? "sqlite" : "memory"}/#{seconds}"
    run.figure("#{path}/p50", percentiles.first)
    run.figure("#{path}/p99", percentiles.last)
    wrong = samples[[in_file, seconds]].sum(&:last)
    [in_file ? "SQLite" : "memory", "#{seconds} s", *percentiles.map { |late| Bench.duration(late) },
     Bench.duration(lateness.max), Bench.thousands(wrong)]
  end
  run.table("A process that stood still", ["users in", "stopped for", "median", "99th percentile", "longest",
                                           "set offline though they stay"], rows, remarks: REMARKS)
end
