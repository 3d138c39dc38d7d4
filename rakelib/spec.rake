# frozen_string_literal: true

# Runs the specs in parallel lanes, each in its own process, since most examples mostly wait. A lane's output is shown
# when it ends.
class SpecLanes
  FOLDER = "tmp/spec"

  # Each file belongs to the first lane that it matches. The lanes take about as long as each other. The specs that
  # build anything in the checkout are all in the last one.
  LANES = {
    "Redis" => "spec/store/redis*_spec.rb",
    "stores" => "spec/store/*_spec.rb",
    "Rails" => "spec/rails/**/*_spec.rb",
    "reactors" => "spec/{reactor/*,{conformance,crowd,fuzz,gc,memory_safety,process,reactor,threads,time}}_spec.rb",
    "the rest" => "spec/**/*_spec.rb"
  }.freeze

  # How long a lane may take to end its examples' processes on SIGTERM, in seconds. (On SIGINT, RSpec would finish the
  # current example first.)
  TERM_TIMEOUT = 10

  # How often ended lanes are looked for, in seconds.
  POLL_INTERVAL = 0.2

  # Unsets what `rake compile` has set for itself: otherwise examples that build the gem would build the checkout.
  WITHOUT_COMPILE_ENV = %w[
    MAKE ONLINE_MANAGER_SHARED_TARGET RB_SYS_CARGO_MANIFEST_DIR RB_SYS_CARGO_PROFILE RB_SYS_CARGO_TARGET_DIR
    RB_SYS_GLOBAL_RUSTFLAGS
  ].to_h { |name| [name, nil] }.freeze

  Lane = Struct.new(:name, :files, :waiter, :started_at) do
    def log = "#{FOLDER}/#{name}.log"
  end

  def initialize
    files = Dir["spec/**/*_spec.rb"]
    @lanes = LANES.map do |name, pattern|
      own, files = files.partition { |file| File.fnmatch(pattern, file, File::FNM_PATHNAME | File::FNM_EXTGLOB) }
      Lane.new(name, own.sort)
    end
  end

  # @return [Array<String>] the names of the failed lanes
  def run
    @lanes.each { |lane| start(lane) }
    puts "#{@lanes.map(&:name).join(", ")}: side by side, each shown when it ends (till then #{FOLDER}/*.log)"
    failed = []
    until @lanes.empty?
      sleep POLL_INTERVAL
      ended, @lanes = @lanes.partition { |lane| !lane.waiter.alive? }
      ended.each { |lane| show(lane) }
      failed += ended.reject { |lane| lane.waiter.value.success? }
    end
    failed.map(&:name)
  ensure
    stop
  end

  private

  # Its own process group: Ctrl-C does not reach it, and we end it.
  def start(lane)
    lane.started_at = now
    pid = Process.spawn(WITHOUT_COMPILE_ENV, "bundle", "exec", "rspec", *lane.files, pgroup: true, in: File::NULL,
                                                                                     %i[out err] => [lane.log, "w"])
    # Each lane has a thread that waits for it: `Process.wait2` without a pid would also reap other children.
    lane.waiter = Process.detach(pid)
  end

  def show(lane)
    ended = lane.waiter.value.success? ? "passed" : "failed"
    puts "", "== The specs of #{lane.name} #{ended} in #{(now - lane.started_at).round} s", "", File.read(lane.log)
  end

  def stop
    waiters = @lanes.filter_map(&:waiter)
    waiters.each { |waiter| signal(:TERM, waiter) }
    stop_at = now + TERM_TIMEOUT
    waiters.each { |waiter| waiter.join([stop_at - now, 0].max) || signal(:KILL, waiter) }
  end

  def signal(name, waiter)
    Process.kill(name, -waiter.pid) if waiter.alive?
  rescue Errno::ESRCH
    nil # it has just ended
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

desc "Run the specs"
task spec: :compile do
  mkdir_p SpecLanes::FOLDER, verbose: false
  failed = SpecLanes.new.run
  abort "The specs failed of: #{failed.join(", ")}" unless failed.empty?
end
