# frozen_string_literal: true

require_relative "prerequisites"

missing = Prerequisites.missing
abort missing if missing

require "mkmf"
require "rb_sys/mkmf"

create_rust_makefile("online_manager/online_manager") do |makefile|
  # Installs the versions of the dependencies that were tested.
  makefile.extra_cargo_args = ["--locked"]

  # RubyGems has make delete these folders after the installation. By default it would leave a part of cargo's folder.
  makefile.rubygems_clean_dirs += %w[./target $(DLLIB) ./.*.time]

  # The Makefile passes RbConfig to the crate rb-sys, since the Ruby that it builds for need not be the first in PATH.
  # In a checkout it is, and ONLINE_MANAGER_SHARED_TARGET drops those variables: a plain `cargo clippy` has none of
  # them, and cargo would rebuild rb-sys and magnus whenever the variables differ from the last build's.
  makefile.env = RbConfig::CONFIG.to_h { |key, _| ["RBCONFIG_#{key}", nil] } if ENV["ONLINE_MANAGER_SHARED_TARGET"]
end
