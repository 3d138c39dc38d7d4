# frozen_string_literal: true

require "fileutils"
require "json"
require "open3"
require "tmpdir"

RSpec.describe "The gem" do
  root = File.expand_path("..", __dir__)

  describe "its file list" do
    subject(:files) { Gem::Specification.load("#{root}/online_manager.gemspec").files }

    it "includes every file of the library" do
      library = Dir["lib/**/*", base: root].select { |path| File.file?("#{root}/#{path}") }

      expect(files).to include(*library.grep_v(/\.(so|bundle)\z/))
    end

    it "includes the sources of the crates" do
      metadata, = Open3.capture2("cargo", "metadata", "--no-deps", "--locked", "--format-version", "1", chdir: root)
      crates = JSON.parse(metadata).fetch("packages")
      manifests = crates.map { |crate| crate.fetch("manifest_path").delete_prefix("#{root}/") }
      sources = manifests.flat_map { |path| Dir["#{File.dirname(path)}/{build.rs,src/**/*.rs}", base: root] }

      expect(files).to include("Cargo.toml", "Cargo.lock", "ext/online_manager/extconf.rb", *manifests, *sources)
    end

    it "includes no build output and no tests" do
      expect(files.grep(%r{\.(so|bundle)\z|/(target|tests|benches|proptest-regressions)/})).to be_empty
    end
  end

  context "when it is installed" do
    extension = "online_manager.#{RbConfig::CONFIG["DLEXT"]}"
    home = nil
    package = nil

    before(:context) do
      home = GemHome.new
      package = home.build
    end

    after(:context) { home.remove }

    # Shares cargo's build folder with the checkout, which has the dependencies, and skips link-time optimisation: it
    # takes seconds. (Cargo before 1.91 has no such setting. There it takes minutes.)
    it "leaves no sources behind and works", limit: 900 do
      folder = ENV.fetch("CARGO_TARGET_DIR", "#{root}/target")
      process = home.install(
        package,
        limit: 840,
        CARGO_BUILD_BUILD_DIR: folder,
        CARGO_TARGET_DIR: nil,
        ONLINE_MANAGER_SHARED_TARGET: "1", # see extconf.rb
        RB_SYS_GLOBAL_RUSTFLAGS: "",
        # Overrides the Makefile's profile, which is release under RubyGems. Unsets the build time that RubyGems sets,
        # for which cargo would rebuild all C code.
        MAKE: "env --unset=SOURCE_DATE_EPOCH make RB_SYS_CARGO_PROFILE=dev"
      )
      expect(process).to be_success, process.stdout + process.stderr

      files = Gem::Specification.load("#{root}/online_manager.gemspec").files
      expect(home.installed - files)
        .to contain_exactly("ext/online_manager/Makefile", "lib/online_manager/#{extension}")

      said, loaded = home.run_example.lines.partition { |line| line.match?(/ is o(n|ff)line\z/) }
      expect(said).to eq ["ann is online", "ann is offline"]
      expect(loaded).to include(end_with("lib/online_manager.rb"), end_with("online_manager/#{extension}"))
      expect(loaded).to all start_with("#{home.folder}/")
    ensure
      # Cargo identifies a crate by its path in the workspace: it would take a build of this copy for the checkout's.
      FileUtils.rm_rf(Dir["#{folder}/debug/.fingerprint/online_manager*"])
    end

    describe "without what it is compiled with" do
      def expect_it_not_to_be_built(process)
        expect(process).not_to be_success
        expect(process.stdout + process.stderr).not_to match(/^(generating|make|cargo)\b/)
      end

      it "explains how to install Rust where cargo is missing" do
        process = home.install(package, PATH: home.path_without("cargo"))

        expect(process.stderr).to include("cargo did not run", "https://rustup.rs", "apt install rustup")
        expect_it_not_to_be_built(process)
      end

      it "names the required version where cargo is too old" do
        path = home.path_without("cargo")
        File.write("#{path}/cargo", "#!/bin/sh\necho 'cargo 1.63.0 (fd9c4297c 2022-07-01)'\n")
        File.chmod(0o755, "#{path}/cargo")
        process = home.install(package, PATH: path)

        wanted = File.read("#{root}/Cargo.toml")[/^rust-version = "(.+)"/, 1]
        expect(process.stderr).to include("Rust #{wanted} or newer, and cargo is 1.63.0")
        expect_it_not_to_be_built(process)
      end

      it "explains how to install libclang where it is missing" do
        process = home.install(package, LIBCLANG_PATH: "/nowhere")

        expect(process.stderr).to include("LIBCLANG_PATH (/nowhere)", "apt install libclang-dev")
        expect_it_not_to_be_built(process)
      end
    end

    it "is built with the versions in Cargo.lock and not without the file", limit: 60 do
      Dir.mktmpdir do |folder|
        expect(command("gem", "unpack", package, "--target", folder)).to be_success
        FileUtils.rm(Dir["#{folder}/*/Cargo.lock"].fetch(0))
        crate = Dir["#{folder}/*/ext/online_manager"].first
        process = command("sh", "-c", "#{RbConfig.ruby} extconf.rb && make", chdir: crate)

        expect(process).not_to be_success
        expect(process.stderr).to include("--locked")
      end
    end
  end
end
