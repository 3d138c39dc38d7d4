# frozen_string_literal: true

require "fileutils"
require "tmpdir"
require_relative "ruby_process"

# A temporary GEM_HOME, into which a gem is installed as from RubyGems.
class GemHome
  ROOT = RubyProcess::ROOT

  include RubyProcess::Helper

  # @return [String]
  attr_reader :folder

  def initialize
    @folder = Dir.mktmpdir("online_manager-gems")
  end

  def remove = FileUtils.rm_rf(@folder)

  # Builds the source gem.
  #
  # @return [String] its path
  def build
    package = "#{@folder}/online_manager.gem"
    process = command("gem", "build", "--strict", "--output", package, "online_manager.gemspec", limit: 60)
    raise "the gem cannot be built:\n#{process.stdout}#{process.stderr}" unless process.success?

    package
  end

  # @param package [String] a path
  # @param env [Hash{Symbol => String}]
  # @return [RubyProcess] the installation, which has ended
  def install(package, limit: 60, **env)
    command("gem", "install", "--local", "--no-document", package, env: environment(env), limit:)
  end

  # @return [Array<String>] the files of the installed gem, relative to its folder
  def installed
    folder, *others = Dir["#{@folder}/gems/*"]
    return [] unless folder && others.empty?

    Dir.glob("**/*", File::FNM_DOTMATCH, base: folder).select { |path| File.file?(File.join(folder, path)) }
  end

  # Runs the README's first example with the installed gem, until one user has come online and gone offline.
  #
  # @param env [Hash{Symbol => String}]
  # @return [RubyProcess] whose output is the example's, and then the files that it has loaded
  def run_example(**env)
    example = File.read("#{ROOT}/README.md")[/^<!-- snippet: usage -->\n```ruby\n(.*?)^```/m, 1]
    script = <<~RUBY
      known = $LOADED_FEATURES.dup
      at_exit { puts ($LOADED_FEATURES - known).grep(/online_manager/) }
      heartbeats = Thread::Queue.new(["ann"])
      define_method(:next_heartbeat) { heartbeats.pop }

      #{example}
    RUBY
    ruby(script, lib: false, env: environment(env), chdir: @folder) do |process|
      process.wait_for("ann is offline")
      process.signal(:INT)
    end
  end

  # Makes a folder for PATH: with the commands of the current PATH, except some.
  #
  # @param names [Array<String>]
  # @return [String]
  def path_without(*names)
    folder = Dir.mktmpdir("path", @folder)
    ENV.fetch("PATH").split(File::PATH_SEPARATOR).reverse.each do |path|
      Dir["#{path}/*"].each { |command| FileUtils.ln_sf(command, folder) }
    end
    FileUtils.rm_f(names.flat_map { |name| Dir["#{folder}/#{name}"] })
    folder
  end

  private

  # Includes our own gems, since rb_sys is one of them, and `--local` downloads none.
  def environment(env)
    path = [@folder, *Gem.path].join(File::PATH_SEPARATOR)
    { "GEM_HOME" => @folder, "GEM_PATH" => path, **env.transform_keys(&:to_s) }
  end
end
