# frozen_string_literal: true

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
  def report(*argv) = online_manager("store", *argv).lines.map { |line| line.sub(/seen .* ago|version \d+/, "…") }

  def with_manager(store: "sqlite:presence.sqlite3", **options)
    manager = OnlineManager.new(config.new, reactor: :thread, store:, **options)
    manager.setup
    yield manager
  ensure
    manager.stop
  end

  it "lists the online users and the waiting events" do
    with_manager do |manager|
      manager.seen_all([7, "eve", :bob])
      eventually { expect(manager.stats).to include(online: 3, waiting: 1, retries: 1) }

      said = report("presence.sqlite3")
      expect(said).to contain_exactly("online: 3", "  7, …", '  "eve", …', "  :bob, …", "waiting to be delivered: 1",
                                      '  online "eve", …, failed 1 times', "dead letters: 0")
      expect(report("sqlite:presence.sqlite3")).to match_array said
      expect(report("presence.sqlite3", "--namespace", "other").first).to eq "online: 0"
    end
  end

  it "requeues dead letters" do
    with_manager do |manager|
      manager.seen(1)
      eventually { expect(manager.stats).to include(online: 1, waiting: 0) }
    end
    insert_dead_letter = "INSERT INTO dead_letters " \
                         "(namespace, id, is_online, is_leave, due, version, failures, error, is_superseded) VALUES "
    database("#{insert_dead_letter} (1, x'736576', 1, 0, 0, 17, 5, 'RuntimeError: no', 0), " \
             "(1, x'7361', 0, 0, 0, 18, 5, 'RuntimeError: no', 1)")

    expect(report("presence.sqlite3").last(3))
      .to eq ["dead letters: 2", '  online "ev", …, failed 5 times: RuntimeError: no',
              '  offline "a", …, failed 5 times, superseded: RuntimeError: no']
    expect(online_manager("store", "presence.sqlite3", "--requeue").lines)
      .to eq ["requeued 1, dropped 1 that a later transition has superseded"]
    expect(report("presence.sqlite3").last(3))
      .to eq ["waiting to be delivered: 1", '  online "ev", …', "dead letters: 0"]
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

    it "lists the same as for a file" do
      with_manager(**redis.options) do |manager|
        manager.seen_all([7, "eve", :bob])
        eventually { expect(manager.stats).to include(online: 3, waiting: 1, retries: 1) }

        expect(report_there)
          .to contain_exactly("online: 3", "  7, …", '  "eve", …', "  :bob, …", "waiting to be delivered: 1",
                              '  online "eve", …, failed 1 times', "dead letters: 0")
        expect(report(redis.url, "--namespace", "other").first).to eq "online: 0"
      end
    end

    it "requeues dead letters" do
      insert_dead_letter("ev", "o", 17, 17)
      insert_dead_letter("a", "t", 18, 19)

      expect(report_there.last(3))
        .to contain_exactly("dead letters: 2", '  online "ev", …, failed 5 times: RuntimeError: no',
                            '  offline "a", …, failed 5 times, superseded: RuntimeError: no')
      expect(report_there("--requeue"))
        .to eq ["requeued 1, dropped 1 that a later transition has superseded"]
      expect(report_there.last(3)).to eq ["waiting to be delivered: 1", '  online "ev", …', "dead letters: 0"]
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
    ["store", "other:x"] => [2, /unknown store "other:x".*\nUsage/],
    ["store"] => [2, /no store: expected a path or a URL\nUsage/],
    ["stores"] => [2, /unknown command "stores": expected `store'/],
    %w[store a b] => [2, /2 stores: expected one/],
    ["store", "--no-such"] => [2, /invalid option: --no-such/]
  }.each do |argv, (status, message)|
    it "prints what is wrong with `#{argv.join(" ")}'" do
      process = online_manager(*argv)

      expect([process.status.exitstatus, process.stderr, process.stdout]).to match [status, message, ""]
    end
  end

  it "prints its usage and its version" do
    expect(online_manager("--help").stdout).to start_with(described_class::USAGE).and include("--requeue")
    expect(online_manager("--version").lines).to eq [OnlineManager::VERSION]
  end
end
