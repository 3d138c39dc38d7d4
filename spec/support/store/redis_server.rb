# frozen_string_literal: true

require "erb"
require "fileutils"
require "open3"
require "socket"
require "tmpdir"
require "uri"
require_relative "certificates"

module Stores
  # Our own redis-server: in a temporary folder, on a port of 127.0.0.1 and on a Unix socket, and ended by its pid. The
  # kernel ends it too when the thread that started it ends, so that must be a thread that stays.
  class RedisServer
    include Wait

    PROGRAM = "redis-server"
    # The scheme of its URLs.
    SCHEME = "redis"
    # How long it may take to start or to stop, in seconds.
    TIMEOUT = 30
    # Below the range of ports that the system gives to outgoing connections: so none takes the port while the server is
    # down.
    PORTS = (10_000..32_000)
    # By default nothing is kept on disk. Slow scripts are recorded in the SLOWLOG.
    SETTINGS = {
      bind: "127.0.0.1", save: '""', appendonly: "no", appendfsync: "always", loglevel: "notice",
      slowlog_log_slower_than: 50_000, slowlog_max_len: 1_000
    }.freeze

    class << self
      # One server for many applications, each with its own namespace, since starting a server takes time.
      #
      # @return [RedisServer]
      def common = @common ||= new.start

      def common?(server) = server.equal?(@common)

      def stop_common = @common&.stop

      # @return [Integer] a free port
      def free_port
        TCPServer.new("127.0.0.1", port = rand(PORTS)).close
        port
      rescue Errno::EADDRINUSE
        retry
      end
    end

    attr_reader :folder, :port, :bus_port, :pid, :user, :password, :socket

    # @param user [String, nil] a user with all permissions; nil is Redis' default user
    # @param password [String, nil]
    # @param tls [Boolean, Symbol, Certificates] whether the port speaks TLS only, and with which {Certificates}, or
    #   which kind of them
    # @param at [Integer, nil] the port; nil takes a free one
    # @param env [Hash{String => String}]
    # @param settings [Hash{Symbol => Object}] lines of its redis.conf
    def initialize(user: nil, password: nil, tls: false, at: nil, env: {}, **settings)
      @user = user
      @password = password
      @port = at
      @env = env
      @folder = Dir.mktmpdir("online_manager_redis")
      @socket = "#{@folder}/socket"
      @certificates = certificates(tls) if tls
      @settings = SETTINGS.merge(settings)
    end

    # @return [self] as soon as it answers
    def start
      launch
      wait_until_ready
    end

    # Starts it without waiting.
    def launch
      @port ||= self.class.free_port
      @bus_port ||= self.class.free_port if @settings.key?(:cluster_enabled)
      conf = "#{@folder}/redis.conf"
      File.write(conf, configuration.map { |line| "#{line.join(" ")}\n" }.join)
      @pid = spawn(@env, executable("setpriv"), "--pdeathsig", "KILL", executable(self.class::PROGRAM), conf,
                   in: File::NULL, %i[out err] => ["#{@folder}/log", "a"])
    end

    # @return [self]
    def wait_until_ready
      wait_until(limit: TIMEOUT) do
        relaunch if Process.wait(@pid, Process::WNOHANG)
        ready?
      end
      self
    end

    # Ends it as an operator would.
    def stop
      end_by(:TERM)
    ensure
      FileUtils.remove_entry(@folder)
    end

    # Kills it. It can be started again.
    def kill = end_by(:KILL)

    def running? = !@pid.nil?

    # Stops the process with SIGSTOP.
    def pause = Process.kill(:STOP, @pid)

    # Resumes the process with SIGCONT.
    def resume = Process.kill(:CONT, @pid)

    # Kills it, and starts it again on the same port.
    #
    # @param with_data [Boolean] whether the data on disk is kept; the server needs `appendonly: "yes"` for that
    # @yield while it is down
    def restart(with_data:)
      kill
      yield if block_given?
      FileUtils.rm_rf(Dir["#{@folder}/{appendonlydir,*.aof,*.rdb}"]) unless with_data
      start
    end

    # @return [String] its data, as it writes them to disk
    def dump
      cli("SAVE")
      File.binread(dump_file)
    end

    # Has the server begin with these data, the next time it is started.
    #
    # @param dump [String] see {#dump}
    def begin_with(dump) = File.binwrite(dump_file, dump)

    # @param words [Array<#to_s>] a command
    # @param database [Integer]
    # @return [String] the output of `redis-cli`
    def cli(*words, database: 0)
      options = cluster? ? ["-c", "-p", @port.to_s] : ["-s", @socket, "-n", database.to_s]
      options.push("--tls", "--cacert", ca_file) if cluster? && @certificates
      options.push("--user", @user) if @user
      output, status = Open3.capture2e({ "REDISCLI_AUTH" => @password },
                                       "redis-cli", "-e", *options, *words.map(&:to_s))
      status.success? or raise "redis-cli #{words.first} says: #{output}"
      output.chomp
    end

    # The same, as lines.
    def ask(...) = cli(...).lines(chomp: true)

    # @return [Array<RedisServer>] see {RedisCluster#masters}
    def masters = [self]

    # Whether it is part of a cluster.
    def cluster? = !@bus_port.nil?

    # Whether it is the common server.
    def common? = self.class.common?(self)

    # @return [String] its log
    def log = File.read("#{@folder}/log")

    # @return [String]
    def version = cli("INFO", "server")[/^redis_version:(\S+)/, 1]

    # @return [String] the path of the certificate that signed the server's certificate
    def ca_file = @certificates.ca_file

    # @param port [Integer] another port that leads to this server
    # @return [String] the URL for a manager
    def url(database: 0, port: @port)
      authority = ("#{@user}:#{ERB::Util.url_encode(@password)}@" if @password)
      "#{self.class::SCHEME}#{"s" if @certificates}://#{authority}127.0.0.1:#{port}/#{database}"
    end

    # @return [String] the URL of its Unix socket
    def socket_url(scheme: "#{self.class::SCHEME}+unix", **query)
      query = { user: @user, pass: @password, **query }.compact
      "#{scheme}://#{@socket}#{"?#{URI.encode_www_form(query)}" unless query.empty?}"
    end

    def inspect = "#<#{self.class} on port #{@port}>"

    private

    def certificates(kind)
      return kind if kind.is_a?(Certificates)

      Certificates.new(@folder, kind == true ? :signed : kind)
    end

    def dump_file = "#{@folder}/dump.rdb"

    def configuration
      settings = { dir: @folder, unixsocket: @socket, **@settings }
      settings.update(@certificates ? { port: 0, tls_port: @port, **@certificates.settings } : { port: @port })
      settings[:cluster_port] = @bus_port if @bus_port
      [*settings.map { |name, value| [name.to_s.tr("_", "-"), value] }, *access]
    end

    def access
      return [] unless @password
      return [["requirepass", @password.dump]] unless @user

      [%w[user default off], ["user", @user, "on", ">#{@password}".dump, "~*", "&*", "+@all"]]
    end

    # A running server that requires a password answers NOAUTH.
    def ready?
      connection = UNIXSocket.new(@socket)
      connection.write("PING\r\n")
      connection.gets.to_s.match?(/\A(\+PONG|-NOAUTH)/)
    rescue SystemCallError
      false
    ensure
      connection&.close
    end

    # Another process may have found the same port free.
    def relaunch
      @pid = nil
      raise "#{self.class::PROGRAM} has ended:\n#{log}" unless log.include?("Address already in use")

      File.truncate("#{@folder}/log", 0)
      @port = @bus_port = nil
      launch
    end

    def end_by(signal)
      return unless @pid

      Process.kill(signal, @pid)
      Process.kill(:CONT, @pid)
      Process.wait(@pid)
    ensure
      @pid = nil
    end

    def executable(name)
      ENV.fetch("PATH").split(File::PATH_SEPARATOR).map { |folder| File.join(folder, name) }
         .find { |path| File.executable?(path) } || raise("#{name} is missing: bin/setup installs it")
    end
  end
end

RSpec.configure do |config|
  config.after(:suite) { Stores::RedisServer.stop_common }
end
