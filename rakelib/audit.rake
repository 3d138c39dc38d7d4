# frozen_string_literal: true

require_relative "cargo_tools"

# Checks the crates in the lock file against deny.toml with cargo-deny: licences, sources and banned crates. That needs
# no network once the crates are downloaded. The security advisories do.
class Audit
  CHECKS = %w[bans licenses sources].freeze

  # cargo-deny's message when it could not get the advisory database.
  UNAVAILABLE = /failed to (?:fetch|load|open) advisory database \S+/

  # @return [Boolean] whether nothing was found
  def run
    CargoTools.install("deny")
    found = system(CargoTools::ENVIRONMENT, *command(*CHECKS))
    advisories && found
  end

  private

  def command(*checks) = ["cargo", "deny", "--locked", "check", *checks]

  # The advisory database cannot be fetched everywhere. Without it, the other checks still count.
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

desc "Check the crates: licences, sources, bans, and security advisories where they can be fetched"
task :audit do
  require "open3"

  Audit.new.run || abort("see above, and deny.toml")
end
