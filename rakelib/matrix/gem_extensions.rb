# frozen_string_literal: true

require "fileutils"
require "rubygems/ext"
require "tmpdir"

# Builds, for the Ruby that runs this, the gems whose Debian packages have extensions for another Ruby only. Each of
# Debian's Rubies finds all other gems.
class GemExtensions
  # The folders of Debian's gems with extensions, one for each version of Ruby.
  INTEGRATION = Gem.default_path.map { |path| File.dirname(path) }
                   .find { |path| path.match?(%r{\A/usr/lib/.+/rubygems-integration\z}) }
  FOLDER = File.join(INTEGRATION, RbConfig::CONFIG.fetch("ruby_version"))
  # Nokogiri would build libraries that Debian has.
  SETTINGS = { "NOKOGIRI_USE_SYSTEM_LIBRARIES" => "1" }.freeze

  # @param sources [String] a folder with sources of gems that the mirrors lack, such as `puma-8.0.2`
  def initialize(sources)
    @sources = sources
  end

  # @return [Array<String>] the gems that have no source
  def build_all
    ENV.update(SETTINGS)
    missing.reject { |path| build(path) || default?(path) }.map { |path| name_of(path) }
  end

  private

  # @return [Array<String>] the specifications of other Rubies
  def missing
    present = Dir["#{FOLDER}/specifications/*.gemspec"].map { |path| name_of(path) }
    Dir["#{INTEGRATION}/*/specifications/*.gemspec"].reject { |path| present.include?(name_of(path)) }
  end

  def name_of(path) = Gem::Specification.load(path).name

  # Whether this Ruby comes with the gem.
  def default?(path) = Gem::Specification.find_all_by_name(name_of(path)).any?(&:default_gem?)

  # @return [Boolean] whether there is a source
  def build(path)
    spec = Gem::Specification.load(path).dup
    with_source(spec, path) do |source|
      folder = "#{FOLDER}/gems/#{spec.full_name}"
      FileUtils.rm_rf(folder)
      FileUtils.mkdir_p([File.dirname(folder), "#{FOLDER}/specifications"])
      FileUtils.cp_r(source, folder)
      compile(spec)
    end
  end

  # The specification is written last: with it, the gem counts as built.
  def compile(spec)
    target = "#{FOLDER}/specifications/#{spec.full_name}.gemspec"
    spec.loaded_from = target
    spec.base_dir = FOLDER
    Gem::Ext::Builder.new(spec).build_extensions
    File.write(target, spec.to_ruby)
  end

  # @yieldparam source [String] a folder
  # @return [Boolean]
  def with_source(spec, path)
    if (own = Dir["#{@sources}/#{spec.name}-[0-9]*/"].first)
      spec.version = File.basename(own).delete_prefix("#{spec.name}-")
      yield own
      return true
    end

    Dir.mktmpdir do |folder|
      # As root: apt's own user could not enter the folder.
      system("apt-get", "source", "--quiet", "--option", "APT::Sandbox::User=root", package(path), chdir: folder)
      source = Dir["#{folder}/*/"].first and yield source
      !source.nil?
    end
  end

  def package(path) = IO.popen(["dpkg-query", "--search", path], &:read)[/\A[^:]+/]
end

unbuilt = GemExtensions.new(*ARGV).build_all
unless unbuilt.empty?
  abort "The mirrors have no source of #{unbuilt.join(", ")}: put it into the folder that MATRIX_SOURCES names."
end
