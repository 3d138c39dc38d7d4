# frozen_string_literal: true

require "rb_sys/extensiontask"
require_relative "native/package"

# Whether a release is built in one of rb-sys-dock's containers, which set this variable (docs/releasing.md).
CROSS = ENV.key?("RUBY_TARGET")

# The specs' extension is built with the same folder, profile, flags and environment as clippy and the cargo tests, so
# that no crate is compiled twice. `rake compile:release` builds what `gem install` would.
unless CROSS
  ENV["RB_SYS_CARGO_PROFILE"] ||= "dev"
  ENV["RB_SYS_GLOBAL_RUSTFLAGS"] ||= "" # without --cfg=rb_sys_gem, which only matters for linking libruby
  ENV["ONLINE_MANAGER_SHARED_TARGET"] ||= "1" # see extconf.rb
  # An unchanged file is not replaced: other processes may be about to load it.
  ENV["MAKE"] ||= "make INSTALL='install -C'"
end

# Without a gemspec: with one, `rake compile` would copy the whole gem.
gem_to_build = CROSS ? [Gem::Specification.load("online_manager.gemspec")] : []

RbSys::ExtensionTask.new("online_manager", *gem_to_build) do |extension|
  extension.lib_dir = "lib/online_manager"
  extension.cross_compile = CROSS
  extension.cross_platform = Native::Package::PLATFORMS & [ENV.fetch("RUBY_TARGET", nil)]
  extension.cross_compiling { |spec| Native::Package.without_sources(spec) }
  extension.extra_options = [] # else `rake --trace` would become `cargo rustc --trace`

  # Cargo runs each time. Make compares dates, and would keep a newer copy that another profile has built.
  task "compile:forget" do
    rm_f FileList["tmp/*/online_manager/*/online_manager.{so,bundle}"]
  end
  file extension.extconf => "compile:forget"
end

# Builds the extension with extconf.rb and make, as `gem install` does, and copies lib with it into the folder's lib.
# The extension that the specs load does not change.
def build_extension_into(folder, env)
  build = "#{folder}/build"
  env = { "RB_SYS_CARGO_TARGET_DIR" => ENV.fetch("CARGO_TARGET_DIR", File.expand_path("target")), **env }
  extension = "online_manager.#{RbConfig::CONFIG["DLEXT"]}"
  mkdir_p build, verbose: false
  rm_f "#{build}/#{extension}", verbose: false
  sh env, RbConfig.ruby, File.expand_path("ext/online_manager/extconf.rb"), chdir: build, out: File::NULL
  sh env, "make", "--silent", chdir: build

  # Copies all of lib: `require_relative` resolves real paths.
  rm_rf "#{folder}/lib", verbose: false
  cp_r "lib", "#{folder}/lib", verbose: false
  cp "#{build}/#{extension}", "#{folder}/lib/online_manager/", verbose: false
end

FAULTS_FOLDER = "tmp/faults"

# Only the specs with "a faulty extension" need it, and invoke it. Cargo runs each time here too, and builds at most one
# crate.
desc "Build the extension that can be made to fail, into #{FAULTS_FOLDER}/lib"
task "compile:faults" do
  build_extension_into(FAULTS_FOLDER, { "RB_SYS_EXTRA_CARGO_ARGS" => "--locked --features faults" })
end
