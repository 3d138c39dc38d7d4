# frozen_string_literal: true

require_relative "lib/online_manager/version"

Gem::Specification.new do |spec|
  spec.name = "online_manager"
  spec.version = OnlineManager::VERSION
  spec.authors = ["OnlineManager contributors"]
  spec.summary = "Turns any rate of heartbeats into two callbacks: online and offline"
  spec.description = <<~TEXT
    Report a heartbeat whenever a user is there, at any rate. One callback runs when a user comes online, another one
    when no heartbeat has come for a timeout. No heartbeat costs a timer: a native extension in Rust keeps the deadlines.
    Where there is no precompiled gem, its compilation takes Rust, libclang and about three minutes of CPU time.
  TEXT
  spec.homepage = "https://github.com/cameron-martin/online_manager"
  spec.license = "MIT"
  spec.required_ruby_version = ">= 3.1"

  spec.metadata = {
    "source_code_uri" => spec.homepage,
    "changelog_uri" => "#{spec.homepage}/blob/main/CHANGELOG.md",
    "rubygems_mfa_required" => "true",
    # rb-sys finds the extension's crate by this.
    "cargo_crate_name" => "online_manager"
  }

  # A list of files instead of `git ls-files`, so that the gem can also be built from an archive. Leaves out the crates'
  # tests and benches; so no Cargo.toml may name one ([[test]], [[bench]]), as cargo fails if the file is missing.
  spec.files = Dir[
    "{README,CHANGELOG}.md",
    "LICENSE.txt",
    "Cargo.{toml,lock}",
    "ext/*.md",
    "ext/*/*.{md,rb,rs,toml}",
    "ext/*/src/**/*",
    "exe/*",
    "lib/**/*.{rb,js,tt}",
    "lib/generators/**/*",
    "sig/**/*.rbs",
    base: __dir__
  ].select { |path| File.file?(File.join(__dir__, path)) }
  spec.require_paths = ["lib"]
  spec.bindir = "exe"
  spec.executables = ["online_manager"]
  spec.extensions = ["ext/online_manager/extconf.rb"]

  # Not eventmachine: the gem uses it where it is installed, and most applications run without it.
  spec.add_dependency "rb_sys", "~> 0.9", ">= 0.9.87"
end
