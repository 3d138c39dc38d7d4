# frozen_string_literal: true

# What does a heartbeat cost in the tracker alone, without Ruby? ext/tracker/benches measures it, in Rust.

require "fileutils"
require_relative "support/bench"

# Runs Criterion and reads the results that it wrote.
class Criterion
  MANIFEST = File.join(Bench::ROOT, "ext/tracker/benches/Cargo.toml")
  HOME = File.join(Bench::FOLDER, "criterion")

  # @yield after each measurement
  def run(&)
    FileUtils.rm_rf(HOME)
    target = ENV.fetch("CARGO_TARGET_DIR", File.join(Bench::ROOT, "target"))
    command = ["cargo", "bench", "--locked", "--manifest-path", MANIFEST, "--target-dir", target,
               "--bench", "heartbeat", "--", "--noplot"]
    IO.popen({ "CRITERION_HOME" => HOME }, command) { |output| follow(output, &) }
    raise "cargo bench failed" unless Process.last_status.success?
  end

  # @return [Hash{Integer => Hash{String => Array<Float>}}] nanoseconds of each round, by size and contender
  def samples
    samples = Hash.new { |sizes, size| sizes[size] = Hash.new { |names, name| names[name] = [] } }
    Dir[File.join(HOME, "*/*/new")].each do |folder|
      benchmark, estimates = %w[benchmark estimates].map { |name| JSON.load_file(File.join(folder, "#{name}.json")) }
      name, round = benchmark.fetch("function_id").split("/")
      samples[Integer(benchmark.fetch("group_id"))][name][Integer(round)] = estimates.dig("median", "point_estimate")
    end
    samples
  end

  private

  def follow(output)
    output.each_line do |line|
      puts line
      yield if line.include?("time:")
    end
  end
end

NAMES = {
  "core" => "tracker", "core by the clock" => "tracker, reading the clock", "map" => "hashbrown map",
  "locked map" => "hashbrown map and `Mutex`",
  "DelayQueue" => "`DelayQueue::reset`", "moka" => "moka `get`, time-to-idle",
  "core of strings" => "tracker, 36-character strings", "map of strings" => "hashbrown map, 36-character strings"
}.freeze
SIZES = [10_000, 1_000_000, 10_000_000].freeze

REMARKS = <<~TEXT
  In brackets: how many times the tracker's (for strings: the tracker's with strings). Users in random order. The map
  is hashbrown's with the same hash function; it takes no lock, knows no time, and sets nobody offline. The key by
  which `DelayQueue::reset` finds its timer need not be looked up. moka has the same hash function. Huge
  pages are off, as they are in a process of Ruby's.
TEXT

def cell(samples, name)
  ours = name.end_with?("of strings") ? "core of strings" : "core"
  Bench.compared(samples[name], samples[ours])
end

Bench.measure("core") do |run|
  measurements = SIZES.size * NAMES.size * run.rounds
  done = 0
  criterion = Criterion.new
  criterion.run { run.report_progress((done += 1).fdiv(measurements)) }

  samples = criterion.samples
  samples.each do |size, contenders|
    run.figure("#{size}/to map", Bench.ratio(contenders["core"], contenders["map"]))
    run.figure("#{size}/strings to map", Bench.ratio(contenders["core of strings"], contenders["map of strings"]))
    %w[DelayQueue moka].each do |name|
      run.figure("#{size}/#{name}", Bench.ratio(contenders[name], contenders["core"]))
    end
  end
  rows = NAMES.map { |name, title| [title, *SIZES.map { |size| cell(samples[size], name) }] }
  run.table("A heartbeat of a known user", ["users", *SIZES.map { |size| Bench.thousands(Bench.users(size)) }], rows,
            remarks: REMARKS)
end
