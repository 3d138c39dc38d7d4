# frozen_string_literal: true

require "open3"
require "rbconfig"

# A child process, for signals, exits and forks. Its output is collected as it arrives. Specs start one with
# {Helper#ruby} or {Helper#command}:
#
#   it "sets the remaining users offline on Ctrl-C" do
#     process = ruby(<<~RUBY) do |child|
#       require "online_manager"
#       …
#     RUBY
#       child.wait_for("online 7")
#       child.signal(:INT)
#     end
#
#     expect(process.lines).to eq ["online 7", "offline 7"]
#     expect(process.status.termsig).to eq Signal.list["INT"]
#   end
class RubyProcess
  ROOT = File.expand_path("../..", __dir__)
  LIMIT = 15

  attr_reader :pid

  # @param argv [Array<String>] the command and its arguments
  # @param env [Hash{String => String}] the whole environment
  # @param chdir [String] its working directory
  def initialize(*argv, env: ENV.to_h, chdir: ROOT)
    @mutex = Mutex.new
    @printed = ConditionVariable.new
    @stdout = +""
    @stderr = +""
    # Its own process group, so that {#kill} also reaches the processes that it forked.
    @stdin, stdout, stderr, @waiter = Open3.popen3(env, *argv, chdir:, pgroup: true, unsetenv_others: true)
    @pid = @waiter.pid
    @open = 2
    @readers = [collect(stdout, @stdout), collect(stderr, @stderr)]
  end

  # @return [String] the output so far
  def stdout = @mutex.synchronize { @stdout.dup }

  # @return [String] the error output so far
  def stderr = @mutex.synchronize { @stderr.dup }

  # @return [Array<String>] the lines of the output so far
  def lines = stdout.lines(chomp: true)

  # @return [Process::Status, nil] nil while it runs
  def status = (@waiter.value unless @waiter.alive?)

  # @return [Boolean] whether it has ended by itself, with status 0
  def success? = status&.success? || false

  # Waits for a line of stdout or stderr. Lines that were printed before count too.
  #
  # @param pattern [String, Regexp] the whole line, or a match in it
  # @param count [Integer] how many such lines to wait for; the last one is returned
  # @param limit [Numeric] seconds
  # @return [String, MatchData]
  def wait_for(pattern, count: 1, limit: LIMIT)
    deadline = Wait.monotonic + limit
    @mutex.synchronize do
      until (line = printed_lines.grep(pattern)[count - 1])
        remaining = deadline - Wait.monotonic
        complain("printed no #{pattern.inspect}") if @open.zero? && @waiter.join(remaining.clamp(0, 1))
        complain("printed no #{pattern.inspect} within #{limit} s") if remaining <= 0
        @printed.wait(@mutex, remaining)
      end
      pattern.is_a?(Regexp) ? pattern.match(line) : line
    end
  end

  # @param name [Symbol, String] a signal, such as :INT
  def signal(name)
    Process.kill(name, pid)
  end

  # Writes a line to its stdin.
  def puts(line)
    @stdin.puts(line)
    @stdin.flush
  end

  # Closes its stdin.
  def close = @stdin.close

  # Waits until it has ended, and until every process that holds its stdout or stderr has.
  #
  # @param limit [Numeric] seconds
  # @return [self]
  def finish(limit: LIMIT)
    deadline = Wait.monotonic + limit
    [@waiter, *@readers].each do |thread|
      thread.join([deadline - Wait.monotonic, 0].max) or
        @mutex.synchronize { complain(status ? "left its output open" : "did not end within #{limit} s") }
    end
    self
  end

  # Kills it and all processes in its process group.
  #
  # @return [self]
  def kill
    Process.kill(:KILL, -pid)
    self
  rescue Errno::ESRCH
    self
  ensure
    @waiter.join
    @stdin.close
  end

  def inspect = "#<#{self.class} #{pid}#{" #{status}" if status}>"

  private

  def collect(io, text)
    io.set_encoding(Encoding::UTF_8)
    Thread.new do
      io.each_line { |line| change { text << line } }
    ensure
      io.close
      change { @open -= 1 }
    end
  end

  def change
    @mutex.synchronize do
      yield
      @printed.broadcast
    end
  end

  def printed_lines = [*@stdout.lines(chomp: true), *@stderr.lines(chomp: true)]

  def complain(what)
    RSpec::Expectations.fail_with(<<~TEXT)
      The process #{what} (#{status || "it still runs"}).
      --- stdout
      #{@stdout}
      --- stderr
      #{@stderr}
    TEXT
  end

  # Spec helpers.
  module Helper
    # Runs a Ruby script with warnings on, and with our lib on its load path.
    #
    # With a block, yields the process while it runs. Then waits for its end, and kills it if it does not end, or if the
    # block raises.
    #
    # @param script [String]
    # @param args [Array<String>] the script's ARGV
    # @param bundled [Boolean] whether it runs in our bundle, as with `bundle exec`; otherwise without any activated gem
    # @param lib [Boolean] whether our lib is on its load path
    # @param options [Hash] as for {#command}
    # @yieldparam process [RubyProcess]
    # @return [RubyProcess] the process, which has ended
    def ruby(script, *args, bundled: false, lib: true, env: {}, **options, &block)
      switches = ["-w", "-r#{ROOT}/spec/support/child/prelude"]
      switches.push("-I#{ROOT}/lib") if lib
      if bundled
        switches.unshift("-rbundler/setup")
        env = { "BUNDLE_GEMFILE" => "#{ROOT}/Gemfile", **env }
      end
      command(RbConfig.ruby, *switches, "-e", script, "--", *args, env:, **options, &block)
    end

    # Runs any command.
    #
    # @param env [Hash{String => String, nil}] additions to our environment without Bundler's variables, and a UTF-8
    #   locale
    # @param chdir [String] the working directory
    # @param limit [Numeric] how long it may run after the block, in seconds
    # @yieldparam process [RubyProcess]
    # @return [RubyProcess] the process, which has ended
    def command(*argv, env: {}, chdir: ROOT, limit: LIMIT)
      env = (defined?(Bundler) ? Bundler.unbundled_env : ENV.to_h).merge("LC_ALL" => "C.UTF-8", **env).compact
      process = RubyProcess.new(*argv, env:, chdir:)
      yield process if block_given?
      process.finish(limit:)
    ensure
      process&.kill
    end
  end
end

RSpec.configure { |config| config.include RubyProcess::Helper }
