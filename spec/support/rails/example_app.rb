# frozen_string_literal: true

require "fileutils"
require "json"
require "tmpdir"
require "time"
require_relative "example_server"
require_relative "rails_bundle"

# A copy of examples/rails in a folder of its own, with an empty database.
#
#   app = ExampleApp.new(timeout: 2)
#   server = app.boot(workers: 2)
#   ann = server.visitor("ann")
#   ann.heartbeat
#   eventually { expect(app.online).to eq ["ann"] }
#   app.remove
#
# Queries its database with the program `sqlite3`, and reads the transitions from its log.
class ExampleApp
  SOURCE = File.join(RubyProcess::ROOT, "examples/rails")
  # Seconds for a Ruby process that starts Rails on a busy machine, perhaps several times.
  LIMIT = 60
  # A log line of a transition.
  TRANSITION = /\A\w,\ \[(?<at>\S+)\ \#(?<pid>\d+)\].*
                \ (?<name>online|offline)\.online_manager\ id=(?<id>\d+)\ reason=(?<reason>\w+)/x
  # The last line of each answer of sqlite3.
  ANSWERED = "-- answered"
  private_constant :TRANSITION, :ANSWERED

  # One log line: its time, the pid of the process, :online or :offline, the user's name, and the reason.
  Transition = Struct.new(:at, :process, :kind, :user, :reason, keyword_init: true)

  # The application that is copied, made once: migrated, and with no data.
  module Template
    class << self
      # @return [String] a folder
      def folder = @folder ||= make

      def remove
        FileUtils.rm_rf(@folder) if @folder
      end

      private

      def make
        folder = Dir.mktmpdir("online_manager-example")
        FileUtils.cp_r("#{SOURCE}/.", folder)
        # Files that a developer who tried the example has left there.
        FileUtils.rm_rf(%w[Gemfile.lock .bundle log tmp].map { |name| File.join(folder, name) })
        FileUtils.rm_f(Dir["#{folder}/storage/*"])
        migrate(folder)
        FileUtils.rm_rf("#{folder}/log")
        folder
      end

      def migrate(folder)
        process = RubyProcess.new("bin/rails", "db:migrate", chdir: folder, env: ExampleApp.env)
        process.finish(limit: LIMIT)
        raise "the example cannot be migrated:\n#{process.stdout}#{process.stderr}" unless process.success?

        copy_database(folder)
      ensure
        process&.kill
      end

      def copy_database(folder)
        migrated = "#{folder}/storage/production.sqlite3"
        # New rows may still be in the write-ahead log beside the file.
        system("sqlite3", migrated, "PRAGMA wal_checkpoint(TRUNCATE)", out: File::NULL, exception: true)
        FileUtils.cp(migrated, "#{folder}/storage/development.sqlite3")
      end
    end
  end

  # @param env [Hash{String => String, nil}] additions to our own environment without Bundler's variables
  # @return [Hash{String => String}]
  def self.env(env = {})
    clean = defined?(Bundler) ? Bundler.unbundled_env : ENV.to_h
    clean.merge("LC_ALL" => "C.UTF-8", "RAILS_ENV" => "production", "SECRET_KEY_BASE" => "0" * 64,
                "ONLINE_MANAGER_PATH" => RubyProcess::ROOT, **RailsBundle::OVERRIDE, **env).compact
  end

  attr_reader :folder, :environment, :timeout

  # @param environment [String] Rails' environment
  # @param timeout [Numeric] seconds after which a user is offline
  # @param store [String, nil] "memory", or a store URL; nil is the default, the file in its folder
  # @param env [Hash{String => String}]
  def initialize(environment: "production", timeout: 2, store: nil, env: {})
    @environment = environment
    @timeout = timeout
    @env = { "RAILS_ENV" => environment, "PRESENCE_TIMEOUT" => timeout.to_s, "PRESENCE_STORE" => store, **env }
    @folder = Dir.mktmpdir("online_manager-example")
    FileUtils.cp_r("#{Template.folder}/.", @folder)
    @servers = []
    @mutex = Mutex.new
  end

  # Starts it in Puma.
  #
  # @param workers [Integer] 0 for a single process
  # @param preload [Boolean] whether the workers are forked from a process that has loaded the application
  # @return [ExampleServer] a server that accepts requests
  def boot(workers: 0, preload: true, env: {})
    env = { "WEB_CONCURRENCY" => workers.to_s, "PRELOAD_APP" => preload.to_s, **env }
    @servers << ExampleServer.new(self, workers:, env: self.env(env))
    @servers.last.wait_until_booted
  end

  # @return [Hash{String => String}] the environment of its processes
  def env(env = {}) = self.class.env({ **@env, **env })

  # Ends its servers, and deletes it.
  def remove
    @servers.pop.kill until @servers.empty?
    @sqlite3&.close
  ensure
    @servers.each { |server| server.process.kill }
    FileUtils.rm_rf(@folder)
  end

  def path(name) = File.join(@folder, name)

  # Writes one of its files.
  def write(name, text)
    FileUtils.mkdir_p(File.dirname(path(name)))
    File.write(path(name), text)
  end

  # Changes one of its files.
  #
  # @yieldparam text [String]
  # @yieldreturn [String]
  def edit(name) = write(name, yield(File.read(path(name))))

  # @return [Array<Hash{Symbol => Object}>] the rows of a query on its database
  def query(sql)
    rows = @mutex.synchronize do
      # One process for all queries, since there are many.
      @sqlite3 ||= IO.popen(["sqlite3", "-json", "-cmd", ".timeout 5000", path("storage/#{environment}.sqlite3")], "r+")
      @sqlite3.puts("#{sql};", ".print #{ANSWERED}")
      @sqlite3.gets("#{ANSWERED}\n", chomp: true) or raise "sqlite3 has ended"
    end
    rows.empty? ? [] : JSON.parse(rows, symbolize_names: true)
  end

  # @return [Hash{String => Hash}] by name
  def users = query("SELECT * FROM users ORDER BY name").to_h { |user| [user[:name], user] }

  # @return [Array<String>] the sorted names of the users who are online according to the database
  def online = query("SELECT name FROM users WHERE online ORDER BY name").map { |user| user[:name] }

  # @return [String]
  def log
    path = path("log/#{environment}.log")
    File.exist?(path) ? File.read(path) : ""
  end

  # @return [Array<Transition>] the transitions of all users, from the log
  def transitions
    names = users.to_h { |name, user| [user[:id], name] }
    log.each_line.filter_map { |line| TRANSITION.match(line) }.map do |match|
      Transition.new(at: Time.parse(match[:at]), process: match[:pid].to_i, kind: match[:name].to_sym,
                     user: names.fetch(match[:id].to_i), reason: match[:reason].to_sym)
    end
  end

  # @param names [Array<String>]
  # @return [Hash{String => Array}] the transitions of each user, and their reasons: `[%i[online heartbeat]]`
  def history(*names)
    all = transitions.group_by(&:user)
    names.to_h { |name| [name, all.fetch(name, []).map { |transition| [transition.kind, transition.reason] }] }
  end

  def inspect = "#<#{self.class} #{@folder}>"
end

RSpec.configure do |config|
  config.after(:suite) { ExampleApp::Template.remove }
end
