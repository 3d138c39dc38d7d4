# frozen_string_literal: true

# Runs the long versions of `rake spec` and `rake cargo:test`, behind a progress bar.
class Soak
  FOLDER = "tmp/soak"

  Part = Struct.new(:command, :env, :seconds, keyword_init: true)

  # The result of a part: `says` is the last line of its test runner.
  Result = Struct.new(:name, :passed, :seconds, :says)

  # The parts: the specs or tests, their sizes, and how many seconds they take on two cores, for the progress bar.
  def self.spec(*paths, seconds:, **env)
    command = %w[bundle exec rspec --format progress] + paths
    Part.new(command:, env: env.transform_keys(&:to_s), seconds:)
  end

  def self.model(test, cases:, seconds:)
    command = %w[cargo test --locked --release --package online_manager_tracker --test model] << test
    Part.new(command:, env: { "PROPTEST_CASES" => cases.to_s }, seconds:)
  end

  # Schedules of the simulator, another million with each FIRST_SEED.
  def self.simulator(schedules:, seconds:)
    command = %w[cargo test --locked --release --package online_manager_store --lib simulator::every]
    first = ENV.fetch("FIRST_SEED", "0")
    Part.new(command:, env: { "SCHEDULES" => schedules.to_s, "FIRST_SEED" => first }, seconds:)
  end

  PARTS = {
    "simulator" => simulator(schedules: 1_000_000, seconds: 3_600),
    "threads" => spec("spec/threads_spec.rb", TRANSITIONS: "200000", seconds: 60),
    "forks" => spec("spec/fork_spec.rb", FORKS: "2000", seconds: 50),
    "slow callbacks" => spec("spec/conformance_spec.rb", "--example", "to take 30.0 s", SLOW: "30", seconds: 300),
    "crowd" => spec("spec/crowd_spec.rb", CROWD: "100000", seconds: 150),
    "public API" => spec("spec/fuzz_spec.rb", FUZZ_CASES: "1000000", seconds: 400),
    "garbage collector" => spec("spec/gc_spec.rb", GC_STRESS: "1", seconds: 600),
    "memory" => spec("spec/gc_spec.rb", "--example", "lets no memory grow", HEARTBEATS: "50000000", USERS: "100000",
                                                                            seconds: 120),
    "memory safety" => spec("spec/memory_safety_spec.rb", MEMCHECK: "1", seconds: 900),
    "store: deaths" => spec("spec/store", "--example", "when processes die", STORE_KILLS: "40", STORE_DEAD: "60",
                                                                             seconds: 700),
    "store: outages" => spec("spec/store", "--example", "when callbacks raise", "--example", "goes wrong later",
                             STORE_OUTAGE: "180", STORE_TROUBLE: "30", seconds: 600),
    "store: crowds" => spec("spec/store", "--example", "with 4 processes", "--example", "when the lease holder pauses",
                            "--example", "when a process forks",
                            STORE_USERS: "1000", STORE_STOPS: "20", STORE_FORKS: "200", seconds: 250),
    "store: pauses" => spec("spec/store/conformance_spec.rb", "--example", "holds the leases again",
                            STORE_TAKEOVERS: "20", seconds: 260),
    "store: restores" => spec("spec/store/restores_spec.rb", STORE_RESTORES: "20", seconds: 400),
    "redis: deaths" => spec("spec/store/redis_faults_spec.rb", "--example", "when lease holders",
                            REDIS_KILLS: "50", REDIS_STOPS: "20", REDIS_SESSIONS: "50", seconds: 560),
    "redis: outages" => spec("spec/store/redis_faults_spec.rb", "--example", "that dies", "--example", "that is away",
                             "--example", "on a bad way", REDIS_AWAY: "30", REDIS_SPOILT: "60", seconds: 700),
    "redis: cuts" => spec("spec/store/redis_faults_spec.rb", "--example", "whose connections are cut", REDIS_CUTS: "20",
                                                                                                       seconds: 60),
    "redis: cluster" => spec("spec/store/redis_cluster_spec.rb", REDIS_FAILOVERS: "10", seconds: 140),
    "redis: crowds" => spec("spec/store/redis_spec.rb", REDIS_CROWD: "200000", seconds: 40),
    "precompiled gem" => spec("spec/native_gem_spec.rb", NATIVE_PROFILE: "release", seconds: 300),
    "model" => model("a_few", cases: 1_000_000, seconds: 600),
    "model of a crowd" => model("a_crowd", cases: 20_000, seconds: 300)
  }.freeze

  # The table at the end.
  def self.table(results)
    results.map do |result|
      passed = result.passed ? "passed" : "FAILED"
      [result.name.ljust(20), passed, "#{result.seconds} s".rjust(7), "", result.says].join("  ")
    end
  end

  def initialize(names)
    @parts = PARTS.slice(*names)
    @bar = ProgressBar.create(total: @parts.values.sum(&:seconds), format: "%t |%B| %p %% %a", output: $stderr)
  end

  # @return [Array<Result>]
  def run = @parts.map { |name, part| run_part(name, part) }

  private

  def run_part(name, part)
    @bar.title = name
    before = @bar.progress
    started = now
    log = "#{FOLDER}/#{name}.log"
    progress = File.expand_path("#{FOLDER}/#{name}.progress")
    FileUtils.rm_f([progress, "#{progress}.examples"])
    pid = Process.spawn(part.env.merge("PROGRESS" => progress), *part.command, %i[out err] => log)
    follow(progress, before, part.seconds) until (ended = Process.wait2(pid, Process::WNOHANG))
    @bar.progress = before + part.seconds
    Result.new(name, ended.last.success?, (now - started).round, last_words(log))
  end

  # The part reports its progress (see spec/support/progress.rb).
  def follow(progress, before, seconds)
    sleep 0.5
    done, all = File.exist?("#{progress}.examples") ? File.read("#{progress}.examples").split("/").map(&:to_i) : [0, 1]
    of_example = File.exist?(progress) ? File.read(progress).to_f : 0
    fraction = ((done + of_example) / [all, 1].max).clamp(0, 1)
    @bar.progress = [@bar.progress, before + (fraction * seconds).floor].max
  end

  def last_words(log)
    File.readlines(log, chomp: true).grep(/^(test result:|\d+ examples?,)/).join("; ")
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

desc "Run the long versions of the tests, or of some: soak[threads,forks]"
task :soak, [:name] => :compile do |_, names|
  require "ruby-progressbar"
  mkdir_p Soak::FOLDER, verbose: false
  unknown = names.to_a - Soak::PARTS.keys
  abort "There is no #{unknown.join(", ")}; there are: #{Soak::PARTS.keys.join(", ")}" unless unknown.empty?

  results = Soak.new(names.to_a.empty? ? Soak::PARTS.keys : names.to_a).run
  puts Soak.table(results)
  failed = results.reject(&:passed)
  abort "See #{failed.map { |result| "#{Soak::FOLDER}/#{result.name}.log" }.join(", ")}" unless failed.empty?
end
