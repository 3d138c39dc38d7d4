# frozen_string_literal: true

require "fileutils"
require "tmpdir"

# A Rails application as `rails new` makes it, in a folder of its own, with a model User that is not migrated yet.
#
# `rails new` takes a quarter of a second, and every other command nearly one: so there is a template, which is copied.
class FreshApp
  # What else there is in Rails has to do with nothing here, and most of it is in no package of Debian's.
  WITHOUT = %w[
    action-mailbox action-mailer action-text active-job active-storage bootsnap bundle git javascript listen spring
    asset-pipeline sprockets test webpack-install
  ].map { |part| "--skip-#{part}" }.freeze

  # The gem `rails` itself is in no package either.
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

  ENVIRONMENT = { "RAILS_ENV" => "development", "DATABASE_URL" => nil, "PORT" => "0" }.freeze

  # Seconds for a Ruby on a busy machine that starts Rails.
  LIMIT = 60

  # What a server and the migrations write.
  VARYING = %r{\A(?:log|tmp)/|\.sqlite3|\Adb/schema\.rb\z}
  private_constant :ENVIRONMENT, :VARYING

  include RubyProcess::Helper

  # @return [String]
  attr_reader :folder

  # @param source [FreshApp, nil] which it is a copy of
  def initialize(source = nil)
    @folder = Dir.mktmpdir("online_manager-fresh")
    source ? FileUtils.cp_r("#{source.folder}/.", folder) : generate
  end

  def remove = FileUtils.rm_rf(folder)

  # @return [RubyProcess] of a command of Rails that has succeeded
  def rails(*args) = run("bin/rails", *args)

  # @return [RubyProcess] of a command of Rails, however it has ended
  def try(*args) = command("bin/rails", *args, chdir: folder, env: ENVIRONMENT, limit: LIMIT)

  # Yields its server, in development, once that listens.
  #
  # @yieldparam url [String]
  # @return [RubyProcess] which has been told to end
  def serve
    command("bin/rails", "server", "--binding", "127.0.0.1", chdir: folder, env: ENVIRONMENT) do |server|
      yield server.wait_for(%r{Listening on (http://\S+)}, limit: LIMIT)[1]
      server.signal(:INT)
    end
  end

  # @return [Array<String>] the rows, as the program `sqlite3` prints them
  def sql(query)
    # Its folder has another name since Rails 7.2.
    database = %w[db storage].map { |place| "#{place}/development.sqlite3" }.find { |path| exist?(path) }
    run("sqlite3", "-cmd", ".timeout 5000", database, query).lines
  end

  # @return [String, nil]
  def read(path) = (File.read(File.join(folder, path)) if exist?(path))

  def exist?(path) = File.exist?(File.join(folder, path))

  def write(path, text)
    path = File.join(folder, path)
    FileUtils.mkdir_p(File.dirname(path))
    File.write(path, text)
  end

  # @return [Hash{String => String}] all that a repository would hold, and what is in it
  def files
    paths = Dir.glob("**/*", File::FNM_DOTMATCH, base: folder).select { |path| File.file?(File.join(folder, path)) }
    paths.grep_v(VARYING).to_h { |path| [path, read(path)] }
  end

  private

  def generate
    run("rails", "new", ".", "--quiet", *WITHOUT)
    write("Gemfile", GEMFILE)
    rails("generate", "model", "User", "name")
  end

  def run(*argv)
    command(*argv, chdir: folder, env: ENVIRONMENT, limit: LIMIT).tap do |process|
      raise "#{argv.join(" ")} has failed:\n#{process.stdout}\n#{process.stderr}" unless process.success?
    end
  end
end
