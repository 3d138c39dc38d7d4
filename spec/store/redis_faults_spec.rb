# frozen_string_literal: true

Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# Faults of Redis and of the network while processes use it. The sizes are small here; `rake soak` has the large ones.
RSpec.describe Stores::Redis do
  include_context "with servers of Redis"

  size = ->(name, default) { Integer(ENV.fetch("REDIS_#{name}", default)) }

  # @param leaving [Array] users who will fall silent
  # @return [Stores::Application] three processes with 10 users who stay, and the leaving users
  def deploy_with_users(store, leaving: users(5, "leaving"), timeout: 2, **settings)
    application = deploy(store, timeout:, **settings)
    application.start_all(3)
    application.crowd.come(users(10) + leaving)
    application.expect_all(users(10) + leaving, :online)
    application.expect_committed(10 + leaving.size)
    application.lease_holders
    application
  end

  # Expects that heartbeats return at once in every process.
  def expect_heartbeats(application)
    application.serving.each { |one| expect(one.ask("Array.new(100) { manager.seen(0) }.uniq")).to eq [true] }
  end

  # Expects that only these users go offline, once each.
  def expect_only_offline(application, leaving)
    application.expect_all(leaving, :offline)
    throughout(application.timeout * 1.5) do
      offline = application.transitions.select { |line| line.kind == :offline }
      expect(offline.map(&:id)).to match_array(leaving.map { |id| Stores::Log.token(id) })
    end
  end

  # Expects that other users come and go as usual, and that all processes know of them.
  def expect_to_work(application)
    application.crowd.come(users(5, "late"))
    application.expect_all(users(5, "late"), :online)
    application.serving.each do |worker|
      eventually { expect(worker.ask("manager.online_users")).to match_array application.crowd.present }
    end
    application.store.check
  end

  describe "that dies" do
    # Seconds.
    away = size["AWAY", 1]

    # Users who sent heartbeats only to a process that dies with the server.
    ghosts = ["ghost 1", "ghost 2"]

    # @return [Stores::Application]
    define_method(:deploy_with_ghosts) do |server|
      application = deploy_with_users(described_class.new(server))
      application.start.ask("manager.seen_all(args)", *ghosts)
      application.expect_all(ghosts, :online)
      application.expect_committed(17)
      application
    end

    { true => "with its data", false => "without its data" }.each do |with_data, name|
      it "is used again #{name}: users with heartbeats stay online, and users who left go offline once", limit: 120 do
        server = serve(appendonly: "yes")
        application = deploy_with_ghosts(server)
        server.restart(with_data:) do
          application.kill(application.workers.last)
          application.log.append(:lost) unless with_data
          application.crowd.fall_silent(users(5, "leaving"))
          wait_until(limit: 20) { (application.serving.map(&:pid) - application.store_errors.map(&:pid)).empty? }
          throughout(away) { expect_heartbeats(application) }
        end

        # Nothing is left that knows the ghosts.
        expect_only_offline(application, users(5, "leaving") + (with_data ? ghosts : []))
        expect_to_work(application)
        expect_good_end(application, ghosts.to_h { |id| [id, 1] }, online: with_data ? [] : ghosts)
      end
    end

    it "is used again after FLUSHALL", limit: 120 do
      server = serve
      application = deploy_with_users(described_class.new(server))
      application.log.append(:lost)
      application.crowd.fall_silent(users(5, "leaving"))
      server.cli("FLUSHALL")
      expect_only_offline(application, users(5, "leaving"))
      expect(application.store_errors.map(&:pid)).to match_array(application.serving.map(&:pid))
      expect_to_work(application)
      expect_good_end(application)
    end

    it "is used as before after SCRIPT FLUSH", limit: 120 do
      server = serve
      application = deploy_with_users(described_class.new(server))
      application.crowd.fall_silent(users(5, "leaving"))
      3.times do
        server.cli("SCRIPT", "FLUSH")
        expect_heartbeats(application)
        throughout(0.3) { expect(application.transitions.select { |line| line.kind == :offline }.size).to be <= 5 }
      end
      expect_only_offline(application, users(5, "leaving"))
      expect_to_work(application)
      expect(expect_good_end(application)).to have_attributes(repeats: 0)
      expect(application.store_errors).to be_empty
    end

    # As Redis' own failover may do: the replica lacks the last second of writes.
    it "is used again when a replica that lacks the last second replaces it", limit: 120 do
      server = serve
      line = start_proxy(server)
      replica = serve(replicaof: "127.0.0.1 #{line.port}")
      way = start_proxy(server)
      wait_until(limit: 20) { replica.cli("INFO", "replication").include?("master_link_status:up") }
      application = deploy_with_users(described_class.new(server, url: server.url(port: way.port)))

      line.stop
      application.crowd.come(last = users(5, "last"))
      application.expect_all(last, :online)
      application.expect_committed(20)
      application.log.append(:lost)
      # Also the users that the new server has never stored, and who send no more heartbeats.
      leaving = users(5, "leaving") + last.first(2)
      application.crowd.fall_silent(leaving)
      server.kill
      replica.cli("REPLICAOF", "NO", "ONE")
      expect(application.store.count_on(replica)).to eq 15
      way.redirect_to(replica.port)

      expect_only_offline(application, leaving)
      application.expect_all(users(10) + last.drop(2), :online)
      expect_heartbeats(application)
      expect_good_end(application, repeats: "anywhere")
    end
  end

  describe "that refuses its user when it comes back" do
    {
      "since its password has been changed" => [["resetpass", ">changed"], ["resetpass", ">swordfish"],
                                                /Password authentication failed.*Check the user and the password/],
      "since it may not run a command any more" => [["-evalsha"], ["+evalsha"], /ACL SETUSER app \+evalsha/]
    }.each do |why, (taking, giving, message)|
      it "is reported again with what to do, and used again once it is accepted: #{why}", limit: 120 do
        server = serve
        set_user = ->(*rules) { server.cli("ACL", "SETUSER", "app", *rules) }
        set_user["on", ">swordfish", "~*", "+@all"]
        way = start_proxy(server)
        url = server.url(port: way.port).sub("127", "app:swordfish@127")
        application = deploy_with_users(described_class.new(server, url:))

        # Nothing listens there.
        way.redirect_to(1)
        wait_until(limit: 20) { application.store_errors.map(&:pid).uniq.size == 3 }
        application.crowd.fall_silent(users(5, "leaving"))
        set_user[*taking]
        way.redirect_to(server.port)
        reports = wait_until(limit: 20) do
          of_processes = application.store_errors.group_by(&:pid).values
          of_processes if of_processes.map(&:size) == [2, 2, 2]
        end
        expect(reports.map { |of_process| of_process.last.detail }).to all match(message)
        expect(reports.flatten.map(&:detail).grep(/swordfish/)).to be_empty
        throughout(application.timeout) { expect_heartbeats(application) }
        expect(application.transitions.select { |line| line.kind == :offline }).to be_empty

        set_user[*giving]
        expect_only_offline(application, users(5, "leaving"))
        expect_to_work(application)
        expect(application.store_errors.size).to eq 6
        expect_good_end(application)
      end
    end
  end

  describe "that is away for three timeouts" do
    it "sets nobody offline until one timeout after its return, and processes keep only the latest heartbeats",
       limit: 120 do
      server = serve(appendonly: "yes")
      application = deploy_with_users(described_class.new(server))
      known = application.crowd.present.size
      unwritten = "manager.instance_variable_get(:@native).status[:unwritten]"
      returned_at = nil
      server.restart(with_data: true) do
        application.crowd.fall_silent(users(5, "leaving"))
        throughout(application.timeout * 3) do
          application.serving.each { |worker| expect(worker.ask(unwritten)).to be <= known }
        end
        expect_heartbeats(application)
        expect(application.serving.sum { |worker| worker.ask(unwritten) }).to be >= 10
        expect(application.transitions.size).to eq known
        returned_at = Wait.monotonic
      end

      expect_only_offline(application, users(5, "leaving"))
      # The processes' clocks differ slightly.
      offline_at = application.log.lines(:offline).map { |line| line.at - returned_at }
      expect(offline_at).to all be >= application.timeout - 0.1
      expect(expect_good_end(application)).to have_attributes(repeats: 0)
    end
  end

  describe "on a bad way" do
    # @return [Array] an application, and the proxy through which its processes reach the server
    def deploy_behind_proxy(**settings)
      server = serve
      proxy = start_proxy(server)
      [deploy_with_users(described_class.new(server, url: server.url(port: proxy.port)), **settings), proxy]
    end

    # Users fall silent, and a leave is sent for each.
    def leave(application, users)
      application.crowd.fall_silent(users)
      application.workers.first.ask("args.each { |id| manager.leave(id) }", *users)
      application.expect_all(users, :offline, limit: 60)
    end

    # The number of spoilt answers.
    spoilt = size["SPOILT", 4]

    ends = { drop: "breaks when it has done what it was asked for", halve: "answers half of what it should" }
    ends.each do |how, what|
      it "is retried without doubling anything when it #{what}, #{spoilt} times", limit: 120 + (spoilt * 4) do
        application, proxy = deploy_behind_proxy
        application.crowd.churn(users(100, "passing"), max_sessions: 1 + (spoilt / 4), silence_rate: 0.3, arrivals: 10)
        spoilt.times do |number|
          Progress.at(number, spoilt)
          proxy.spoil(how, at: "EVALSHA")
          wait_until(limit: 20) { proxy.spoilt == number + 1 }
        end
        application.crowd.churn_out(limit: 60 + (spoilt * 2))
        expect(expect_good_end(application)).to have_attributes(repeats: 0)
        application.store.check
      end
    end

    # Each user is written again after a third of the timeout, which has to be longer than a few answers take.
    it "is waited for without doubling anything when each answer takes 2 s", limit: 180 do
      application, proxy = deploy_behind_proxy(timeout: 30)
      proxy.delay = 2
      application.crowd.come(users(10, "late"))
      application.expect_all(users(10, "late"), :online, limit: 60)
      leave(application, users(5, "late"))
      throughout(4) { expect_heartbeats(application) }
      proxy.delay = 0

      # The last heartbeats have just been sent in several processes, whose clocks are exact to 10 ms only.
      throughout(0.1) { expect(application.transitions.size).to eq 30 }
      leave(application, application.crowd.present)
      expect(expect_good_end(application)).to have_attributes(transitions: 50, repeats: 0)
    end
  end

  describe "whose connections are cut" do
    cuts = size["CUTS", 4]

    # Cuts each connection, in turn by the server and on the way, as soon as something is delivered: then its commit is
    # about to be sent, or on the way.
    def cut_under_load(application, server, proxy, cuts)
      cuts.times do |number|
        Progress.at(number, cuts)
        delivered = application.transitions.size
        wait_until(limit: 20) { application.transitions.size > delivered }
        number.even? ? server.cli("CLIENT", "KILL", "TYPE", "normal") : proxy.cut
        wait_until(limit: 20) { server.ask("CLIENT", "LIST", "TYPE", "normal").grep(/cmd=eval/).size >= 3 }
      end
    end

    # Expects that no event is left in the log, and that each process knows.
    def expect_nothing_left(application)
      server = application.store.server
      eventually do
        events = Array.new(16) { |number| Integer(server.cli("XLEN", application.store.key(number, :events))) }
        expect(events).to all be_zero
        expect(application.serving.map { |worker| worker.ask("manager.stats[:waiting]") }).to all be_zero
      end
    end

    it "loses and doubles nothing under load, #{cuts} times", limit: 120 + (cuts * 5) do
      server = serve
      proxy = start_proxy(server)
      application = deploy_with_users(described_class.new(server, url: server.url(port: proxy.port)))
      application.crowd.churn(users(100, "passing"), max_sessions: 1 + (cuts / 4), silence_rate: 0.3, arrivals: 10)
      cut_under_load(application, server, proxy, cuts)
      application.crowd.churn_out(limit: 60 + (cuts * 3))
      expect(expect_good_end(application)).to have_attributes(repeats: 0)
      expect_nothing_left(application)
      application.store.check
    end
  end

  describe "with several processes" do
    it "sets a user offline at once who leaves in another process than the one with the heartbeat" do
      application = deploy(described_class.new(serve), timeout: 20)
      one, other = application.start_all(2)
      application.lease_holders
      other.ask("manager.online?(99)")
      5.times do |id|
        one.ask("manager.seen(args[0])", id)
        application.expect_all([id], :online)
        other.ask("manager.leave(args[0])", id)
        application.expect_all([id], :offline, limit: 8)
      end
    end
  end

  describe "when lease holders die or pause" do
    kills = size["KILLS", 3]
    stops = size["STOPS", 1]
    sessions = size["SESSIONS", 2]

    it "loses none of #{100 * sessions * 2} transitions of 3 processes: #{kills} SIGKILL, #{stops} SIGSTOP",
       limit: 120 + ((kills + stops) * 15) + (sessions * 20) do
      application = deploy(timeout: 1)
      application.start_all(3)
      application.crowd.churn(users(100), max_sessions: sessions, silence_rate: 0.3, arrivals: 1)
      [*[:kill] * kills, *[:pause] * stops].shuffle.each_with_index do |how, number|
        Progress.at(number, kills + stops)
        holder = application.lease_holders.sample
        application.public_send(how, holder)
        how == :kill ? application.start : application.lease_holders && holder.resume
      end
      application.crowd.churn_out(limit: 60 + (sessions * 20))

      report = expect_good_end(application)
      expect(report.transitions).to eq(100 * sessions * 2)
      expect(report.kills).to eq(kills.zero? ? {} : { "outside" => kills })
      application.store.check
    end
  end
end
