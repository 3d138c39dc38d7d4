# frozen_string_literal: true

require "json"
Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# How a process connects to Redis, and its errors for a server that it cannot use.
RSpec.describe Stores::Redis do
  include_context "with servers of Redis"

  secret = "swordfish: 100 %/@"

  # @return [Stores::RedisServer] a server that requires a user name and a password
  define_method(:serve_guarded) { |**settings| serve(user: "app", password: secret, **settings) }

  # Expects that users come online and go offline with this URL.
  def expect_use(server, url = server.url, warning: nil, **settings)
    application = deploy(described_class.new(server, url:), **settings)
    application.start
    application.crowd.come(users(10))
    application.expect_all(users(10), :online)
    expect(expect_good_end(application, warning:)).to have_attributes(transitions: 20, repeats: 0)
    application
  end

  describe "that can be used" do
    it "is reached at its port with a name and a password" do
      expect_use(serve_guarded)
    end

    it "is reached with a password alone" do
      expect_use(serve(password: secret))
    end

    it "is reached at a socket" do
      server = serve_guarded
      expect_use(server, server.socket_url)
      server = serve
      expect_use(server, server.socket_url(scheme: "unix", db: 3))
      expect(server.ask("INFO", "keyspace").grep(/^db/)).to match [/^db3:/]
    end

    it "is reached by TLS with a private certificate authority" do
      server = serve_guarded(tls: true)
      expect_use(server, "#{server.url}?ca_file=#{server.ca_file}")
      expect_use(server, env: { "SSL_CERT_FILE" => server.ca_file })
    end

    it "is reached by TLS with a certificate that is itself in the ca_file" do
      server = serve(tls: :self_signed)
      expect_use(server, "#{server.url}?ca_file=#{server.ca_file}")
    end

    it "is reached by TLS with any certificate after a warning if the URL says so" do
      server = serve(tls: :nameless)
      expect_use(server, "#{server.url}?verify=none", warning: /\AOnlineManager: .*verify=none is unsafe.*\n\z/)
    end

    it "is reached with a prefix before its keys, and a database in the query" do
      server = serve
      expect_use(server, "#{server.url(database: nil)}?prefix=myapp:&db=3")
      expect(server.ask("--scan", database: 3)).to all start_with("myapp:{om:")
      expect(server.ask("--scan", database: 0)).to be_empty
    end
  end

  # Sets a manager up in a child process, where nothing but the server's error is printed.
  #
  # @param store [String, Array] the option `store:`
  # @return [Array<String>] the error's class and message, its full message, and what has started in spite of it
  def error_of(store)
    process = ruby(<<~RUBY, JSON.generate(store))
      require "json"
      require "online_manager"

      class Config
        def timeout = 1
        def setup = puts("set up")
        def online(_user_id) = nil
        def offline(_user_id) = nil
      end

      begin
        OnlineManager.setup(Config.new, store: JSON.parse(ARGV[0]), reactor: :thread)
      rescue StandardError => e
        puts JSON.generate([e.class, e.message, e.full_message(highlight: false), OnlineManager.current.inspect])
      end
    RUBY
    expect([process.stderr, process.success?]).to eq ["", true]
    JSON.parse(process.stdout)
  end

  describe "that is no good from the start" do
    # Expects an error that names the server and its fault, before anything has started.
    def expect_error(url, message)
      error, says, full, current = error_of(url)
      expect([error, current]).to eq ["OnlineManager::StoreError", "nil"]
      expect(says).to match(message).and include(url[/127\.0\.0\.1:\d+/])
      expect(full).not_to include("swordfish")
    end

    it "is refused with an error: a wrong password" do
      server = serve_guarded
      expect_error(server.url.sub("app", "somebody"), /WRONGPASS|password/i)
      expect_error(serve.url.sub("127", "app:swordfish@127"), /WRONGPASS|password/i)
    end

    it "is refused with an error: a missing password" do
      expect_error(serve_guarded.url.sub(%r{//.*@}, "//"), /NOAUTH|password|authenticat/i)
    end

    it "is refused with an error: a server that is no Redis" do
      listener = TCPServer.new("127.0.0.1", 0)
      answering = Thread.new do
        loop do
          client = listener.accept
          client.readpartial(10_000)
          client.write("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
          client.close
        end
      end
      expect_error("redis://127.0.0.1:#{listener.local_address.ip_port}/0", /no Redis|not.* Redis/i)
    ensure
      answering.kill.join
      listener.close
    end

    it "is refused with an error: a replica, which takes no writes" do
      replica = serve(replicaof: "127.0.0.1 #{serve.port}")
      expect_error(replica.url, /replica|read-?only/i)
    end

    it "is refused with an error: a version that is too old" do
      server = serve
      old = "6.1.".ljust(server.version.size, "9")
      proxy = start_proxy(server, rewriting: { server.version => old })
      expect_error(server.url(port: proxy.port), /#{Regexp.escape(old)}.*6\.2/)
    end

    it "is refused with an error: a certificate by an unknown authority" do
      expect_error(serve(tls: true).url, /certificate "our own server" of 127\.0\.0\.1.*no authority.*ca_file=PATH/)
    end

    it "is refused with an error: a certificate in the ca_file that names another host, or has expired" do
      { nameless: /not made for the name 127\.0\.0\.1.*subjectAltName=IP:127\.0\.0\.1/, expired: /it has expired/ }
        .each do |kind, message|
          server = serve(tls: kind)
          expect_error("#{server.url}?ca_file=#{server.ca_file}", message)
        end
    end

    it "is refused with an error: a certificate that is not the one in the ca_file" do
      other = serve(tls: :self_signed)
      expect_error("#{serve(tls: :self_signed).url}?ca_file=#{other.ca_file}", /certificate "our own server"/)
    end

    it "is refused with an error: a database that does not exist" do
      expect_error(serve(databases: 2).url(database: 2), /database|DB index/i)
    end

    # Takes permissions from a user.
    def restrict(server, *rules) = server.cli("ACL", "SETUSER", "app", "on", ">swordfish", "~*", "+@all", *rules)

    it "is refused with an error: a user without commands or keys" do
      server = serve
      url = server.url.sub("127", "app:swordfish@127")
      restrict(server, "-hget", "-xadd")
      expect_error(url, /user may not run hget, xadd\. .*ACL SETUSER app \+hget \+xadd\. README/)
      restrict(server, "resetkeys", "~myapp:*")
      expect_error("#{url}?prefix=other:", /user may not use the key other:\{om:.*ACL SETUSER app ~other:\*;.*\?prefix/)
      expect(server.ask("DBSIZE")).to eq ["0"]
    end

    it "is refused with an error: a user without a command on one server of a cluster", limit: 60 do
      cluster = stop_later(Stores::RedisCluster.new).start
      urls = cluster.url.map { |url| url.sub("127", "app:password@127") }
      line = File.read("#{RubyProcess::ROOT}/README.md")[/^ACL SETUSER (app .*)$/, 1].sub("~myapp:*", "~{om:*").split
      cluster.masters.each { |master| master.cli("ACL", "SETUSER", *line, "+cluster|slots", "+asking") }
      master = cluster.masters.last
      %w[zadd asking].each do |name|
        master.cli("ACL", "SETUSER", "app", "-#{name}")
        expect(error_of(urls)[1]).to match(/:#{master.port}.*: its user may not run #{name}\. .* app \+#{name}\./)
        master.cli("ACL", "SETUSER", "app", "+#{name}")
      end
      expect_use(cluster, urls)
    end
  end

  describe "that cannot be reached" do
    # @return [Stores::Application] an application whose process has started and warned about the unreachable store
    def start_without(url, message)
      application = deploy(described_class.new(serve, url:))
      worker = application.start
      worker.wait_for(/the store cannot be reached and will be tried again: .*#{message}/)
      application
    end

    it "causes a warning and is used as soon as it is up: connection refused" do
      port = Stores::RedisServer.free_port
      application = start_without("redis://127.0.0.1:#{port}/0", "127.0.0.1:#{port}.*refused")
      worker = application.workers.first
      expect(worker.ask("Array.new(10) { |number| manager.seen(number, timeout: 60) }.uniq")).to eq [true]
      wait_until { application.store_errors.any? }

      stop_later(Stores::RedisServer.new(at: port)).start
      application.expect_all(0..9, :online)
      eventually { expect(worker.ask("manager.stats[:unwritten]")).to eq 0 }
    end

    # The name is longer than any valid one, so that no DNS server is queried for it.
    it "causes a warning: an unknown host" do
      host = "#{"x" * 64}.example"
      worker = start_without("redis://#{host}/0", host).workers.first
      expect(worker.ask("manager.seen(7)")).to be true
      worker.finish
    end

    it "causes a warning: no server at the socket" do
      start_without("redis+unix:///no/such/socket", "/no/such/socket")
    end
  end

  describe "with a password" do
    # Everything that a process prints about its store.
    def messages_of(worker)
      worker.ask(<<~'RUBY')
        [manager, manager.stats, manager.instance_variable_get(:@delivery).native].map(&:inspect) +
          manager.instance_variables.map { |name| manager.instance_variable_get(name).inspect.to_s }
      RUBY
    end

    it "does not print it", limit: 60 do
      server = serve_guarded
      application = expect_use(server)
      worker = application.workers.first
      messages = messages_of(worker)
      expect(messages.first).to include("redis://app:***@127.0.0.1:#{server.port}/0")

      # Nor in errors of a running process, or of one that starts.
      server.kill
      wait_until { application.store_errors.any? }
      worker.finish
      started = application.start
      started.wait_for(/cannot be reached/)
      all = messages + application.log.lines.map(&:to_s) + application.workers.map { |one| one.process.stderr }
      expect(all.grep(/swordfish/)).to be_empty
    end

    it "does not print it for an invalid URL" do
      ["redis://app:swordfish@127.0.0.1:port/0", "redis://app:swordfish@127.0.0.1/no", "redis:app:swordfish@127.0.0.1",
       "redis://app:swordfish@/0", ["redis://app:swordfish@127.0.0.1:1", 7], "rediss+unix:///socket?pass=swordfish",
       "redis://app:swordfish@127.0.0.1/0?ca_file=/no/such/file"].each do |url|
        error, _, full = error_of(url)
        expect(%w[ArgumentError OnlineManager::StoreError]).to include(error)
        expect(full).not_to include("swordfish")
      end
    end
  end

  it "causes a warning when it may evict keys and none when it may not" do
    settings = { maxmemory: "100mb" }
    messages = %w[allkeys-lru noeviction].map do |policy|
      application = deploy(described_class.new(serve(maxmemory_policy: policy, **settings)))
      worker = application.start
      worker.ask("manager.seen(7)")
      application.expect_all([7], :online)
      worker.finish
      worker.process.stderr
    end
    expect(messages).to match [/maxmemory-policy.*allkeys-lru.*noeviction/, ""]
  end
end
