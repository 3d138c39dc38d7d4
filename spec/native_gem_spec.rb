# frozen_string_literal: true

require "yaml"
require_relative "../rakelib/native/package"
require_relative "../rakelib/native/build_cache"
require_relative "../rakelib/native/portable"

# The precompiled gem, and how it finds the extension for the running Ruby.
RSpec.describe "The precompiled gem" do
  root = File.expand_path("..", __dir__)
  ruby = RUBY_VERSION[/\A\d+\.\d+/]
  extension = "online_manager.#{RbConfig::CONFIG["DLEXT"]}"

  # `rake soak` builds it like a release, which takes minutes. Otherwise it is linked as this machine links.
  profile = ENV.fetch("NATIVE_PROFILE", "dev")
  build_limit = profile == "dev" ? 240 : 1_800

  context "when it is installed" do
    # The commands that compile or download.
    compilers = %w[cargo* rustc* rustup* clang* llvm* cc gcc* c++ g++* c89* c99* *-gcc* make gmake ld* curl]
    home = nil
    built = nil
    env = nil

    before(:context) do
      home = GemHome.new
      built = command("bundle", "exec", "rake", "gem:native", env: { "PROFILE" => profile }, limit: build_limit)
      raise "the gem cannot be built:\n#{built.stdout}#{built.stderr}" unless built.success?

      env = { PATH: home.path_without(*compilers), GEM_PATH: home.folder }
      installation = home.install(package(built), **env)
      raise "the gem cannot be installed:\n#{installation.stderr}" unless installation.success?
    end

    after(:context) { home.remove }

    def package(built) = built.lines.grep(/\A\S+-\S+\.gem\z/).first

    it "works without a compiler and other gems" do
      expect(built.lines).to include(match(/\A  Ruby #{ruby}\b/))
      expect(home.installed.grep(/\.rs\z|Cargo|\Aext|\.rake/)).to be_empty

      said, loaded = home.run_example(**env).lines.partition { |line| line.match?(/ is o(n|ff)line\z/) }
      expect(said).to eq ["ann is online", "ann is offline"]
      expect(loaded).to include(end_with("lib/online_manager/#{ruby}/#{extension}"))
      expect(loaded).to all start_with("#{home.folder}/")
    end

    # Ruby's version as this gem and RubyGems read it.
    def fake(version)
      File.write("#{@folder}/fake_ruby.rb", <<~RUBY)
        Object.send(:remove_const, :RUBY_VERSION)
        RUBY_VERSION = "#{version}"
        Gem.instance_variable_set(:@ruby_version, Gem::Version.new(RUBY_VERSION))
      RUBY
      "-r#{@folder}/fake_ruby.rb"
    end

    around { |example| Dir.mktmpdir { |folder| example.run if (@folder = folder) } }

    %w[3.0.7 9.0.0].each do |version|
      it "is not installed for Ruby #{version}, and says for which it is" do
        process = home.install(package(built), **env, RUBYOPT: fake(version))

        expect(process).not_to be_success
        expect(process.stderr).to match(/requires Ruby version >= 3\.\d+, < 3\.\d+\.dev.*is #{version}/)
      end

      it "raises an error in Ruby #{version} that names the Rubies that it is for, and says what to do" do
        environment = { "GEM_HOME" => home.folder, "GEM_PATH" => home.folder }
        process = command(RbConfig.ruby, fake(version), "-e", "require 'online_manager'", env: environment)

        held = built.stdout.scan(/^  Ruby (\S+?),?(?: |$)/).flatten
        expect(process).not_to be_success
        expect(process.stderr).to include("has no compiled extension for Ruby #{version[/\A\d+\.\d+/]}, only for ")
        expect(process.stderr).to include(*held, "gem install online_manager --platform ruby")
      end
    end

    if Native::Portable.target
      it "is checked as the release workflow does: one that is linked as Debian links needs Debian's glibc" do
        process = command("bundle", "exec", "rake", "gem:native:check[#{package(built)}]")

        says = profile == "release" ? /\A\d extensions? load/ : /would not load everywhere:\n +needs GLIBC_2/
        expect([process.success?, process.stdout + process.stderr]).to match [profile == "release", says]
      end
    end

    if profile == "release" && Native::Portable.target
      it "needs nothing but Ruby and the glibc of 2012" do
        paths = Dir["#{home.folder}/gems/*/lib/online_manager/*/#{extension}"]

        expect(paths).not_to be_empty
        expect(paths.map { |path| Native::Linkage.new(path).findings }).to all be_empty
        expect(built.lines.grep(/\A  Ruby/)).to all end_with("glibc #{Native::Linkage::GLIBC} or newer")
      end
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

    def path(ruby = "3.2.1") = OnlineManager::Extension.path(@folder, ruby:)

    it "is the extension for the running Ruby rather than one for any Ruby" do
      put("3.1", "3.2", ".")

      expect(path).to eq "#{@folder}/3.2/#{extension}"
    end

    it "is the extension that was compiled at installation if there is no other" do
      put("3.1", ".")

      expect(path).to eq "#{@folder}/#{extension}"
    end

    it "raises an error when missing that names the Ruby version, the available ones and what to do" do
      put("3.10", "3.4", "3.9")

      expect { path }.to raise_error(LoadError, /Ruby 3\.2, only for 3\.4, 3\.9 and 3\.10: .*--platform ruby/)
    end

    it "raises an error when missing that names the only available one" do
      put("3.4")

      expect { path("4.0.1") }.to raise_error(LoadError, /Ruby 4\.0, only for 3\.4: .*--platform ruby/)
    end

    it "raises an error when missing in a checkout that says how to compile it" do
      expect { path }.to raise_error(LoadError, /Ruby 3\.2.*rake compile/)
    end
  end
end
