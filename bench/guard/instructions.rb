# frozen_string_literal: true

require "etc"
require "open3"
require "rbconfig"
require "yaml"

# Counts with valgrind the instructions that a heartbeat takes beyond those of an empty block. Unlike seconds, the count
# is repeatable. It is the difference of two runs of different length, so Ruby's own start-up does not count.
class Instructions
  SCRIPT = File.join(__dir__, "heartbeat.rb")
  # One figure for each version of Ruby: the count excludes the interpreter, but includes the way it calls a block.
  FIGURES = File.join(__dir__, "instructions.yml")
  HEADER = <<~YAML
    # Instructions that a heartbeat of a known user takes beyond those of an empty block, by the version of Ruby.
    # Written by `rake guard:update`, of a release build.
  YAML

  KINDS = %w[integers strings].freeze
  NOTHING = "nothing"
  # The numbers of rounds in the two runs. A round is a thousand heartbeats.
  SHORT = 1
  LONG = 51
  # How often each run is repeated. The smallest count is taken: the extension asks the config for its timeout every 10
  # ms, which is more often on a busy machine. Each run also seeds the hash table anew, but for a thousand users that
  # changes the count by less than a hundredth.
  TIMES = 3
  # Removes Bundler from the environment: a Ruby that rake starts would load it.
  BARE = { "RUBYOPT" => nil, "RUBYLIB" => nil }.freeze
  # The figure may be exceeded by this fraction.
  TOLERANCE = 0.1

  # @return [Hash{String => Integer}] by kind of ids
  def count
    counts = run([*KINDS, NOTHING].product([SHORT, LONG]) * TIMES)
    KINDS.to_h { |kind| [kind, (per_heartbeat(counts, kind) - per_heartbeat(counts, NOTHING)).round] }
  end

  # @return [Hash{String => Integer}, nil] the committed figures for this Ruby; nil if there are none
  def figures = all_figures.dig(ruby, "instructions")

  # Writes the counts as the figures for this Ruby.
  def update(counts)
    figures = all_figures.merge(ruby => { "profile" => "release", "rustc" => rustc, "instructions" => counts })
    File.write(FIGURES, HEADER + figures.sort.to_h.to_yaml)
  end

  # @return [Hash{String => Integer}] the counts that exceed the figure by more than TOLERANCE
  def excessive(counts)
    counts.select { |kind, count| count > figures.fetch(kind) * (1 + TOLERANCE) }
  end

  def ruby = RUBY_VERSION[/\d+\.\d+/]

  private

  def all_figures = File.exist?(FIGURES) ? YAML.load_file(FIGURES) : {}

  def rustc = `rustc --version`[/\d+\.\d+\.\d+/]

  # @param runs [Array<Array>] a kind and a number of rounds for each run
  # @return [Hash{Array => Array<Integer>}] the instruction counts of each run
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
