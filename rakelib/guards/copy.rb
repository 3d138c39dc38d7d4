# frozen_string_literal: true

require "bundler"
require "fileutils"
require "rbconfig"

module Guards
  # A copy of the checkout to change: the tracked files with uncommitted changes.
  #
  # It is always in the same place, so that cargo recognises its crates. Build output stays in a folder beside it.
  class Copy
    FOLDER = File.expand_path("tmp/guards")
    ROOT = "#{FOLDER}/checkout".freeze
    LOG = "#{FOLDER}/log".freeze
    ENVIRONMENT = {
      "CARGO_TARGET_DIR" => "#{FOLDER}/target",
      "RB_SYS_CARGO_TARGET_DIR" => "#{FOLDER}/target",
      "CARGO_TERM_COLOR" => "never"
    }.freeze

    # How long a command may take to end after SIGTERM, in seconds.
    TERM_TIMEOUT = 5

    # Makes the copy for the duration of the block, and deletes it afterwards in any case.
    def self.open
      FileUtils.mkdir_p(FOLDER)
      File.open("#{FOLDER}/lock", File::CREAT | File::RDWR) do |lock|
        lock.flock(File::LOCK_EX | File::LOCK_NB) or raise "another `rake guards` runs in this checkout"
        begin
          yield new
        ensure
          FileUtils.rm_rf([ROOT, LOG])
        end
      end
    end

    def initialize
      FileUtils.rm_rf(ROOT)
      files = IO.popen(%w[git ls-files -z], &:read).split("\0").select { |file| File.file?(file) }
      [*files, *Dir["Gemfile.lock"]].each do |file|
        FileUtils.mkdir_p(File.dirname("#{ROOT}/#{file}"))
        # Sets the current time, so that cargo sees every file as changed.
        FileUtils.copy_file(file, "#{ROOT}/#{file}")
        File.chmod(File.stat(file).mode, "#{ROOT}/#{file}")
      end
    end

    # Builds the extension.
    #
    # @return [Boolean] whether it succeeded
    def compile = run("bundle", "exec", "rake", "compile") == :ok

    # @return [Boolean] whether a file is valid Ruby
    def ruby?(file) = run(RbConfig.ruby, "-c", file) == :ok

    # @param limit [Numeric] seconds
    # @return [Symbol] :ok, :failed, or :timed_out
    def run(*command, limit: 900)
      waiter = spawn(*command)
      return :timed_out unless waiter.join(limit)

      waiter.value.success? ? :ok : :failed
    ensure
      kill(waiter) if waiter
    end

    # @return [String] the output of the last command
    def log = File.read(LOG).scrub

    def read(file) = File.read("#{ROOT}/#{file}")

    private

    # Its own process group: Ctrl-C does not reach it, and we end it.
    def spawn(*command)
      Bundler.with_unbundled_env do
        Process.detach(Process.spawn(ENVIRONMENT, *command, chdir: ROOT, pgroup: true, in: File::NULL,
                                                            %i[out err] => [LOG, "w"]))
      end
    end

    # RSpec passes SIGTERM on to its examples' processes.
    def kill(waiter)
      return unless waiter.alive?

      Process.kill(:TERM, -waiter.pid)
      Process.kill(:KILL, -waiter.pid) unless waiter.join(TERM_TIMEOUT)
    rescue Errno::ESRCH
      nil
    end
  end
end
