# frozen_string_literal: true

require_relative "../native/build_cache"
require_relative "places"
require_relative "result"

# Runs the specs in several Rubies, each in the distribution that ships it, with its packaged gems.
module Matrix
  FOLDER = "tmp/matrix"

  # A problem that keeps the specs from running.
  class Error < StandardError; end

  # Runs the specs in one place.
  class Suite
    # The steps, and how many seconds each takes on two cores, for the progress bar.
    STEPS = { "prepare" => 30, "bin/setup" => 90, "compile" => 200, "specs" => 900 }.freeze

    # Paths in the checkout: RSpec's results, its progress (see spec/support/progress.rb), and the input of gem:native.
    EXAMPLES = "tmp/examples.json"
    PROGRESS = "tmp/progress"
    EXTENSIONS = "tmp/native/release"

    # @param place [Here, Debian]
    # @param specs [Array<String>] files and folders; empty for all
    # @param bar [ProgressBar]
    def initialize(place, specs, bar)
      @place = place
      @specs = specs
      @bar = bar
      @log = File.expand_path("#{FOLDER}/#{place.name}.log")
    end

    # @return [Result]
    # @raise [Error]
    def run
      FileUtils.rm_f(@log)
      step("prepare") { @place.prepare(@log) }
      step("bin/setup") { @place.setup.each { |command| demand(*command) } }
      step("compile") { demand("bundle", "exec", "rake", "compile", "gem:native:extension") }
      Native::BuildCache.new(EXTENSIONS).import(within(EXTENSIONS)) unless @place.root == Dir.pwd
      seconds = step("specs") { run_specs }
      Result.of(@place, within(EXAMPLES), seconds)
    end

    private

    def within(path) = File.join(@place.root, path)

    # @return [Integer] the seconds that it took
    def step(name)
      title = "#{@place.name}: #{name}"
      @bar.title = title
      @bar.log("#{title}, see #{@log}") unless $stderr.tty?
      started = now
      done = @bar.progress + STEPS.fetch(name)
      yield
      @bar.progress = done
      (now - started).round
    end

    def demand(*command)
      run_command(*command) or raise Error, "#{@place.name}: #{command.join(" ")} failed, see #{@log}"
    end

    # Does not fail when examples fail: the file that RSpec writes lists them.
    def run_specs
      FileUtils.mkdir_p(within("tmp"))
      FileUtils.rm_f([EXAMPLES, PROGRESS, "#{PROGRESS}.examples"].map { |path| within(path) })
      before = @bar.progress
      formats = ["--format", "documentation", "--format", "json", "--out", EXAMPLES]
      run_command("bundle", "exec", "rspec", *formats, *@specs, env: { "PROGRESS" => "#{@place.home}/#{PROGRESS}" }) do
        @bar.progress = before + (fraction_done * STEPS.fetch("specs")).floor
      end
      File.size?(within(EXAMPLES)) or raise Error, "#{@place.name}: the specs did not run to their end, see #{@log}"
    end

    def fraction_done
      done, all = File.read(within("#{PROGRESS}.examples")).split("/").map(&:to_f)
      all.to_f.positive? ? done / all : 0
    rescue Errno::ENOENT # no example has ended yet
      0
    end

    # @yield every second while the command runs
    # @return [Boolean] whether the command succeeded
    def run_command(*command, env: {}, &each_second)
      waiter = Process.detach(@place.spawn(*command, env:, in: File::NULL, %i[out err] => [@log, "a"]))
      each_second&.call until waiter.join(1)
      waiter.value.success?
    ensure
      end_group(waiter) if waiter&.alive?
    end

    # The command has its own process group, so Ctrl-C does not reach it, and we end it. In another Debian everything
    # ends with the namespace's first process.
    def end_group(waiter)
      Process.kill(:TERM, -waiter.pid)
      Process.kill(:KILL, -waiter.pid) unless waiter.join(10)
    rescue Errno::ESRCH
      nil
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
