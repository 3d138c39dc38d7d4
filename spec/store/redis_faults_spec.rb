# frozen_string_literal: true

Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# What can go wrong with Redis and on the way there, while processes use it. The sizes are small here; `rake soak` has
# the large ones.
RSpec.describe Stores::Redis do
  include_context "with servers of Redis"

  size = ->(name, default) { Integer(ENV.fetch("REDIS_#{name}", default)) }

  # @param leaving [Array] who will fall silent
  # @return [Stores::Application] with three processes; 10 users stay, and those are there too
  def deploy_with_users(store, leaving: users(5, "leaving"), timeout: 2, **settings)
    application = deploy(store, timeout:, **settings)
    application.start_all(3)
    application.crowd.come(users(10) + leaving)
    application.expect_all(users(10) + leaving, :online)
    application.expect_committed(10 + leaving.size)
    application.lease_holders
    application
  end

  # Heartbeats are answered in every process, at once.
  def expect_heartbeats(application)
    application.serving.each { |one| expect(one.ask("Array.new(100) { manager.seen(0) }.uniq")).to eq [true] }
  end

  # Nobody goes offline but these, and each of them does once.
  def expect_only_offline(application, leaving)
    application.expect_all(leaving, :offline)
    throughout(application.timeout * 1.5) do
      offline = application.transitions.select { |line| line.kind == :offline }
      expect(offline.map(&:id)).to match_array(leaving.map { |id| Stores::Log.token(id) })
    end
  end

  # Others come and go as ever, and all processes know of them.
  def expect_to_work(application)
    application.crowd.come(users(5, "late"))
    application.expect_all(users(5, "late"), :online)
    application.serving.each do |worker|
      eventually { expect(worker.ask("manager.online_users")).to match_array application.crowd.present }
    end
    application.store.check
  end

  describe "that dies" do
    # So many seconds.
    away = size["AWAY", 1]

    # Those who beat in one process only, which dies with the server.
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
      it "is used again #{name}: nobody who beats goes offline, and who leaves meanwhile does so once", limit: 120 do
        server = serve(appendonly: "yes")
        application = deploy_with_ghosts(server)
        server.restart(with_data:) do
          application.kill(application.workers.last)
          application.log.append(:lost) unless with_data
          application.crowd.fall_silent(users(5, "leaving"))
          wait_until(limit: 20) { (application.serving.map(&:pid) - application.store_errors.map(&:pid)).empty? }
          throughout(away) { expect_heartbeats(application) }
        end

        # Of ghosts nobody knows any more.
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
      expect_to_work(application)
      expect_good_end(application)
    end

    it "is used as ever after SCRIPT FLUSH", limit: 120 do
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

    # What Redis' own failover may do: the replica has not heard of the last second.
    it "is used again when a replica takes its place that lacks the last second", limit: 120 do
      server = serve
      line = stand_before(server)
      replica = serve(replicaof: "127.0.0.1 #{line.port}")
      way = stand_before(server)
      wait_until(limit: 20) { replica.cli("INFO", "replication").include?("master_link_status:up") }
      application = deploy_with_users(described_class.new(server, url: server.url(port: way.port)))

      line.stop
      application.crowd.come(last = users(5, "last"))
      application.expect_all(last, :online)
      application.expect_committed(20)
      application.log.append(:lost)
      # Also of whom the new one has never heard, and never would by a heartbeat.
      leaving = users(5, "leaving") + last.first(2)
      application.crowd.fall_silent(leaving)
      server.kill
      replica.cli("REPLICAOF", "NO", "ONE")
      expect(application.store.count_on(replica)).to eq 15
      way.lead_to(replica.port)

      expect_only_offline(application, leaving)
      application.expect_all(users(10) + last.drop(2), :online)
      expect_heartbeats(application)
      expect_good_end(application, repeats: "anywhere")
    end
  end

  describe "that is away for three timeouts" do
    it "sets nobody offline until one timeout after its return, and the processes keep no more than the latest beats",
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
      # The clocks are not the same.
      offline_at = application.log.lines(:offline).map { |line| line.at - returned_at }
      expect(offline_at).to all be >= application.timeout - 0.1
      expect(expect_good_end(application)).to have_attributes(repeats: 0)
    end
  end

  describe "on a bad way" do
    # @return [Array] an application, and what its processes reach the server through
    def deploy_behind_proxy(**settings)
      server = serve
      proxy = stand_before(server)
      [deploy_with_users(described_class.new(server, url: server.url(port: proxy.port)), **settings), proxy]
    end

    # They fall silent, and say so.
    def leave(application, users)
      application.crowd.fall_silent(users)
      application.workers.first.ask("args.each { |id| manager.leave(id) }", *users)
      application.expect_all(users, :offline, limit: 60)
    end

    # So many answers.
    spoilt = size["SPOILT", 4]

    ends = { drop: "breaks when it has done what it was asked for", halve: "answers half of what it should" }
    ends.each do |how, what|
      it "is tried again, and nothing doubled, when it #{what}, #{spoilt} times", limit: 120 + (spoilt * 4) do
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

    # Who beats is told of again after a third of the timeout, which has to be longer than a few answers take.
    it "is waited for, and nothing doubled, when it takes 2 s for each answer", limit: 180 do
      application, proxy = deploy_behind_proxy(timeout: 30)
      proxy.delay = 2
      application.crowd.come(users(10, "late"))
      application.expect_all(users(10, "late"), :online, limit: 60)
      leave(application, users(5, "late"))
      throughout(4) { expect_heartbeats(application) }
      proxy.delay = 0

      expect(application.transitions.size).to eq 30
      leave(application, application.crowd.present)
      expect(expect_good_end(application)).to have_attributes(transitions: 50, repeats: 0)
    end
  end

  describe "when owners of leases die or stand still" do
    kills = size["KILLS", 3]
    stops = size["STOPS", 1]
    sessions = size["SESSIONS", 2]

    it "misses none of #{100 * sessions * 2} transitions of 3 processes: #{kills} SIGKILL, #{stops} SIGSTOP",
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
