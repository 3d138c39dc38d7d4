# frozen_string_literal: true

require "json"
require "socket"
require "stringio"
require "tmpdir"
require "online_manager/command"
require_relative "support/store/redis"

# The command `online_manager store`, as operators run it.
RSpec.describe OnlineManager::Command do
  around { |example| Dir.mktmpdir { |folder| Dir.chdir(folder) { example.run } } }

  # A config that fails for one user.
  let(:config) do
    Class.new do
      def timeout = 60
      def setup; end
      def online(user_id) = (raise "no row for #{user_id}" if user_id == "eve")
      def offline(_user_id) = nil
      def on_error(_exception, _user_id) = nil
    end
  end

  def online_manager(*argv, **options)
    command(RbConfig.ruby, "-w", "-I#{RubyProcess::ROOT}/lib", "#{RubyProcess::ROOT}/exe/online_manager", *argv,
            chdir: Dir.pwd, **options)
  end

  # @return [Array<String>] the lines of the output, without the parts that vary
  def report(*argv)
    varying = /seen .* ago|version \d+|\d+\.\d s|\d\d+(?=  )|\d{4}-\d\d-\d\d [\d:]+/
    online_manager("store", *argv).lines.map { |line| line.gsub(varying, "…").gsub(Socket.gethostname, "HOST") }
  end

  def with_manager(store: "sqlite:presence.sqlite3", **options)
    manager = OnlineManager.new(config.new, reactor: :thread, store:, **options)
    manager.setup
    yield manager
  ensure
    manager.stop
  end

  # Expects what is printed of three users; the callback of one of them fails.
  def expect_summary(said, partitions: 1)
    expect(said).to include("online: 3", "waiting to be delivered: 1, the oldest for …", "dead letters: 0",
                            "members: 1", "member: HOST:#{Process.pid}, registered for another …",
                            "partitions: #{partitions}", "events:", '  online "eve", …, failed once')
    expect(said.grep(/\A  (?:\d|…)+ .*HOST +(?:…|#{Process.pid})/).size).to eq partitions
  end

  it "prints a summary, and the users on request" do
    with_manager do |manager|
      manager.seen_all([7, "eve", :bob])
      eventually { expect(manager.stats).to include(online: 3, waiting: 1, retries: 1) }

      said = report("presence.sqlite3")
      expect_summary(said)
      expect(said.first).to eq "sqlite:presence.sqlite3, the namespace without a name"
      expect(said.grep(/bob/)).to be_empty
      expect(report("sqlite:presence.sqlite3", "--users"))
        .to include("users:", "  7, …", '  "eve", …', "  :bob, …").and include(*said)
    end
  end

  it "prints all of it as JSON" do
    with_manager(namespace: "chat") do |manager|
      manager.seen_all([7, "eve", :bob, "\xFF"])
      eventually { expect(manager.stats).to include(online: 4, waiting: 1, retries: 1) }

      said = JSON.parse(online_manager("store", "presence.sqlite3", "-n", "chat", "--json", "--users").stdout)
      expect(said).to include("namespace" => "chat", "online" => 4, "waiting" => 1, "partitions_without_owner" => 0)
      expect(said["partitions"]).to match [include("lease_holder" => "#{Socket.gethostname}:#{Process.pid}",
                                                   "number" => 0, "online" => 4, "oldest_waiting" => be_positive)]
      expect(said["members"].map(&:keys)).to eq [%w[name remaining]]
      expect(said["users"].map { |user| user.values_at("user_id", "type") })
        .to contain_exactly([7, "integer"], %w[eve string], %w[bob symbol], ['"\\xFF"', "string"])
      expect(said["events"]).to match [include("user_id" => "eve", "transition" => "online", "failures" => 1)]
    end
  end

  it "prints it anew every second until Ctrl-C" do
    with_manager do |manager|
      manager.seen(7)
      eventually { expect(manager.stats).to include(online: 1) }
      process = RubyProcess.new(RbConfig.ruby, "-I#{RubyProcess::ROOT}/lib", "#{RubyProcess::ROOT}/exe/online_manager",
                                "store", "presence.sqlite3", "--watch", chdir: Dir.pwd)
      process.wait_for("online: 1")
      manager.seen(8)
      process.wait_for("online: 2")
      process.signal(:INT)
      process.finish

      expect([process.status.exitstatus, process.stderr]).to eq [0, ""]
    ensure
      process&.kill
    end
  end

  it "prints JSON only with --watch and --json, also when the store fails later" do
    with_manager do |manager|
      manager.seen(7)
      eventually { expect(manager.stats).to include(online: 1) }
    end
    process = RubyProcess.new(RbConfig.ruby, "-I#{RubyProcess::ROOT}/lib", "#{RubyProcess::ROOT}/exe/online_manager",
                              "store", "presence.sqlite3", "--watch", "--json", chdir: Dir.pwd)
    process.wait_for(/\A{"store":/)
    FileUtils.rm(Dir["presence.sqlite3*"])
    process.wait_for(/\A{"error":"/)
    process.signal(:INT)
    process.finish

    expect(process.stdout.lines.map { |line| JSON.parse(line) }).to all be_a Hash
  ensure
    process&.kill
  end

  it "prints which namespaces there are if there is none of that name, and creates none" do
    with_manager(namespace: "chat") do |manager|
      manager.seen(7)
      eventually { expect(manager.stats).to include(online: 1) }
      [%w[-n typo], %w[-n typo --requeue], %w[--purge typo]].each do |options|
        process = online_manager("store", "presence.sqlite3", *options)

        expect([process.status.exitstatus, process.stdout]).to eq [1, ""]
        expect(process.stderr).to match(/\Aonline_manager: .*presence\.sqlite3: .*"typo".*"chat"/)
      end
    end
  end

  describe "--purge" do
    # @param typed [String] what the user types
    # @return [Array(Integer, String, String)] the status and what is printed
    def purge(typed, *options)
      out, err = Array.new(2) { StringIO.new }
      status = described_class.new(input: StringIO.new(typed), out:, err:)
                              .run(["store", "presence.sqlite3", "-n", "chat", "--purge", *options])
      [status, out.string, err.string]
    end

    def leave_something_behind
      with_manager(namespace: "chat") do |manager|
        manager.seen_all([7, "eve"])
        eventually { expect(manager.stats).to include(online: 2, waiting: 1) }
        yield if block_given?
      end
    end

    it "deletes the namespace once its name has been typed, and says before what is lost" do
      leave_something_behind
      status, out, err = purge("chat\n")

      expect([status, err]).to eq [0, ""]
      expect(out).to match(/chat.*2 users who .*; 1 event that has .*; and 0 dead letters.*Type chat .*deleted\n\z/m)
      expect(purge("chat\n")).to match [1, "", /no namespace "chat"/]
    end

    it "deletes nothing if something else is typed" do
      leave_something_behind

      expect(purge("yes\n")).to match [1, /Type chat/, /nothing was deleted: expected "chat", got "yes"/]
      expect(purge("")).to match [1, /Type chat/, /got nil/]
      expect(report("presence.sqlite3", "-n", "chat")).to include("online: 2")
    end

    it "refuses while processes participate, unless it is forced" do
      leave_something_behind do
        expect(purge("chat\n")).to match [1, "", /1 process participates \(.*:#{Process.pid}\).*--force/]
        expect(report("presence.sqlite3", "-n", "chat")).to include("online: 2")
        expect(purge("chat\n", "--force")).to match [0, /deleted/, ""]
      end
    end
  end

  it "requeues dead letters" do
    with_manager do |manager|
      manager.seen(1)
      eventually { expect(manager.stats).to include(online: 1, waiting: 0) }
    end
    insert_dead_letter = "INSERT INTO dead_letters (namespace, number, id, is_online, is_leave, due, seen, version, " \
                         "failures, error, newest) VALUES "
    database("#{insert_dead_letter} (1, 17, x'736576', 1, 0, 0, 0, 17, 5, 'RuntimeError: no', 17), " \
             "(1, 18, x'7361', 0, 0, 0, 0, 18, 5, 'RuntimeError: no', 19)")

    expect(report("presence.sqlite3").last(3))
      .to eq ["dead letters:", '  online "ev", …, failed 5 times: RuntimeError: no',
              '  offline "a", …, failed 5 times, superseded: RuntimeError: no']
    expect(online_manager("store", "presence.sqlite3", "--requeue").lines)
      .to eq ["requeued 1, dropped 1 that a later transition has superseded"]
    expect(report("presence.sqlite3")).to include("dead letters: 0").and end_with("events:", '  online "ev", …')
  end

  def database(sql) = expect(command("sqlite3", "presence.sqlite3", sql, chdir: Dir.pwd)).to(be_success)

  context "with a Redis" do
    let(:redis) { Stores::Redis.new }

    after { redis.remove }

    # @return [Array<String>] the same for our namespace
    def report_there(*argv) = report(redis.url, "--namespace", redis.namespace, *argv)

    # Inserts a dead letter as the store would.
    #
    # @param latest [Integer] the version of the user's latest transition
    def insert_dead_letter(user, kind, version, latest)
      partition = redis.partition_of(user)
      redis.server.cli("XADD", redis.key(partition, :dead_letters), "#{version}-0", "u", "s#{user}", "k", kind, "d", 0,
                       "v", version, "f", 5, "e", "RuntimeError: no")
      redis.server.cli("HSET", redis.key(partition, :superseded), "s#{user}", latest)
    end

    it "prints the same as for a file" do
      with_manager(**redis.options) do |manager|
        manager.seen_all([7, "eve", :bob])
        eventually { expect(manager.stats).to include(online: 3, waiting: 1, retries: 1, partitions_without_owner: 0) }

        expect_summary(report_there, partitions: 16)
        expect(report_there("--users")).to include("users:", "  7, …", '  "eve", …', "  :bob, …")
        typo = online_manager("store", redis.url, "-n", "#{redis.namespace}typo")
        expect([typo.status.exitstatus, typo.stdout]).to eq [1, ""]
        expect(typo.stderr).to match(/typo".*"#{redis.namespace}"/)
      end
    end

    it "requeues dead letters" do
      with_manager(**redis.options) do |manager|
        manager.start
        eventually { expect(manager.stats).to include(members: 1, partitions_without_owner: 0) }
      end
      insert_dead_letter("ev", "o", 17, 17)
      insert_dead_letter("a", "t", 18, 19)

      expect(report_there.last(3))
        .to contain_exactly("dead letters:", '  online "ev", …, failed 5 times: RuntimeError: no',
                            '  offline "a", …, failed 5 times, superseded: RuntimeError: no')
      expect(report_there("--requeue"))
        .to eq ["requeued 1, dropped 1 that a later transition has superseded"]
      expect(report_there).to include("dead letters: 0").and end_with("events:", '  online "ev", …')
    end

    it "prints what is wrong with an unreachable server, without its password" do
      port = Stores::RedisServer.free_port
      process = online_manager("store", "redis://ann:secret@127.0.0.1:#{port}/0")

      expect([process.status.exitstatus, process.stdout]).to eq [1, ""]
      expect(process.stderr).to match(/\Aonline_manager: redis:.*ann:\*\*\*@127\.0\.0\.1:#{port}.*refused/)
    end
  end

  {
    ["store", "nothing.sqlite3"] => [1, /nothing\.sqlite3: there is no such file/],
    ["store", "other:x"] => [2, /unknown store "\*\*\*"; there is .*\nUsage/],
    ["store"] => [2, /no store: expected a path or a URL\nUsage/],
    ["stores"] => [2, /unknown command "stores": expected `store'/],
    %w[store a b] => [2, /2 stores: expected one/],
    ["store", "--no-such"] => [2, /invalid option: --no-such/],
    ["store", "a", "--watch", "--requeue"] => [2, /--requeue and --watch: expected one of them\nUsage/],
    ["store", "a", "--purge", "b", "-n", "b"] => [1, /a: there is no such file/],
    ["store", "a", "-n", "c", "--purge", "b"] => [2, /--purge "b" and --namespace "c" differ: write /],
    ["store", "a", "--force"] => [2, /--force without --purge\nUsage/],
    ["store", "a", "--purge"] => [1, /a: there is no such file/]
  }.each do |argv, (status, message)|
    it "prints what is wrong with `#{argv.join(" ")}'" do
      process = online_manager(*argv)

      expect([process.status.exitstatus, process.stderr, process.stdout]).to match [status, message, ""]
    end
  end

  describe OnlineManager::Command::Listing do
    partition = { number: 0, online: 70, waiting: 0, oldest_waiting: nil, dead_letters: 0, lease_holder: "web-1:4711",
                  lease_remaining: 3.14, hold: 0.0, epoch: 1_700_000_000_000_000, generation: 0 }
    orphan = partition.merge(number: 1, online: 7, waiting: 21, oldest_waiting: 45.04, dead_letters: 2,
                             lease_holder: nil, lease_remaining: nil, hold: 2.5, generation: 1_700_000_060_000_000)
    contents = { partitions: [partition, orphan], members: [{ name: "web-1:4711", remaining: 2.02 }], users: nil,
                 events: nil, dead_letters: [] }

    it "shows a partition without a lease holder at a glance, and how to list what is long" do
      expect(described_class.new("redis://ann:secret@host", "chat", contents).to_s).to eq <<~TEXT.chomp
        redis://ann:***@host, namespace "chat"
        online: 77
        waiting to be delivered: 21, the oldest for 45.0 s
        dead letters: 2
        members: 1
        partitions: 2, 1 WITHOUT A LEASE HOLDER: 1
          partition  online  waiting  oldest  dead  lease holder  process  lease  hold   data since (UTC)
          0          70      0        -       0     web-1         4711     3.1 s  -      2023-11-14 22:13:20
          1          7       21       45.0 s  2     NOBODY        -        -      2.5 s  2023-11-14 22:13:20, went back 2023-11-14 22:14:20
        member: web-1:4711, registered for another 2.0 s
        events: 21, listed with --events
      TEXT
    end

    it "cuts long names and ids, so that its lines stay readable" do
      long = "x" * 300
      many = [partition.merge(lease_holder: "#{long}:4711"), orphan]
      shown = described_class.new("sqlite:/p", long, contents.merge(partitions: many, users: { long => 1.0 },
                                                                    members: [{ name: "#{long}:4711", remaining: 1 }]))

      expect(shown.to_s.lines.map(&:size).max).to be < 200
      expect(shown.to_s)
        .to include("#{"x" * 29}…  4711", "member: #{"x" * 29}…:4711,", "\"#{"x" * 58}…, seen 1.0 s ago")
      expect(shown.heading).to eq "sqlite:/p, namespace \"#{"x" * 58}…"
      expect(JSON.parse(shown.to_json)["partitions"][0]["lease_holder"]).to eq "#{long}:4711"
    end

    it "speaks of one and of many" do
      single = partition.merge(online: 1, dead_letters: 1)
      one = described_class.new("sqlite:/p", "", contents.merge(partitions: [single]))
      many = described_class.new("sqlite:/p", "", contents)

      expect(one.losses).to eq "This deletes 1 user who is online, without calling `offline`; 0 events that have not " \
                               "been delivered; and 1 dead letter."
      expect(many.losses).to eq "This deletes 77 users who are online, without calling `offline`; 21 events that " \
                                "have not been delivered; and 2 dead letters."
    end

    it "has the same as JSON, with the error texts of dead letters" do
      letter = { user_id: :ann, transition: :online, reason: :heartbeat, lateness: 0.5, version: 7, failures: 5,
                 error: "no \xFF", superseded: false }
      said = described_class.new("sqlite:/p", "", contents.merge(dead_letters: [letter])).to_json

      expect(JSON.parse(said, symbolize_names: true)).to include(
        store: "sqlite:/p", online: 77, waiting: 21, oldest_waiting: 45.04, dead_letters: 2,
        partitions_without_owner: 1, partitions: [partition, orphan], members: contents[:members],
        dead_letter_events: [letter.merge(transition: "online", reason: "heartbeat", user_id: "ann", type: "symbol",
                                          error: "no \uFFFD")]
      )
    end
  end

  it "prints its usage and its version" do
    expect(online_manager("--help").stdout).to start_with(described_class::CommandLine::USAGE).and include("--requeue")
    expect(online_manager("--version").lines).to eq [OnlineManager::VERSION]
  end
end
