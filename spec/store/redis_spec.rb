# frozen_string_literal: true

require "English"
Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# What is specific to Redis: many leases, several databases, and other users of the same server.
RSpec.describe Stores::Redis do
  include_context "with servers of Redis"

  describe "its leases" do
    # Expects that no process has more than its share, and that every partition has a lease holder.
    def expect_shares(application)
      eventually(limit: 10) do
        shares = application.store.shares
        expect(shares).to all be <= 16.fdiv(application.serving.size).ceil
        expect(shares.sum).to eq 16
      end
    end

    it "are spread over the processes, and a process that ends releases its share at once", limit: 60 do
      application = deploy(described_class.new)
      workers = application.start_all(3)
      application.lease_holders
      expect_shares(application)

      workers.last.finish
      expect(application.store.leases.compact.uniq.size).to eq 2
      eventually { expect(application.store.shares).to eq [8, 8] }

      application.start
      expect_shares(application)
    end

    it "go to the remaining processes when a process dies, and each is put to use", limit: 60 do
      application = deploy(described_class.new)
      workers = application.start_all(2)
      application.lease_holders
      application.kill(workers.first)
      application.lease_holders
      expect(application.store.shares).to eq [16]
    end
  end

  describe "with nobody online" do
    # @return [Array<Float>] how many scripts each process calls within a second, and in how many round trips
    def measure_load(application, seconds: 2)
      server = application.store.server
      calls = /^cmdstat_evalsha:calls=(\d+)/
      reads = /^total_reads_processed:(\d+)/
      figures = -> { server.cli("INFO", "everything").then { |text| [calls, reads].map { |one| text[one, 1].to_i } } }
      before = figures.call
      throughout(seconds) { expect(application.transitions).to be_empty }
      figures.call.zip(before).map { |now, earlier| (now - earlier).fdiv(seconds * application.serving.size) }
    end

    # Expects at most 160 scripts in at most 30 round trips, and a quarter more on a busy machine. A process that asks
    # again at once has many times as many.
    def expect_low_load(application)
      eventually(limit: 15) do
        scripts, round_trips = measure_load(application)
        expect(scripts).to be_between(1, 200)
        expect(round_trips).to be <= 38
      end
    end

    it "is called seldom by each process, also after its connections were cut and after a restart", limit: 90 do
      server = serve(appendonly: "yes")
      application = deploy(described_class.new(server), timeout: 2)
      [1, 2].each do |count|
        application.start
        application.lease_holders
        expect_low_load(application)
        server.cli("CLIENT", "KILL", "TYPE", "normal")
        expect_low_load(application)
        server.restart(with_data: count == 1)
        application.lease_holders
        expect_low_load(application)
      end
    end
  end

  describe "with others on the same server" do
    # Expects that users with the same ids come and go in one of the two, and then in the other, without affecting each
    # other.
    def expect_apart(*stores)
      one, other = stores.map { |store| deploy(store).tap { |application| application.start_all(2) } }
      come(one)
      expect_unchanged_for_a_timeout(other, 0, "[manager.online_users, manager.leave(0)]" => [[], false])
      come(other)
      one.crowd.fall_silent(users(10))
      one.expect_all(users(10), :offline)
      expect_unchanged_for_a_timeout(other, 10, "manager.size" => 10)

      expect([one, other].map { |application| expect_good_end(application) })
        .to all have_attributes(transitions: 20, repeats: 0)
      stores.each(&:check)
    end

    def come(application)
      application.crowd.come(users(10))
      application.expect_all(users(10), :online)
    end

    # Expects that nothing happens there for one timeout, and that its processes' answers do not change.
    def expect_unchanged_for_a_timeout(application, transitions, answers)
      throughout(application.timeout) do
        answers.each { |code, answer| expect(application.workers.first.ask(code)).to eq answer }
        expect(application.transitions.size).to eq transitions
      end
    end

    it "keeps namespaces apart", limit: 60 do
      # One name is a prefix of the other.
      expect_apart(described_class.new(namespace: "spec"), described_class.new(namespace: "spec:1"))
    end

    it "keeps databases apart", limit: 60 do
      server = serve
      expect_apart(*Array.new(2) { |database| described_class.new(server, database:, namespace: "spec") })
    end

    it "leaves nothing of former users behind and touches no other keys", limit: 60 do
      server = serve
      server.cli("SET", "{om:other}:users", "theirs")
      application = deploy(described_class.new(server, namespace: "spec"))
      users_left = lambda do
        application.store.keys.grep(/:(users|events|overflow|failures|dead_letters|superseded)\z/).sum do |key|
          Integer(server.cli("EVAL", <<~LUA, 1, key))
            local kind = redis.call('TYPE', KEYS[1]).ok
            local size = ({zset = 'ZCARD', stream = 'XLEN', hash = 'HLEN'})[kind]
            return size and redis.call(size, KEYS[1]) or 0
          LUA
        end
      end
      application.start_all(2)
      application.crowd.come(users(100))
      application.expect_all(users(100), :online)
      expect(users_left.call).to be >= 100
      expect_good_end(application)

      eventually { expect(users_left.call).to eq 0 }
      expect(server.cli("GET", "{om:other}:users")).to eq "theirs"
      # Tombstones are deleted meanwhile, so the namespace's keys are listed before and after all keys.
      own = application.store.keys
      all = server.ask("--scan")
      expect(all - own - application.store.keys).to eq ["{om:other}:users"]
    end
  end

  describe "with a crowd" do
    crowd = Integer(ENV.fetch("REDIS_CROWD", 20_000))
    timeout = 3 + (crowd / 25_000)

    # Sends PING again and again, and returns the longest delay in seconds when it is ended.
    def ping(server)
      worst = 0
      is_going_on = true
      thread = Thread.new do
        TCPSocket.open("127.0.0.1", server.port) do |socket|
          while is_going_on
            asked = Wait.monotonic
            socket.write("PING\r\n")
            raise "PING was not answered" unless socket.gets == "+PONG\r\n"

            worst = [worst, Wait.monotonic - asked].max
          end
        end
      end
      yield
      is_going_on = false
      thread.join
      worst
    end

    # The example judges how long the scripts take, not how long the server waits for a core while other specs run.
    def raise_priority_of(server)
      Process.setpriority(Process::PRIO_PROCESS, server.pid, -20)
    rescue Errno::EACCES
      RSpec.configuration.reporter.message("Only root can let the server go first; a busy machine may make it slow")
    end

    it "that expires at once delays no other client: #{crowd} users", limit: 60 + (crowd / 1_000) do
      server = serve
      raise_priority_of(server)
      worst = nil
      process = ruby(<<~RUBY, server.url, crowd.to_s, timeout.to_s, limit: 60 + (crowd / 1_000)) do |child|
        require "online_manager"

        class Config
          attr_reader :counts

          def initialize = @counts = { online: 0, offline: 0 }
          def timeout = Integer(ARGV[2])
          def setup = nil
          def online(_) = nil
          def offline(_) = nil
          def online_all(user_ids) = @counts[:online] += user_ids.size
          def offline_all(user_ids) = @counts[:offline] += user_ids.size
        end

        config = Config.new
        manager = OnlineManager.new(config, store: ARGV[0], reactor: :thread)
        manager.setup
        manager.start
        crowd = Integer(ARGV[1])
        manager.seen_all(1..crowd)
        sleep 0.01 until config.counts[:online] == crowd
        puts "online"
        sleep 0.01 until config.counts[:offline] == crowd && manager.stats[:waiting].zero?
        puts config.counts.inspect
      RUBY
        worst = ping(server) { child.wait_for(/offline/, limit: 50 + (crowd / 1_000)) }
      end

      expect([process.stderr, process.success?]).to eq ["", true]
      expect(process.lines.last).to eq({ online: crowd, offline: crowd }.inspect)
      # The SLOWLOG contains the scripts that took more than 50 ms.
      expect(server.cli("SLOWLOG", "GET", 100)).to eq ""
      RSpec.configuration.reporter.message("The slowest PING took #{(worst * 1_000).round} ms")
    end
  end
end
