# frozen_string_literal: true

require "yaml"
require_relative "../rakelib/native/package"
require_relative "../rakelib/native/build_cache"

# The precompiled gem, and how it finds the extension for the running Ruby.
RSpec.describe "The precompiled gem" do
  root = File.expand_path("..", __dir__)
  ruby = RUBY_VERSION[/\A\d+\.\d+/]
  extension = "online_manager.#{RbConfig::CONFIG["DLEXT"]}"

  context "when it is installed" do
    # The commands that compile or download.
    compilers = %w[cargo* rustc* rustup* clang* llvm* cc gcc* c++ g++* c89* c99* *-gcc* make gmake ld* curl]
    home = nil

    before(:context) { home = GemHome.new }

    after(:context) { home.remove }

    it "works without a compiler and other gems", limit: 300 do
      process = command("bundle", "exec", "rake", "gem:native", env: { "PROFILE" => "dev" }, limit: 240)
      expect(process).to be_success, process.stdout + process.stderr
      package = process.lines.grep(/\A\S+-\S+\.gem\z/).first
      expect(process.lines).to include(match(/\A  Ruby #{ruby}\b/))

      path = home.path_without(*compilers)
      process = home.install(package, PATH: path, GEM_PATH: home.folder)
      expect(process).to be_success, process.stderr
      expect(home.installed.grep(/\.rs\z|Cargo|\Aext|\.rake/)).to be_empty

      said, loaded = home.run_example(PATH: path, GEM_PATH: home.folder).lines
                         .partition { |line| line.match?(/ is o(n|ff)line\z/) }
      expect(said).to eq ["ann is online", "ann is offline"]
      expect(loaded).to include(end_with("lib/online_manager/#{ruby}/#{extension}"))
      expect(loaded).to all start_with("#{home.folder}/")
    end
  end

  describe "its specification" do
    subject(:spec) { Native::Package.new(source, "3.1" => "a", "3.3" => "b").spec }

    let(:source) { Gem::Specification.load("#{root}/online_manager.gemspec") }

    it "allows exactly the Ruby versions that it has an extension for" do
      admitted = %w[3.0.9 3.1.0 3.3.9 3.4.0.dev 3.4.0].select do |version|
        spec.required_ruby_version.satisfied_by?(Gem::Version.new(version))
      end

      expect(admitted).to eq %w[3.1.0 3.3.9]
    end

    it "differs from the source gem's only in the compiled parts" do
      added = %w[3.1 3.3].map { |version| "lib/online_manager/#{version}/#{extension}" }

      expect(spec.files).to match_array(source.files.grep_v(%r{\A(ext/|Cargo)}) + added)
      expect(spec).to have_attributes(extensions: [], dependencies: [], version: source.version, name: source.name)
      expect(source.dependencies.map(&:name)).to eq ["rb_sys"]
    end

    {
      "x86_64-linux" => "x86_64-linux",
      "x86_64-linux-gnu" => "x86_64-linux",
      "aarch64-linux-musl" => "aarch64-linux-musl",
      "arm64-darwin23" => "arm64-darwin"
    }.each do |local, platform|
      it "is for #{platform} when it is built on #{local}" do
        expect(Native::Package.platform(Gem::Platform.new(local)).to_s).to eq platform
      end
    end
  end

  it "is built for each platform by the release workflow" do
    jobs = YAML.safe_load_file("#{root}/.github/workflows/release.yml").fetch("jobs")

    expect(jobs.dig("native", "strategy", "matrix", "platform")).to eq Native::Package::PLATFORMS
  end

  it "is made of extensions that were built from the current sources" do
    Dir.mktmpdir do |folder|
      FileUtils.mkdir_p("#{folder}/ext/store/src")
      File.write("#{folder}/Cargo.toml", "")
      File.write("#{folder}/#{extension}", "an extension")
      build_cache = -> { Native::BuildCache.new("#{folder}/build_cache", root: folder) }

      build_cache.call.store("#{folder}/#{extension}", ruby: "3.1.2")
      File.write("#{folder}/ext/store/src/lib.rs", "// changed")
      build_cache.call.store("#{folder}/#{extension}", ruby: "3.10.0")

      expect(build_cache.call.extensions).to eq("3.10" => "#{folder}/build_cache/3.10/#{extension}")
      expect(build_cache.call.outdated).to eq ["3.1"]
    end
  end

  describe "its extension" do
    around { |example| Dir.mktmpdir { |folder| example.run if (@folder = folder) } }

    def put(*places)
      places.each do |place|
        FileUtils.mkdir_p("#{@folder}/#{place}")
        FileUtils.touch("#{@folder}/#{place}/online_manager.#{RbConfig::CONFIG["DLEXT"]}")
      end
    end

    def path = OnlineManager::Extension.path(@folder, ruby: "3.2.1")

    it "is the extension for the running Ruby rather than one for any Ruby" do
      put("3.1", "3.2", ".")

      expect(path).to eq "#{@folder}/3.2/#{extension}"
    end

    it "is the extension that was compiled at installation if there is no other" do
      put("3.1", ".")

      expect(path).to eq "#{@folder}/#{extension}"
    end

    it "raises an error when missing that names the Ruby version, the available ones and what to do" do
      put("3.10", "3.9")

      expect { path }.to raise_error(LoadError, /Ruby 3\.2, only for 3\.9 and 3\.10: .*--platform ruby/)
    end

    it "raises an error when missing in a checkout that says how to compile it" do
      expect { path }.to raise_error(LoadError, /Ruby 3\.2.*rake compile/)
    end
  end
end
