# frozen_string_literal: true

require "json"

require_relative "statistics"
require_relative "table"
require_relative "ids"
require_relative "heartbeats"
require_relative "timed_contender"
require_relative "child"
require_relative "run"

# Shared by the files in bench/. Each file answers one question:
#
#   Bench.measure("queries") do |run|
#     run.each([10_000, 1_000_000]) do |users|
#       samples = run.alternate("ours" => -> { … }, "theirs" => -> { … }) { |way| Bench.time(&way) }
#       run.figure("#{users}/ours", Bench.median(samples["ours"]))
#     end
#     run.table("Title", %w[users ours theirs], rows)
#   end
module Bench
  ROOT = File.expand_path("../..", __dir__)
  FOLDER = File.join(ROOT, "tmp/bench")
  # The gem as its users get it (rake bench:build). The checkout's own lib has the extension that the specs run.
  LIBRARY = File.join(FOLDER, "lib")

  class << self
    # @param name [String] the name of the question, and of the file with its answer
    # @yieldparam run [Run]
    def measure(name)
      load_gem
      run = Run.new(name)
      yield run
      run.save
    end

    # @return [Integer] nanoseconds on the monotonic clock
    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)

    # @return [Integer] the nanoseconds that the block took
    def time
      start = now
      yield
      now - start
    end

    # @return [Float] 1, or the fraction of all users that a trial run takes: `BENCH_SCALE=0.01`
    def scale = Float(ENV.fetch("BENCH_SCALE", 1))

    # @return [Integer] the number, scaled down in a trial run
    def users(number) = (number * scale).ceil

    # Loads the gem that `rake bench:build` has built.
    def load_gem
      $LOAD_PATH.unshift(LIBRARY)
      require "online_manager"
    rescue LoadError => e
      abort "#{e.message}\nRun it with rake (`bundle exec rake bench:#{File.basename($PROGRAM_NAME, ".rb")}`), " \
            "which builds the gem first"
    end
  end
end
