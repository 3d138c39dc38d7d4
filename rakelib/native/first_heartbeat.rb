# frozen_string_literal: true

# first_heartbeat.rb GEM: installs the gem as a user does where there is nothing to compile with, and sends a heartbeat.
# Prints the Ruby version, the seconds from `gem install` to the call of `online`, and the seconds of CPU in them.
require "English"
require "fileutils"
require "rbconfig"
require "tmpdir"

SCRIPT = <<~RUBY
  require "online_manager"

  class OnlineConfig
    def timeout = 60
    def setup = yield("ann")
    def online(user_id) = puts("\#{user_id} is online")
    def offline(_) = nil
  end

  OnlineManager.setup(OnlineConfig.new, reactor: :thread)
RUBY

# A PATH of these commands alone: no cargo, cc or make. Debian's `gem` is a Ruby script.
COMMANDS = { "ruby" => RbConfig.ruby, "gem" => File.join(RbConfig::CONFIG["bindir"], "gem"), "env" => "/usr/bin/env" }
           .freeze

# @return [String] the output
def run(env, *command)
  output = IO.popen([env, *command, { unsetenv_others: true, err: %i[child out] }], &:read)
  abort "#{command.join(" ")} failed:\n#{output}" unless $CHILD_STATUS.success?
  output
end

Dir.mktmpdir do |folder|
  FileUtils.mkdir("#{folder}/bin")
  COMMANDS.each { |name, path| FileUtils.ln_s(path, "#{folder}/bin/#{name}") }
  env = { "PATH" => "#{folder}/bin", "HOME" => folder, "GEM_HOME" => "#{folder}/gems", "LC_ALL" => "C.UTF-8" }
  package = File.expand_path(ARGV.fetch(0))

  started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  run(env, "gem", "install", "--local", "--no-document", package)
  said = run(env, "ruby", "-e", SCRIPT)
  seconds = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started

  abort "the first heartbeat led to: #{said.inspect}" unless said == "ann is online\n"
  puts "#{RUBY_VERSION} #{seconds.round(1)} #{Process.times.then { |times| times.cutime + times.cstime }.round(1)}"
end
