# frozen_string_literal: true

# Runs the specs in lanes side by side, each in a process of its own, since most examples mostly wait. What a lane says
# is shown when it ends.
class SpecLanes
  FOLDER = "tmp/spec"

  # A file is in the first one that it fits. They take about as long as each other. What builds anything in the checkout
  # is in one, the last.
  LANES = {
    "Redis" => "spec/store/redis*_spec.rb",
    "stores" => "spec/store/*_spec.rb",
    "Rails" => "spec/rails/**/*_spec.rb",
    "reactors" => "spec/{reactor/*,{conformance,crowd,fuzz,gc,memory_safety,process,reactor,threads,time}}_spec.rb",
    "the rest" => "spec/**/*_spec.rb"
  }.freeze

  # Seconds that a lane gets to end its examples' processes when all is to end. They are told by SIGTERM: on SIGINT
  # RSpec would go on to the end of an example.
  TERM_TIMEOUT = 10

  # Seconds between two looks which have ended.
  POLL_INTERVAL = 0.2

  # What `rake compile` has set for itself: examples that build the gem would build the checkout instead.
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

  # @return [Array<String>] the names of those that have failed
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

  # Not in our group of processes: on Ctrl-C it is for us to end it.
  def start(lane)
    lane.started_at = now
    pid = Process.spawn(WITHOUT_COMPILE_ENV, "bundle", "exec", "rspec", *lane.files, pgroup: true, in: File::NULL,
                                                                                     %i[out err] => [lane.log, "w"])
    # Each has a thread that waits for it: `Process.wait2` without a pid also waits for what others have set going.
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
