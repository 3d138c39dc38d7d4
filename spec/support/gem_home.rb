# frozen_string_literal: true

require "fileutils"
require "tmpdir"
require_relative "ruby_process"

# An empty GEM_HOME of its own, which a gem is installed into as it is from RubyGems.
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
  # @return [RubyProcess] however it has ended
  def install(package, limit: 60, **env)
    command("gem", "install", "--local", "--no-document", package, env: environment(env), limit:)
  end

  # @return [Array<String>] the files of the gem that is installed, from its folder on
  def installed
    folder, *others = Dir["#{@folder}/gems/*"]
    return [] unless folder && others.empty?

    Dir.glob("**/*", File::FNM_DOTMATCH, base: folder).select { |path| File.file?(File.join(folder, path)) }
  end

  # Runs the README's first example with the gem that is installed, until one user has come and gone.
  #
  # @param env [Hash{Symbol => String}]
  # @return [RubyProcess] which has printed that, and then what it has loaded
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

  # A folder for PATH: what is in it now, but for some commands.
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

  # With our own gems, since rb_sys is one, and `--local` fetches none.
  def environment(env)
    path = [@folder, *Gem.path].join(File::PATH_SEPARATOR)
    { "GEM_HOME" => @folder, "GEM_PATH" => path, **env.transform_keys(&:to_s) }
  end
end
