# frozen_string_literal: true

require "json"
require "yaml"

require_relative "cargo_tools"

# Makes every small change to the tracker's state machine and wheel that cargo-mutants knows, one at a time, and checks
# that a test fails. Changes that no test can detect, because they change no behaviour, are listed in spec/mutants.yml.
class Mutants
  FILES = %w[presence presence/claims wheel].freeze
  FOLDER = "tmp/mutants"

  # The quick tests. The seed is fixed, so that no mutant survives by luck, and failing cases are not shrunk.
  TESTS = %w[--locked --lib --test rules --test tracker --test model -- --skip a_crowd_with].freeze
  ENVIRONMENT = {
    "PROPTEST_CASES" => "2000", "PROPTEST_RNG_SEED" => "1", "PROPTEST_MAX_SHRINK_ITERS" => "0",
    "CARGO_TARGET_DIR" => nil, # each job has its own target folder
    **CargoTools::ENVIRONMENT
  }.freeze

  # Seconds. The tests take two, or five on a busy machine. A mutant that never ends counts as caught.
  LIMITS = %w[--timeout 30 --build-timeout 300].freeze

  # cargo-mutants' exit statuses without a survivor: all mutants caught, or some of them timed out.
  NO_SURVIVOR = [0, 3].freeze

  # @param files [Array<String>] modules of the tracker
  # @param jobs [Integer] the number of mutants tried at a time
  def initialize(files, jobs)
    paths = files.map { |file| "ext/tracker/src/#{file}.rs" }
    @scope = ["--package", "online_manager_tracker", *paths.flat_map { |path| ["--file", path] }]
    @files = files
    @jobs = jobs
  end

  # @return [Boolean] whether only listed mutants survived
  def run
    CargoTools.install("mutants")
    excluded = equivalent.flat_map { |mutant| ["--exclude-re", "^#{Regexp.escape(mutant.fetch("name"))}$"] }
    FileUtils.mkdir_p(FOLDER)
    system(ENVIRONMENT, "cargo", "mutants", *@scope, *excluded, *LIMITS, "--jobs", @jobs.to_s, "--no-shuffle",
           "--output", FOLDER, "--", *TESTS)
    NO_SURVIVOR.include?($CHILD_STATUS.exitstatus)
  end

  private

  # @return [Array<Hash>] cargo-mutants' descriptions of the listed mutants
  def equivalent
    mutants = all
    YAML.safe_load_file("spec/mutants.yml").select { |entry| @files.include?(entry.fetch("file")) }.flat_map do |entry|
      found = mutants.select { |mutant| listed?(mutant, entry) }
      abort "spec/mutants.yml: there is no such mutant: #{entry.inspect}" if found.empty?
      found
    end
  end

  def all
    IO.popen([ENVIRONMENT, "cargo", "mutants", *@scope, "--list", "--json"]) { |list| JSON.parse(list.read) }
  end

  # Whether an entry describes this mutant. It is found by the text from there to the end of the line, since line
  # numbers change.
  def listed?(mutant, entry)
    return false unless mutant.fetch("name").end_with?(": #{entry.fetch("mutant")}")

    place = mutant.fetch("span").fetch("start")
    line = File.readlines(mutant.fetch("file"), chomp: true).fetch(place.fetch("line") - 1)
    line[(place.fetch("column") - 1)..] == entry.fetch("at")
  end
end

desc "Check that the tests detect every small change of the tracker (FILES=wheel,presence for some modules, JOBS=2)"
task :mutants do
  require "English"
  require "fileutils"

  files = ENV.key?("FILES") ? ENV["FILES"].split(",") : Mutants::FILES
  Mutants.new(files, Integer(ENV.fetch("JOBS", 1))).run || abort("some mutants have survived, see #{Mutants::FOLDER}")
end
