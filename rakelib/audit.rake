# frozen_string_literal: true

require_relative "cargo_tools"

# Looks through the crates of the lock file as deny.toml says, by cargo-deny: their licences, where they come from, and
# which are not wanted. That needs no network once the crates are here. What is known of their security does.
class Audit
  CHECKS = %w[bans licenses sources].freeze

  # How cargo-deny begins a line when it could not get the database, rather than found something in it.
  UNAVAILABLE = /failed to (?:fetch|load|open) advisory database \S+/

  # @return [Boolean] whether nothing was found
  def run
    CargoTools.install("deny")
    found = system(CargoTools::ENVIRONMENT, *command(*CHECKS))
    advisories && found
  end

  private

  def command(*checks) = ["cargo", "deny", "--locked", "check", *checks]

  # Not everywhere may the database be fetched, and where it may not, the rest is worth knowing.
  def advisories
    said, status = Open3.capture2e(CargoTools::ENVIRONMENT, *command("advisories"))
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
