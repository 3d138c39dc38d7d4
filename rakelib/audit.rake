# frozen_string_literal: true

# Looks through the crates of the lock file as deny.toml says, by cargo-deny: their licences, where they come from, and
# which are not wanted. That needs no network once the crates are here. What is known of their security does.
class Audit
  TOOLS = File.expand_path("tmp/tools")
  ENVIRONMENT = { "PATH" => "#{TOOLS}/bin:#{ENV.fetch("PATH")}" }.freeze
  CHECKS = %w[bans licenses sources].freeze

  # How cargo-deny begins a line when it could not get the database, rather than found something in it.
  UNAVAILABLE = /failed to (?:fetch|load|open) advisory database \S+/

  # @return [Boolean] whether nothing was found
  def run
    install
    found = system(ENVIRONMENT, *command(*CHECKS))
    advisories && found
  end

  private

  def install
    return if system(ENVIRONMENT, "cargo", "deny", "--version", %i[out err] => File::NULL)

    puts "cargo-deny is missing: it is built and installed into #{TOOLS}, which takes minutes"
    system("cargo", "install", "--locked", "cargo-deny", "--root", TOOLS) || abort("cargo-deny cannot be had")
  end

  def command(*checks) = ["cargo", "deny", "--locked", "check", *checks]

  # Not everywhere may the database be fetched, and where it may not, the rest is worth knowing.
  def advisories
    said, status = Open3.capture2e(ENVIRONMENT, *command("advisories"))
    if !status.success? && said.match?(UNAVAILABLE)
      puts "advisories not looked up: the database of them cannot be fetched here (#{said[UNAVAILABLE]})"
      return true
    end
    puts said
    status.success?
  end
end

desc "Look through the crates: licences, sources, what is not wanted, and known weaknesses where they can be fetched"
task :audit do
  require "open3"

  Audit.new.run || abort("see above, and deny.toml")
end
