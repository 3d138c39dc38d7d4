# frozen_string_literal: true

# How long each question takes at full size, in seconds, for the progress bar. The report has the same order.
BENCH_QUESTIONS = {
  "heartbeat" => 240, "flooding" => 90, "growth" => 75, "seen_all" => 40, "queries" => 80, "expiry" => 220,
  "lateness" => 120, "stall" => 190, "memory" => 170, "gc" => 40, "timer_thread" => 60, "store" => 150,
  "redis_store" => 180, "core" => 150
}.freeze
BENCH_FOLDER = "tmp/bench"

# Runs a question with the gem that `bench:build` has built and the gems that it is compared with.
def bench(name, progress: nil, **redirections)
  env = { "BUNDLE_GEMFILE" => File.expand_path("bench/Gemfile"), "BENCH_PROGRESS" => progress&.fileno&.to_s }
  redirections[progress] = progress if progress
  Bundler.with_unbundled_env do
    system(env, "bundle", "exec", "ruby", "bench/#{name}.rb", **redirections)
  end
end

# Runs a question and moves the bar by the progress that it reports.
def bench_behind_bar(name, bar, log)
  bar.title = name
  before = bar.progress
  reader, writer = IO.pipe
  following = Thread.new do
    reader.each_line { |line| bar.progress = before + (Float(line) * BENCH_QUESTIONS.fetch(name)).floor }
  end
  succeeded = bench(name, progress: writer, %i[out err] => log)
  writer.close
  following.join
  raise "#{name} failed:\n#{File.read(log)}" unless succeeded

  bar.progress = before + BENCH_QUESTIONS.fetch(name)
end

desc "Measure everything and rewrite docs/benchmarks.md"
task bench: "bench:build" do
  require "ruby-progressbar"
  logs = "#{BENCH_FOLDER}/logs"
  mkdir_p logs, verbose: false
  bar = ProgressBar.create(total: BENCH_QUESTIONS.values.sum, format: "%t |%B| %p %% %a", output: $stderr)
  BENCH_QUESTIONS.each_key { |name| bench_behind_bar(name, bar, "#{logs}/#{name}.log") }
  Rake::Task["bench:report"].invoke
end

namespace :bench do
  BENCH_QUESTIONS.each_key do |name|
    desc "Measure what bench/#{name}.rb asks"
    task name => :build do
      bench(name) || abort("#{name} failed")
    end
  end

  desc "Rewrite docs/benchmarks.md from the latest measurements"
  task :report do
    require_relative "../bench/support/report"
    Bench::Report.new(BENCH_QUESTIONS.keys).write
    puts "docs/benchmarks.md is written"
  end

  # Optimised across the crates, as `gem install` builds it.
  desc "Build the gem to measure, into #{BENCH_FOLDER}/lib"
  task :build do
    build_extension_into(BENCH_FOLDER, { "RB_SYS_CARGO_PROFILE" => "release" })
  end
end
