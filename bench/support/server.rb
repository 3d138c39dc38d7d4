# frozen_string_literal: true

require "etc"
require "fileutils"
require "tmpdir"

module Bench
  # Our own server: in a temporary folder, on a Unix socket there and nowhere else, and ended by its pid. The kernel
  # ends it too when we die.
  #
  # Subclasses have `command`, and `ready?`, which returns whether the server answers.
  class Server
    # How long the server may take to start or to stop, in seconds.
    TIMEOUT = 30

    # Starts a server for the duration of a block.
    def self.open
      server = new
      server.start
      yield server
    ensure
      server&.stop
    end

    attr_reader :folder, :pid

    # @param user [Etc::Passwd] the user that it runs as
    def initialize(user: Etc.getpwuid)
      @user = user
      @folder = Dir.mktmpdir("online_manager_bench")
      File.chown(user.uid, user.gid, folder) if Process.uid.zero?
    end

    def start
      @pid = spawn(*wrapper, "--pdeathsig", stop_signal, *command, chdir: folder, in: File::NULL, %i[out err] => log)
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + TIMEOUT
      until ready?
        if Process.wait(pid, Process::WNOHANG)
          @pid = nil
          raise "#{self.class} has ended:\n#{File.read(log)}"
        end
        raise "#{self.class} does not answer" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

        sleep 0.05
      end
    end

    def stop
      if @pid
        Process.kill(stop_signal, @pid)
        Process.wait(@pid)
      end
    ensure
      @pid = nil
      FileUtils.remove_entry(folder)
    end

    private

    def stop_signal = "TERM"

    def log = File.join(folder, "log")

    # Prefix that runs a command as the server's user.
    def wrapper
      return ["setpriv"] unless Process.uid.zero?

      ["setpriv", "--reuid", @user.uid.to_s, "--regid", @user.gid.to_s, "--clear-groups"]
    end

    # @return [String] the path of an executable, which may be outside of PATH on Debian
    def executable(name, elsewhere = [])
      folders = ENV.fetch("PATH").split(File::PATH_SEPARATOR) + elsewhere
      folders.map { |folder| File.join(folder, name) }.find { |path| File.executable?(path) } ||
        raise("#{name} is missing: bin/setup --bench installs it")
    end
  end
end
