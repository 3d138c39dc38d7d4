# frozen_string_literal: true

require_relative "prerequisites"

missing = Prerequisites.missing
abort missing if missing

require "mkmf"
require "rb_sys/mkmf"

create_rust_makefile("online_manager/online_manager") do |makefile|
  # What is installed is built from the versions that were tested.
  makefile.extra_cargo_args = ["--locked"]

  # RubyGems has make delete these once the extension is installed. By itself it would leave some of cargo's folder.
  makefile.rubygems_clean_dirs += %w[./target $(DLLIB) ./.*.time]

  # The Makefile tells the crate rb-sys which Ruby it builds for, since that need not be the first one in PATH. In a
  # checkout it is, and there rake and the gem's spec ask for silence: told what a plain `cargo clippy` is not told,
  # cargo would build rb-sys and magnus anew whenever the two take turns.
  makefile.env = RbConfig::CONFIG.to_h { |key, _| ["RBCONFIG_#{key}", nil] } if ENV["ONLINE_MANAGER_SHARED_TARGET"]
end
