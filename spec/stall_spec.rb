# frozen_string_literal: true

# Rule 14: heartbeats that have reached the process and wait to be read are not missed ones. 100 users send a heartbeat
# every 0.2 s through a pipe, with a timeout of 1 s, while the process, or what reads the pipe, stands still for 2 s.
RSpec.describe "A process that stands still" do
  script = <<~RUBY
    require "online_manager"
    require "fiddle"
    require "tmpdir"
    require "eventmachine"

    class Config
      attr_reader :offline_ids, :gone_at
      def timeout = 1
      def setup = @offline_ids = []
      def online(id) = nil

      def offline(id)
        @gone_at = now if id == 0
        @offline_ids << id
      end
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    # A pipe with the heartbeats of 100 users, and one heartbeat of user 0, who is gone after it.
    def client
      reader, writer = IO.pipe
      pid = fork do
        reader.close
        writer.write([0].pack("N"))
        loop { (1..100).each { |id| writer.write([id].pack("N")) }; sleep 0.2 }
      end
      writer.close
      [reader, pid]
    end

    # Keeps the GVL, as C code does.
    USLEEP = Fiddle::Function.new(Fiddle.dlopen(nil)["usleep"], [Fiddle::TYPE_INT], Fiddle::TYPE_INT, need_gvl: true)

    STALLS = {
      "signal" => -> { system("kill -STOP \#{Process.pid}; sleep 2; kill -CONT \#{Process.pid}") },
      "gvl" => -> { USLEEP.call(2_000_000) },
      "loop" => -> { sleep 2 }
    }

    CONFIG = Config.new
    READER, CLIENT = client

    def say_result(stalled_at)
      wrong = CONFIG.offline_ids.uniq - [0]
      puts "\#{wrong.size} of 100"
      puts "gone \#{CONFIG.gone_at ? (CONFIG.gone_at - stalled_at - 2).round(1) : "never"}"
      $stdout.flush
      Process.kill(:KILL, CLIENT)
      exit!(0)
    end
  RUBY

  threads = <<~RUBY
    MANAGER = OnlineManager.new(CONFIG, reactor: :thread, **STORE)
    MANAGER.setup
    Thread.new { loop { MANAGER.seen(READER.read(4).unpack1("N")) } }
    sleep 0.7
    stalled_at = now
    STALLS.fetch(ARGV.fetch(0)).call
    sleep 2
    say_result(stalled_at)
  RUBY

  event_machine = <<~RUBY
    module Heartbeats
      def notify_readable = MANAGER.seen(READER.read(4).unpack1("N"))
    end

    MANAGER = OnlineManager.new(CONFIG, reactor: :eventmachine, **STORE)
    EM.run do
      MANAGER.setup
      EM.watch(READER, Heartbeats) { |watch| watch.notify_readable = true }
      EM.add_timer(0.7) do
        stalled_at = now
        STALLS.fetch(ARGV.fetch(0)).call
        EM.add_timer(2) { say_result(stalled_at) }
      end
    end
  RUBY

  memory = "STORE = {}"
  sqlite = "STORE = { store: \"sqlite://\#{Dir.mktmpdir}/presence.db\" }"
  [
    ["signal", "thread", "memory", threads, memory], ["gvl", "thread", "memory", threads, memory],
    ["signal", "eventmachine", "memory", event_machine, memory],
    ["loop", "eventmachine", "memory", event_machine, memory],
    ["signal", "thread", "SQLite", threads, sqlite], ["gvl", "thread", "SQLite", threads, sqlite],
    ["loop", "eventmachine", "SQLite", event_machine, sqlite]
  ].each do |stall, reactor, name, application, store|
    it "sets nobody offline whose heartbeats wait, and who is gone goes soon (#{stall}, #{reactor}, #{name})" do
      process = ruby([script, store, application].join("\n"), stall, bundled: true)
      expect(process.stderr).to eq ""
      expect(process.lines.first).to eq "0 of 100"
      # User 0 is due after a second, and goes at the latest one timeout after the end of the stall.
      expect(Float(process.lines.last[/^gone (.*)/, 1])).to be < 1.9
    end
  end
end
