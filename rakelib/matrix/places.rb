# frozen_string_literal: true

require "bundler"
require "fileutils"

module Matrix
  # This checkout, with the Ruby that runs rake.
  class Here
    def name = "here"

    # @return [String] the checkout's folder, as this process sees it
    def root = Dir.pwd

    # @return [String] the checkout's folder, as the processes in that place see it
    def home = root

    # Does nothing. (A Debian prints its progress to the log, a path.)
    def prepare(_log) = nil

    # @return [Array<Array<String>>] the commands that install what the specs need
    def setup = [["bin/setup"]]

    # @return [Integer] the pid of a process that runs the command in the checkout
    def spawn(*command, env: {}, **options)
      Bundler.with_unbundled_env { Process.spawn(env, *command, pgroup: true, **options) }
    end
  end

  # Another Debian release in a folder of this machine, with a copy of the checkout.
  class Debian
    ENTER = File.expand_path("enter", __dir__)

    # Debian's own script for every release since 2024. A debootstrap that is older than a release has no other one.
    SCRIPT = "/usr/share/debootstrap/scripts/sid"

    # Debian 13; the testing release; and the same with the Ruby that experimental has for it.
    def self.all(folder)
      { "trixie" => {}, "forky" => {}, "forky-3.4" => { release: "forky", ruby: "3.4" } }
        .map { |name, options| new(name, "#{folder}/#{name}", **options) }
    end

    attr_reader :name

    # @param name [String]
    # @param folder [String] the folder, which need not exist yet
    # @param release [String]
    # @param ruby [String, nil] the version of a Ruby in experimental; nil is the release's own Ruby
    def initialize(name, folder, release: name, ruby: nil)
      @name = name
      @folder = File.expand_path(folder)
      @release = release
      @ruby = ruby
    end

    def root = "#{@folder}#{home}"

    # The folder that `enter` uses.
    def home = "/online_manager"

    # Installs the release if it is missing, and copies the checkout with uncommitted changes.
    def prepare(log)
      install(log) unless File.exist?("#{@folder}/installed")
      run("cargo", "fetch", "--locked", log:)
      run("bundle", "exec", "rake", "gem:native:tools", log:)

      FileUtils.rm_rf(root)
      files = IO.popen(%w[git ls-files -z --cached --others --exclude-standard], &:read).split("\0")
      files.select { |file| File.file?(file) }.each do |file|
        FileUtils.mkdir_p(File.dirname("#{root}/#{file}"))
        # Keeps the modification time, by which cargo decides what has changed.
        FileUtils.cp(file, "#{root}/#{file}", preserve: true)
      end
    end

    # The other Ruby needs the gems' packages, and bin/setup then looks for the gems with that Ruby.
    def setup
      @ruby ? [["bin/setup"], ["rakelib/matrix/install_ruby", @ruby], ["bin/setup"]] : [["bin/setup"]]
    end

    def spawn(*command, env: {}, **options)
      variables = env.map { |name, value| "#{name}=#{value}" }
      Process.spawn(ENTER, @folder, "env", *variables, *command, pgroup: true, **options)
    end

    private

    def install(log)
      run("bin/setup", "--matrix", log:)
      FileUtils.rm_rf(@folder)
      FileUtils.mkdir_p(@folder)
      mirrors.find { |mirror| debootstrap(mirror, log) } or
        raise Error, "Debian's #{@release} cannot be installed, see #{log}"
      # Without it chromedriver cannot find the Chromium that it started.
      File.write("#{@folder}/etc/hosts", "127.0.0.1 localhost\n")
      # Dpkg would wait for the disk after each file.
      File.write("#{@folder}/etc/dpkg/dpkg.cfg.d/90matrix", "force-unsafe-io\n")
      # The lists of a testing release expire after a week, and a mirror may be a snapshot.
      File.write("#{@folder}/etc/apt/apt.conf.d/90matrix", "Acquire::Check-Valid-Until \"false\";\n")
      FileUtils.touch("#{@folder}/installed")
    end

    def debootstrap(mirror, log)
      run("debootstrap", "--variant=minbase", @release, @folder, mirror, SCRIPT, log:, fail: false)
    end

    # The mirrors that this machine gets its own packages from.
    def mirrors
      IO.popen(%w[bin/setup --mirrors]) { |list| list.readlines(chomp: true) }
    end

    def run(*command, log:, fail: true)
      done = system(*command, %i[out err] => [log, "a"])
      raise Error, "#{command.join(" ")} failed, see #{log}" if fail && !done

      done
    end
  end
end
