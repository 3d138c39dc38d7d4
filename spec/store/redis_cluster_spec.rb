# frozen_string_literal: true

Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# Redis Cluster: each partition is on one of several servers, and can move to another.
RSpec.describe "A store on a Redis Cluster" do
  include_context "with servers of Redis"

  failovers = Integer(ENV.fetch("REDIS_FAILOVERS", 1))

  # @return [Stores::RedisCluster] a cluster that keeps serving its remaining slots when some are down
  def start_cluster(**settings)
    stop_later(Stores::RedisCluster.new(cluster_require_full_coverage: "no", **settings)).start
  end

  it "serves the other masters' partitions when one dies, and the rest when its replica has taken over: " \
     "#{failovers} times", limit: 90 + (failovers * 60) do
    cluster = start_cluster(node_timeout: 1_000)
    application = deploy(Stores::Redis.new(cluster), timeout: 2)
    application.start_all(3)
    application.crowd.come(users(60))
    application.expect_all(users(60), :online)
    expect(cluster.masters.map { |master| application.store.count_on(master) }).to all be_positive
    application.lease_holders

    failovers.times do |number|
      Progress.at(number, failovers)
      guests = users(60, "guest #{number}")
      application.expect_committed(60)
      cluster.wait_for_replicas
      master = cluster.masters.rotate(number).first
      replica = cluster.replica_of(master)
      cut_off, others = guests.partition do |user|
        store = application.store
        cluster.server_of(store.slot_of(store.partition_of(user))) == master
      end
      expect([cut_off.size, others.size]).to all be > 5

      # No replica takes over while it is paused.
      replica.pause
      master.kill
      application.crowd.come(guests)
      application.expect_all(others, :online)
      application.crowd.fall_silent(others)
      application.expect_all(others, :offline)
      expect(application.log.states.values_at(*cut_off.map { |user| Stores::Log.token(user) })).to all be_nil

      replica.resume
      application.expect_all(cut_off, :online)
      expect(cluster.master?(replica)).to be true
      application.crowd.fall_silent(cut_off)
      application.expect_all(cut_off, :offline)
      # None of the users who stayed has gone offline meanwhile.
      expect(application.transitions.size).to eq(60 + ((number + 1) * 120))
      master.start
    end

    expect(expect_good_end(application)).to have_attributes(repeats: 0)
    application.store.check
  end

  it "serves the other masters' partitions in time while one master stands still", limit: 120 do
    cluster = start_cluster(node_timeout: 60_000)
    application = deploy(Stores::Redis.new(cluster), timeout: 2)
    application.start_all(3)
    application.crowd.come(users(60))
    application.expect_all(users(60), :online)
    application.expect_committed(60)
    master = cluster.masters.last
    store = application.store
    others = users(60).reject { |user| cluster.server_of(store.slot_of(store.partition_of(user))) == master }
    expect([others.size, 60 - others.size]).to all be > 5

    master.pause
    # The first call that waits for it takes a second, and may cost leases. After that each guest goes offline in time.
    throughout(4) { application.serving.each { |worker| worker.ask("nil") } }
    3.times do |number|
      guests = users(120, "guest #{number}").reject do |user|
        cluster.server_of(store.slot_of(store.partition_of(user))) == master
      end
      application.crowd.come(guests)
      application.expect_all(guests, :online, limit: 3)
      application.crowd.fall_silent(guests)
      # The timeout, an eighth of it for the heartbeat before, and time for a busy machine.
      application.expect_all(guests, :offline, limit: 6)
    end
    expect(application.log.states.values_at(*others.map { |user| Stores::Log.token(user) })).to all be :online

    master.resume
    expect(expect_good_end(application)).to have_attributes(repeats: 0)
    application.store.check
  end

  it "is reached by TLS with a certificate that is itself in the ca_file" do
    cluster = start_cluster(tls: :self_signed)
    application = deploy(Stores::Redis.new(cluster, url: cluster.url.map { |url| "#{url}?ca_file=#{cluster.ca_file}" }))
    application.start
    application.crowd.come(users(40))
    application.expect_all(users(40), :online)
    expect(expect_good_end(application)).to have_attributes(transitions: 80, repeats: 0)
  end

  it "follows slots that are moved to another master", limit: 150 do
    cluster = start_cluster
    application = deploy(Stores::Redis.new(cluster), timeout: 5)
    application.start_all(2)
    application.crowd.churn(users(40), max_sessions: 2, silence_rate: 0.3)
    application.expect_all(users(40), :online)
    application.lease_holders
    (0...Stores::Redis::PARTITIONS).each { |partition| cluster.move(application.store.slot_of(partition)) }
    application.crowd.churn_out(limit: 75)
    expect(expect_good_end(application)).to have_attributes(repeats: 0)
    application.store.check
  end

  it "is shown by the operators' command" do
    cluster = start_cluster
    application = deploy(Stores::Redis.new(cluster))
    application.start.ask("manager.seen_all(args, timeout: 60)", *users(40))
    application.expect_committed(40)
    [cluster.url, [cluster.url.last, "--cluster"]].each do |words|
      process = command(RbConfig.ruby, "-I#{RubyProcess::ROOT}/lib", "#{RubyProcess::ROOT}/exe/online_manager", "store",
                        *words, "--namespace", application.store.namespace)
      expect(process.stderr).to eq ""
      expect(process.stdout).to match(/^online: +40\b/)
    end
  end
end
