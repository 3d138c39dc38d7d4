# frozen_string_literal: true

require "fileutils"
require "tmpdir"
require_relative "rails_bundle"

# A Rails application as `rails new` makes it, in a temporary folder, with a model User that is not migrated yet.
#
# `rails new` takes a quarter of a second, and every other command nearly one, so a template is made once and copied.
class FreshApp
  # The parts of Rails that the specs do not need, most of which are not packaged by Debian.
  WITHOUT = %w[
    action-mailbox action-mailer action-text active-job active-storage bootsnap bundle git javascript listen spring
    asset-pipeline ci sprockets test webpack-install
  ].map { |part| "--skip-#{part}" }.freeze

  # The gem `rails` itself is not packaged either.
  GEMFILE = <<~RUBY.freeze
    source "https://rubygems.org"

    gem "actioncable"
    gem "activerecord"
    gem "online_manager", path: #{RubyProcess::ROOT.inspect}
    gem "puma"
    gem "railties"
    gem "sqlite3"
  RUBY
  private_constant :WITHOUT, :GEMFILE

  ENVIRONMENT = { "RAILS_ENV" => "development", "DATABASE_URL" => nil, "PORT" => "0", **RailsBundle::OVERRIDE }.freeze

  # Seconds for a Ruby process that starts Rails on a busy machine.
  LIMIT = 60

  # Files that a server or the migrations write.
  VARYING = %r{\A(?:log|tmp)/|\.sqlite3|\Adb/schema\.rb\z}
  private_constant :ENVIRONMENT, :VARYING

  include RubyProcess::Helper

  # @return [String]
  attr_reader :folder

  # @param source [FreshApp, nil] the application to copy
  def initialize(source = nil)
    @folder = Dir.mktmpdir("online_manager-fresh")
    source ? FileUtils.cp_r("#{source.folder}/.", folder) : generate
  end

  def remove = FileUtils.rm_rf(folder)

  # @return [RubyProcess] a Rails command that has succeeded
  def rails(*args) = run("bin/rails", *args)

  # @return [RubyProcess] a Rails command that has ended, with any status
  def try(*args) = command("bin/rails", *args, chdir: folder, env: ENVIRONMENT, limit: LIMIT)

  # Starts its server in development, and yields when the server listens.
  #
  # @yieldparam url [String]
  # @return [RubyProcess] the server, which has received SIGINT
  def serve
    command("bin/rails", "server", "--binding", "127.0.0.1", chdir: folder, env: ENVIRONMENT) do |server|
      yield server.wait_for(%r{Listening on (http://\S+)}, limit: LIMIT)[1]
      server.signal(:INT)
    end
  end

  # @return [Array<String>] the rows as the program `sqlite3` prints them
  def sql(query)
    # Rails 7.2 renamed the database's folder.
    database = %w[db storage].map { |place| "#{place}/development.sqlite3" }.find { |path| exist?(path) }
    run("sqlite3", "-cmd", ".timeout 5000", database, query).lines
  end

  # @return [String, nil]
  def read(path) = (File.read(File.join(folder, path)) if exist?(path))

  def exist?(path) = File.exist?(File.join(folder, path))

  def remove_folder(path) = FileUtils.rm_rf(File.join(folder, path))

  def write(path, text)
    path = File.join(folder, path)
    FileUtils.mkdir_p(File.dirname(path))
    File.write(path, text)
  end

  # @return [Hash{String => String}] the contents of all files that a repository would have
  def files
    paths = Dir.glob("**/*", File::FNM_DOTMATCH, base: folder).select { |path| File.file?(File.join(folder, path)) }
    paths.grep_v(VARYING).to_h { |path| [path, read(path)] }
  end

  private

  def generate
    run(*RailsBundle::RAILS, "new", ".", "--quiet", *WITHOUT)
    write("Gemfile", GEMFILE)
    rails("generate", "model", "User", "name")
  end

  def run(*argv)
    command(*argv, chdir: folder, env: ENVIRONMENT, limit: LIMIT).tap do |process|
      raise "#{argv.join(" ")} has failed:\n#{process.stdout}\n#{process.stderr}" unless process.success?
    end
  end
end
