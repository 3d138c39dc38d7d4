# frozen_string_literal: true

require "fileutils"
require "rubygems/package"

module Native
  # The gem for one platform: the same library, with compiled extensions instead of their sources.
  class Package
    # The platforms of a release.
    PLATFORMS = %w[
      x86_64-linux aarch64-linux x86_64-linux-musl aarch64-linux-musl x86_64-darwin arm64-darwin
    ].freeze

    # Files that are only needed to compile.
    SOURCES = %r{\A(?:Cargo\.|ext/)}

    # @param spec [Gem::Specification] a native gem's specification, which is changed
    def self.without_sources(spec)
      spec.files = spec.files.grep_v(SOURCES)
      spec.extensions = []
      spec.dependencies.reject! { |dependency| dependency.name == "rb_sys" }
      spec.metadata.delete("cargo_crate_name")
    end

    # This machine's platform as gem names have it: Debian's newer RubyGems adds "-gnu".
    def self.platform(local = Gem::Platform.local)
      libc = local.version if local.os == "linux" && local.version != "gnu"
      Gem::Platform.new([local.cpu, local.os, libc].compact.join("-"))
    end

    # @param source [Gem::Specification] the source gem's specification
    # @param extensions [Hash{String => String}] paths by Ruby version
    def initialize(source, extensions)
      @source = source
      @extensions = extensions
    end

    # @return [Gem::Specification]
    def spec
      @spec ||= Gem::Specification.load(@source.loaded_from).dup.tap do |spec|
        self.class.without_sources(spec)
        spec.platform = self.class.platform
        spec.files += @extensions.keys.map { |version| place(version) }
        versions = @extensions.keys.map { |version| Gem::Version.new(version) }.sort
        spec.required_ruby_version = [">= #{versions.first}", "< #{versions.last.to_s.succ}.dev"]
      end
    end

    def file_name = "#{@source.name}-#{@source.version}-#{self.class.platform}.gem"

    # @param folder [String] the output folder, in which the gem is also assembled
    # @return [String] the path of the gem
    def build(folder)
      stage = File.expand_path("#{folder}/stage")
      FileUtils.rm_rf(stage)
      (spec.files - @extensions.keys.map { |version| place(version) }).each { |path| copy(path, "#{stage}/#{path}") }
      @extensions.each { |version, path| copy(path, "#{stage}/#{place(version)}") }
      path = File.expand_path(File.join(folder, file_name))
      Dir.chdir(stage) { Gem::Package.build(spec, false, true, path) }
      path
    end

    private

    def place(version) = "lib/online_manager/#{version}/#{FILE}"

    def copy(from, to)
      FileUtils.mkdir_p(File.dirname(to))
      FileUtils.cp(from, to, preserve: true)
    end
  end
end
