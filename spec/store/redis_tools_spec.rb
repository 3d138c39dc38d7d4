# frozen_string_literal: true

require "socket"
require_relative "../support/store/redis"
require_relative "../support/store/proxy"

# The helpers of the Redis specs. A helper that lets everything pass would not fail any other spec.
RSpec.describe "spec/support/store" do
  describe Stores::RedisServer do
    it "ends by its pid and starts again on the same port, with or without its data" do
      server = described_class.new(appendonly: "yes").start
      port = server.port
      server.cli("SET", "a", "1")
      server.restart(with_data: true) do
        expect { TCPSocket.new("127.0.0.1", port) }.to raise_error(Errno::ECONNREFUSED)
      end
      expect([server.port, server.cli("GET", "a")]).to eq [port, "1"]
      server.restart(with_data: false)
      expect(server.cli("GET", "a")).to eq ""

      pid = server.pid
      server.stop
      expect { Process.kill(0, pid) }.to raise_error(Errno::ESRCH)
      expect(File.exist?(server.folder)).to be false
    end

    it "takes another port when another process has taken the free one" do
      taken = TCPServer.new("127.0.0.1", 0)
      server = described_class.new(at: taken.local_address.ip_port).start
      expect(server.port).not_to eq taken.local_address.ip_port
      expect(server.cli("PING")).to eq "PONG"
    ensure
      taken.close
      server.stop
    end

    it "ends with the process that started it" do
      process = ruby(<<~RUBY, bundled: true)
        require "rspec"
        require "./spec/support/wait"
        require "./spec/support/store/redis_server"
        puts Stores::RedisServer.new.start.pid
        exit!
      RUBY
      pid = Integer(process.stdout)
      eventually { expect { Process.kill(0, pid) }.to raise_error(Errno::ESRCH) }
    end

    it "raises the error of redis-cli" do
      expect { described_class.common.cli("GET") }.to raise_error(/redis-cli GET says: ERR wrong number of arguments/)
    end
  end

  describe Stores::Proxy do
    before { @proxy = described_class.new(Stores::RedisServer.common.port, rewriting: { "PONG" => "GNOP" }) }
    after { @proxy.stop }

    # @return [String, nil] the answer
    def ask(command)
      TCPSocket.open("127.0.0.1", @proxy.port) do |socket|
        socket.write("#{command}\r\n")
        socket.gets
      end
    end

    it "passes on answers with replacements" do
      expect([ask("PING"), ask("ECHO hello")]).to eq %W[+GNOP\r\n $5\r\n]
    end

    it "delays answers" do
      @proxy.delay = 0.2
      asked = Wait.monotonic
      ask("PING")
      expect(Wait.monotonic - asked).to be >= 0.2
    end

    it "spoils the chosen answers and no others" do
      @proxy.spoil(:drop, at: "PING")
      @proxy.spoil(:halve, at: "PING")
      expect([ask("ECHO hello"), ask("PING"), ask("PING"), ask("PING")]).to eq ["$5\r\n", nil, "+GN", "+GNOP\r\n"]
      expect(@proxy.spoilt).to eq 2
    end
  end

  describe Stores::Redis do
    let(:redis) { described_class.new }

    after { redis.remove }

    it "computes the checksum of Redis" do
      expect(described_class.crc16("123456789")).to eq 0x31C3
    end

    it "finds keys that do not belong there" do
      redis.server.cli("ZADD", redis.key(redis.partition_of("ann"), :users), 1, "sann")
      redis.check
      wrong = redis.key((redis.partition_of("ben") + 1) % 16, :users)
      redis.server.cli("ZADD", wrong, 1, "sben")
      expect { redis.check }.to fail_with("are strange: #{wrong}")
      redis.server.cli("DEL", wrong)
      redis.server.cli("SET", redis.key(3, :other), 1)
      expect { redis.check }.to fail_with("are strange: #{redis.key(3, :other)}")
    end

    def fail_with(text) = raise_error(RSpec::Expectations::ExpectationNotMetError, end_with(text))

    it "knows how the leases are distributed" do
      soon = Integer((Time.now.to_f + 60) * 1_000_000)
      16.times do |number|
        redis.server.cli("HSET", redis.key(number, :meta), "holder", number < 5 ? "one" : "another", "until", soon)
      end
      expect([redis.shares, redis.shared_by?(2), redis.shared_by?(3)]).to eq [[5, 11], true, false]
      redis.server.cli("HSET", redis.key(0, :meta), "until", soon - 120_000_000)
      expect([redis.shares, redis.shared_by?(2)]).to eq [[4, 11], false]
    end
  end
end
