# frozen_string_literal: true

require "etc"
require "open3"
require "rbconfig"
require "yaml"

# The instructions that a heartbeat takes beyond those of an empty block, counted by valgrind: repeatable where seconds
# are not. Two runs of different length are subtracted, so that what Ruby does to start is not counted.
class Instructions
  SCRIPT = File.join(__dir__, "heartbeat.rb")
  # Of each version of Ruby: the interpreter's part is subtracted, but the way it calls a block is not ours either.
  FIGURES = File.join(__dir__, "instructions.yml")
  HEADER = <<~YAML
    # Instructions that a heartbeat of a known user takes beyond those of an empty block, by the version of Ruby.
    # Written by `rake guard:update`, of a release build.
  YAML

  KINDS = %w[integers strings].freeze
  NOTHING = "nothing"
  # Rounds of heartbeats in the two runs, each of a thousand.
  SHORT = 1
  LONG = 51
  # How often each is run. The smallest count is taken: the config is asked for its timeout each 10 ms, and on a busy
  # machine that is more often. Where a user lands in the table is drawn anew each time too, but of a thousand users
  # that makes less than a hundredth.
  TIMES = 3
  # Without Bundler, which a Ruby that rake starts would load.
  BARE = { "RUBYOPT" => nil, "RUBYLIB" => nil }.freeze
  # By how much the figure may be exceeded.
  TOLERANCE = 0.1

  # @return [Hash{String => Integer}] by kind of ids
  def count
    counts = run([*KINDS, NOTHING].product([SHORT, LONG]) * TIMES)
    KINDS.to_h { |kind| [kind, (per_heartbeat(counts, kind) - per_heartbeat(counts, NOTHING)).round] }
  end

  # @return [Hash{String => Integer}, nil] the committed figures for this Ruby
  def figures = all_figures.dig(ruby, "instructions")

  # Makes these the figures for this Ruby.
  def update(counts)
    figures = all_figures.merge(ruby => { "profile" => "release", "rustc" => rustc, "instructions" => counts })
    File.write(FIGURES, HEADER + figures.sort.to_h.to_yaml)
  end

  # @return [Hash{String => Integer}] those of the counts that are too high
  def excessive(counts)
    counts.select { |kind, count| count > figures.fetch(kind) * (1 + TOLERANCE) }
  end

  def ruby = RUBY_VERSION[/\d+\.\d+/]

  private

  def all_figures = File.exist?(FIGURES) ? YAML.load_file(FIGURES) : {}

  def rustc = `rustc --version`[/\d+\.\d+\.\d+/]

  # @param runs [Array<Array>] kind and rounds of each
  # @return [Hash{Array => Array<Integer>}] the instructions of each
  def run(runs)
    waiting = Thread::Queue.new(runs).close
    counts = runs.to_h { |run| [run, []] }
    Array.new(Etc.nprocessors) do
      Thread.new do
        while (kind, rounds = waiting.pop)
          counts[[kind, rounds]] << instructions(kind, rounds)
        end
      end
    end.each(&:value)
    counts
  end

  def instructions(kind, rounds)
    output, status = Open3.capture2e(BARE, "valgrind", "--tool=callgrind", "--callgrind-out-file=#{File::NULL}",
                                     RbConfig.ruby, "--disable-gems", SCRIPT, kind, rounds.to_s)
    raise "valgrind failed:\n#{output}" unless status.success?

    Integer(output[/Collected : (\d+)/, 1])
  end

  def per_heartbeat(counts, kind)
    short, long = [SHORT, LONG].map { |rounds| counts.fetch([kind, rounds]).min }
    (long - short).fdiv((LONG - SHORT) * 1_000)
  end
end
