# frozen_string_literal: true

require "fileutils"
require "json"
require "open3"
require "tmpdir"

RSpec.describe "The gem" do
  root = File.expand_path("..", __dir__)

  describe "its file list" do
    subject(:files) { Gem::Specification.load("#{root}/online_manager.gemspec").files }

    it "holds every file of the library" do
      library = Dir["lib/**/*", base: root].select { |path| File.file?("#{root}/#{path}") }

      expect(files).to include(*library.grep_v(/\.(so|bundle)\z/))
    end

    it "holds what the crates are built from" do
      metadata, = Open3.capture2("cargo", "metadata", "--no-deps", "--locked", "--format-version", "1", chdir: root)
      crates = JSON.parse(metadata).fetch("packages")
      manifests = crates.map { |crate| crate.fetch("manifest_path").delete_prefix("#{root}/") }
      sources = manifests.flat_map { |path| Dir["#{File.dirname(path)}/{build.rs,src/**/*.rs}", base: root] }

      expect(files).to include("Cargo.toml", "Cargo.lock", "ext/online_manager/extconf.rb", *manifests, *sources)
    end

    it "holds nothing that is built, and no tests" do
      expect(files.grep(%r{\.(so|bundle)\z|/(target|tests|benches|proptest-regressions)/})).to be_empty
    end
  end

  # As from RubyGems, but compiled in our own target folder, where the dependencies are already, and without link-time
  # optimisation: it takes seconds.
  it "can be built, installed and used elsewhere", limit: 240 do
    target = ENV.fetch("CARGO_TARGET_DIR", "#{root}/target")
    gem_home = "#{root}/tmp/gem_home"
    package = "#{root}/tmp/online_manager.gem"
    FileUtils.rm_rf([gem_home, package])
    FileUtils.mkdir_p(gem_home)
    expect(command("gem", "build", "--strict", "--output", package, "online_manager.gemspec", limit: 60)).to be_success

    # Where rb_sys is, which `--local` will not fetch.
    env = { "GEM_HOME" => gem_home, "GEM_PATH" => [gem_home, *Gem.path].join(File::PATH_SEPARATOR) }
    build = {
      "ONLINE_MANAGER_SHARED_TARGET" => "1", # see extconf.rb
      "RB_SYS_CARGO_TARGET_DIR" => target,
      "RB_SYS_GLOBAL_RUSTFLAGS" => "",
      # Over what the Makefile says when RubyGems runs it: the profile is release, and its build folder is deleted.
      "MAKE" => "make RB_SYS_CARGO_PROFILE=dev CLEANOBJS="
    }
    install = command("gem", "install", "--local", "--no-document", package, env: env.merge(build), limit: 240)
    expect(install).to be_success, install.stdout + install.stderr

    Dir.mktmpdir do |elsewhere|
      script = <<~RUBY
        require "online_manager"

        config = Class.new do
          def timeout = 0.05
          def online(user_id) = puts("online \#{user_id}")

          def offline(user_id)
            puts "offline \#{user_id}"
            OnlineManager.current.stop if user_id == "seven"
          end

          def setup
            yield 7
            yield "seven"
          end
        end
        OnlineManager.run(config.new, reactor: :thread)
        puts $LOADED_FEATURES.grep(/online_manager/)
      RUBY
      process = ruby(script, lib: false, env:, chdir: elsewhere)
      expect(process).to be_success, process.stderr

      calls, loaded = process.lines.partition { |line| line.match?(/\A(on|off)line /) }

      expect(calls).to contain_exactly("online 7", "online seven", "offline 7", "offline seven")
      expect(loaded).to include(end_with("lib/online_manager.rb"), end_with("online_manager/online_manager.so"))
      expect(loaded).to all start_with("#{gem_home}/")
    end
  ensure
    # Cargo names a crate by its place in its workspace: what it built from this copy, it would take for the checkout's.
    FileUtils.rm_rf(Dir["#{target}/debug/.fingerprint/online_manager*"])
  end
end
