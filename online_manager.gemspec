# frozen_string_literal: true

require_relative "lib/online_manager/version"

Gem::Specification.new do |spec|
  spec.name = "online_manager"
  spec.version = OnlineManager::VERSION
  spec.authors = ["OnlineManager contributors"]
  spec.summary = "Heartbeats in, transitions out: who came online, and who went offline"
  spec.description = <<~TEXT
    Tell it whenever a user gives a sign of life, as often as you like. It calls you back when a user comes online, and
    again once the user has been silent for a timeout. Heartbeats cost no timer: the bookkeeping is a native extension in Rust.
  TEXT
  spec.homepage = "https://github.com/cameron-martin/online_manager"
  spec.license = "MIT"
  spec.required_ruby_version = ">= 3.1"

  spec.metadata = {
    "source_code_uri" => spec.homepage,
    "changelog_uri" => "#{spec.homepage}/blob/main/CHANGELOG.md",
    "rubygems_mfa_required" => "true",
    # Read by rb-sys, to find the crate that is the extension.
    "cargo_crate_name" => "online_manager"
  }

  # A list of what is wanted rather than what git knows, so that the gem can also be built from an archive. The crates'
  # tests and benches stay at home, therefore no Cargo.toml may name one ([[test]], [[bench]]): cargo would miss it.
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

  # EventMachine is used where it is there and not asked for: most applications run without it.
  spec.add_dependency "rb_sys", "~> 0.9", ">= 0.9.87"
end
