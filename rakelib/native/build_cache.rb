# frozen_string_literal: true

require "digest"
require "fileutils"
require "rbconfig"

module Native
  FILE = "online_manager.#{RbConfig::CONFIG["DLEXT"]}".freeze

  # Where the extensions are kept until a gem is made of them, one for each version of Ruby, with the digest of what it
  # was built from.
  class BuildCache
    SOURCES = ["Cargo.{toml,lock}", "ext/*/Cargo.toml", "ext/*/*.rb", "ext/*/src/**/*.{rs,lua}"].freeze

    # @param folder [String]
    # @param root [String] the checkout
    def initialize(folder, root: ".")
      @folder = folder
      @sources = digest(root)
    end

    # @param path [String] of an extension that has just been built
    # @param ruby [String] the version of Ruby that it was built for
    def store(path, ruby: RUBY_VERSION)
      place = "#{@folder}/#{ruby[/\A\d+\.\d+/]}"
      FileUtils.mkdir_p(place)
      FileUtils.cp(path, "#{place}/#{FILE}")
      File.write("#{place}/sources", @sources)
    end

    # Takes over what has been put on another shelf, elsewhere.
    #
    # @param folder [String]
    def import(folder)
      FileUtils.mkdir_p(@folder)
      Dir["#{folder}/*/sources"].each { |path| FileUtils.cp_r(File.dirname(path), @folder) }
    end

    # @return [Hash{String => String}] by the version of Ruby, the paths of the extensions that are built from the
    #   present sources
    def extensions
      present = versions.select { |version| File.read("#{@folder}/#{version}/sources") == @sources }
      present.to_h { |version| [version, "#{@folder}/#{version}/#{FILE}"] }
    end

    # @return [Array<String>] the versions of Ruby for which there is an older one
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
