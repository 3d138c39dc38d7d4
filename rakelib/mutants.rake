# frozen_string_literal: true

require "json"
require "yaml"

require_relative "cargo_tools"

# Makes every small change to the tracker's state machine and wheel, or to the member, that cargo-mutants knows, one at
# a time, and checks that a test fails. Changes that no test can detect, because they change no behaviour, are listed in
# spec/mutants.yml.
class Mutants
  FILES = %w[presence presence/claims presence/memory presence/queries wheel].freeze
  FOLDER = "tmp/mutants"

  # The member without I/O, what it keeps, and the order of deliveries.
  STORE_FILES = %w[member/state log log/handled outbox coalescer/entry].freeze
  STORE_TESTS = %w[--locked --lib -- --skip against_model --skip replays --skip survey].freeze
  # Most mutants fail in one of the first schedules. So each is tried with a few of them, built quickly; who survives
  # that is tried with all.
  STORE_PASSES = [
    [%w[--timeout 30], { "SCHEDULES" => "100", "CARGO_PROFILE_DEV_OPT_LEVEL" => "0" }],
    [%w[--timeout 300 --iterate], {}]
  ].freeze

  # The quick tests. The seed is fixed, so that no mutant survives by luck, and failing cases are not shrunk.
  TESTS = %w[--locked --lib --test rules --test tracker --test memory --test model -- --skip a_crowd_with].freeze
  ENVIRONMENT = {
    "PROPTEST_CASES" => "2000", "PROPTEST_RNG_SEED" => "1", "PROPTEST_MAX_SHRINK_ITERS" => "0",
    "CARGO_TARGET_DIR" => nil, # each job has its own target folder
    **CargoTools::ENVIRONMENT
  }.freeze

  # cargo-mutants' exit statuses after all mutants: they were caught, or some timed out. The latter hides that others
  # survived, so that the list of those counts.
  TRIED_ALL = [0, 3].freeze
  SURVIVORS = "#{FOLDER}/mutants.out/missed.txt".freeze

  # @param files [Array<String>] modules of the crate
  # @param jobs [Integer] the number of mutants tried at a time
  # @param crate [String] the folder of the crate in ext
  # @param tests [Array<String>] cargo's arguments for the tests
  # @param passes [Array<Array(Array<String>, Hash)>] options of cargo-mutants and an environment for each pass; with
  #   --iterate one tries only what the passes before it have not caught
  def initialize(files, jobs, crate: "tracker", tests: TESTS, passes: [[%w[--timeout 30], {}]])
    paths = files.map { |file| "ext/#{crate}/src/#{file}.rs" }
    @scope = ["--package", "online_manager_#{crate}", *paths.flat_map { |path| ["--file", path] }]
    @tests = tests
    @files = files
    @jobs = jobs
    @passes = passes
  end

  # @return [Boolean] whether only listed mutants survived
  def run
    CargoTools.install("mutants")
    excluded = equivalent.flat_map { |mutant| ["--exclude-re", "^#{Regexp.escape(mutant.fetch("name"))}$"] }
    FileUtils.mkdir_p(FOLDER)
    @passes.each do |options, environment|
      system(ENVIRONMENT.merge(environment), "cargo", "mutants", *@scope, *excluded, *options, "--build-timeout", "300",
             "--jobs", @jobs.to_s, "--no-shuffle", "--output", FOLDER, "--", *@tests)
    end
    TRIED_ALL.include?($CHILD_STATUS.exitstatus) && File.empty?(SURVIVORS)
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

namespace :mutants do
  # Each rule of the model store is broken once; `model.rs` lists them.
  desc "Check that the simulator finds every broken rule of the model store within its 10,000 schedules"
  task :model do
    sh({ "BROKEN_RULES" => "1" }, "cargo", "test", "--locked", "--package", "online_manager_store", "--lib",
       "simulator::a_store_that_breaks_a_rule_is_found", "--", "--nocapture")
  end

  desc "Check that the tests detect every small change of the member (FILES=log,outbox for some modules, JOBS=2)"
  task :store do
    require "English"
    require "fileutils"

    files = ENV.key?("FILES") ? ENV["FILES"].split(",") : Mutants::STORE_FILES
    jobs = Integer(ENV.fetch("JOBS", 1))
    mutants = Mutants.new(files, jobs, crate: "store", tests: Mutants::STORE_TESTS,
                                       passes: Mutants::STORE_PASSES)
    mutants.run || abort("some mutants have survived, see #{Mutants::FOLDER}")
  end
end

desc "Check that the tests detect every small change of the tracker (FILES=wheel,presence for some modules, JOBS=2)"
task :mutants do
  require "English"
  require "fileutils"

  files = ENV.key?("FILES") ? ENV["FILES"].split(",") : Mutants::FILES
  Mutants.new(files, Integer(ENV.fetch("JOBS", 1))).run || abort("some mutants have survived, see #{Mutants::FOLDER}")
end
