# frozen_string_literal: true

require "digest"
require "fileutils"
require "rbconfig"

module Native
  FILE = "online_manager.#{RbConfig::CONFIG["DLEXT"]}".freeze

  # Keeps compiled extensions until a gem is made of them: one for each Ruby version, with the digest of its sources.
  class BuildCache
    SOURCES = [
      "Cargo.{toml,lock}", "ext/*/Cargo.toml", "ext/*/*.rb", "ext/*/src/**/*.{rs,lua}",
      "rakelib/native/{portable,linkage}.rb" # how they are linked
    ].freeze

    # @param folder [String]
    # @param root [String] the folder of the checkout
    def initialize(folder, root: ".")
      @folder = folder
      @sources = digest(root)
    end

    # @param path [String] the path of an extension that was just built
    # @param ruby [String] the Ruby version that it was built for
    def store(path, ruby: RUBY_VERSION)
      place = "#{@folder}/#{ruby[/\A\d+\.\d+/]}"
      FileUtils.mkdir_p(place)
      FileUtils.cp(path, "#{place}/#{FILE}")
      File.write("#{place}/sources", @sources)
    end

    # Copies the extensions of another cache into this one.
    #
    # @param folder [String] the other cache's folder
    def import(folder)
      FileUtils.mkdir_p(@folder)
      Dir["#{folder}/*/sources"].each { |path| FileUtils.cp_r(File.dirname(path), @folder) }
    end

    # @return [Hash{String => String}] paths by Ruby version, of the extensions that were built from the current sources
    def extensions
      present = versions.select { |version| File.read("#{@folder}/#{version}/sources") == @sources }
      present.to_h { |version| [version, "#{@folder}/#{version}/#{FILE}"] }
    end

    # @return [Array<String>] the Ruby versions whose extension was built from other sources
    def outdated = versions - extensions.keys

    private

    def versions
      Dir["*/sources", base: @folder].map { |path| File.dirname(path) }.sort_by { |name| Gem::Version.new(name) }
    end

    def digest(root)
      Dir[*SOURCES, base: root].sort.reduce(Digest::SHA256.new) do |sum, path|
        sum << path << "\0" << File.binread(File.join(root, path)) << "\0"
      end.hexdigest
    end
  end
end
