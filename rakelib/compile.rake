# frozen_string_literal: true

require "rb_sys/extensiontask"
require_relative "native/package"

# Releases are built in containers of rb-sys-dock's, which say so by this (docs/releasing.md).
CROSS = ENV.key?("RUBY_TARGET")

# What the specs load is built as clippy and the cargo tests build theirs (same folder, profile, flags, environment), so
# that no crate is compiled twice. `rake compile:release` builds what `gem install` would.
unless CROSS
  ENV["RB_SYS_CARGO_PROFILE"] ||= "dev"
  ENV["RB_SYS_GLOBAL_RUSTFLAGS"] ||= "" # --cfg=rb_sys_gem, which only matters to who links libruby
  ENV["ONLINE_MANAGER_SHARED_TARGET"] ||= "1" # see extconf.rb
  # What has not changed stays in its place: other processes may be about to load it.
  ENV["MAKE"] ||= "make INSTALL='install -C'"
end

# Told of the gem, `rake compile` would copy all of it on the way.
gem_to_build = CROSS ? [Gem::Specification.load("online_manager.gemspec")] : []

RbSys::ExtensionTask.new("online_manager", *gem_to_build) do |extension|
  extension.lib_dir = "lib/online_manager"
  extension.cross_compile = CROSS
  extension.cross_platform = Native::Package::PLATFORMS & [ENV.fetch("RUBY_TARGET", nil)]
  extension.cross_compiling { |spec| Native::Package.without_sources(spec) }
  extension.extra_options = [] # or `rake --trace` would become `cargo rustc --trace`

  # Cargo is asked each time. But make goes by dates, and would keep the copy of what another profile has built, where
  # that is newer.
  task "compile:forget" do
    rm_f FileList["tmp/*/online_manager/*/online_manager.{so,bundle}"]
  end
  file extension.extconf => "compile:forget"
end

# Builds the extension by extconf.rb and make, as `gem install` would, and puts a copy of lib with it into a folder's
# lib. What the specs run stays as it is.
def build_extension_into(folder, env)
  build = "#{folder}/build"
  env = { "RB_SYS_CARGO_TARGET_DIR" => ENV.fetch("CARGO_TARGET_DIR", File.expand_path("target")), **env }
  extension = "online_manager.#{RbConfig::CONFIG["DLEXT"]}"
  mkdir_p build, verbose: false
  rm_f "#{build}/#{extension}", verbose: false
  sh env, RbConfig.ruby, File.expand_path("ext/online_manager/extconf.rb"), chdir: build, out: File::NULL
  sh env, "make", "--silent", chdir: build

  # A copy of all of it: `require_relative` goes by where a file really is.
  rm_rf "#{folder}/lib", verbose: false
  cp_r "lib", "#{folder}/lib", verbose: false
  cp "#{build}/#{extension}", "#{folder}/lib/online_manager/", verbose: false
end

FAULTS_FOLDER = "tmp/faults"

# Only for spec/fork_spec.rb, which asks for it. Cargo is asked each time here too, and builds one crate at the most.
desc "Build the extension whose timer thread can be told to fail, into #{FAULTS_FOLDER}/lib"
task "compile:faults" do
  build_extension_into(FAULTS_FOLDER, { "RB_SYS_EXTRA_CARGO_ARGS" => "--locked --features faults" })
end
