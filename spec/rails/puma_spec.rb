# frozen_string_literal: true

require_relative "../support/rails/example_app"
require_relative "../support/store/redis"

RSpec.describe "The example application in Puma" do
  context "in each way to boot it" do
    timeout = 2
    # Seconds. Several heartbeats within a timeout.
    interval = timeout / 6.0
    ways = {
      "a single process" => { workers: 0 },
      "a cluster of 2 with preload_app!" => { workers: 2, preload: true },
      "a cluster of 2 without preload_app!" => { workers: 2, preload: false }
    }

    before(:context) do
      # With a log line for each heartbeat of a channel, in every version of Rails.
      @apps = ways.transform_values { ExampleApp.new(timeout:, env: { "RAILS_LOG_LEVEL" => "debug" }) }
      @servers = @apps.to_h { |way, app| [way, Thread.new { app.boot(**ways[way]) }] }.transform_values(&:value)
    end

    after(:context) { @apps.each_value(&:remove) }

    after do
      @servers.each_value(&:dismiss)
      @apps.each_value { |app| eventually(limit: 15) { expect(app.online).to eq [] } }
    end

    # A callback is logged after its return, so shortly after its row has changed.
    def expect_history(app, names, history)
      eventually { expect(app.history(*names).values).to all(eq(history)) }
    end

    # Runs the block for each application in parallel, since most of the time is waiting.
    def each_way
      threads = @apps.map do |way, app|
        Thread.new do
          Thread.current.report_on_exception = false
          yield app, @servers[way]
        rescue RSpec::Expectations::ExpectationNotMetError => e
          raise e.class, "as #{way}: #{e.message}", e.backtrace
        end
      end
      threads.each(&:value)
    ensure
      threads&.each(&:kill)
    end

    it "sets users online by heartbeats over WebSocket and HTTP, and offline without them on an open socket",
       limit: 90 do
      each_way do |app, server|
        on_sockets = server.visitors_everywhere("socket")
        over_http = Array.new(2) { |index| server.visitor("http#{index}") }
        visitors = on_sockets + over_http
        names = visitors.map(&:name).sort
        expect(app.online).to eq [] # nobody has sent a heartbeat

        on_sockets.each { |visitor| visitor.send_heartbeats_every(interval) }
        over_http.each { |visitor| visitor.send_heartbeats_every(interval, over: :http) }
        eventually(limit: 15) { expect(app.online).to eq names }
        versions = app.users.transform_values { |user| user[:presence_version] }
        throughout(timeout * 1.5) { expect(app.online).to eq names }
        expect(JSON.parse(over_http.first.get("/online.json").body)).to eq("online" => names, "online_now" => names)
        expect(app.users.transform_values { |user| user[:presence_version] }).to eq versions

        visitors.each(&:silence)
        eventually(limit: 15) { expect(app.online).to eq [] }
        expect(on_sockets.flat_map(&:cables)).to all(be_open)
        expect_history(app, names, [%i[online heartbeat], %i[offline timeout]])
        expect(app.users.values_at(*names)).to all(satisfy { |user| user[:presence_version] > versions[user[:name]] })
      end
    end

    it "sets a user offline half a timeout after the subscription or socket has ended", limit: 90 do
      each_way do |app, server|
        visitors = server.visitors_everywhere("leaving")
        names = visitors.map(&:name).sort
        visitors.each { |visitor| visitor.cables.first.heartbeat }
        eventually(limit: 15) { expect(app.online & names).to eq names }

        # So that their timeouts are far away. ActionCable may process quick messages of a client in another order.
        heartbeats = -> { app.log.scan("HeartbeatChannel#heartbeat").size }
        known = heartbeats.call
        visitors.each { |visitor| visitor.cables.first.heartbeat }
        eventually { expect(heartbeats.call).to eq(known + visitors.size) }
        left_at = Time.now
        unsubscribing, *closing = visitors
        unsubscribing.cables.first.unsubscribe
        closing.each { |visitor| visitor.cables.first.close }
        eventually(limit: 15) { expect(app.online).to eq [] }
        expect_history(app, names, [%i[online heartbeat], %i[offline leave]])
        ends = app.transitions.select { |each| names.include?(each.user) && each.kind == :offline }
        expect(ends.map { |each| each.at - left_at }).to all(be >= timeout / 2.0)
      end
    end

    it "keeps a user online who has another tab open or comes back soon", limit: 90 do
      each_way do |app, server|
        with_two_tabs = server.visitor("two tabs")
        with_two_tabs.cable.heartbeat
        reloading = server.visitor("reload")
        [with_two_tabs, reloading].each do |visitor|
          visitor.cable
          visitor.send_heartbeats_every(interval)
        end
        eventually(limit: 15) { expect(app.online).to eq ["reload", "two tabs"] }

        with_two_tabs.cables.first.close
        reloading.cables.first.close
        throughout(timeout * 1.2) { expect(app.online).to eq ["reload", "two tabs"] }
        expect(app.history("reload", "two tabs").values).to all(eq([%i[online heartbeat]]))
      end
    end
  end

  context "when processes end" do
    timeout = 3
    interval = timeout / 10.0

    before { @app = ExampleApp.new(timeout:, store:) }

    after { @app.remove }

    let(:store) { nil }

    # @return [Array<Visitor>] visitors who send heartbeats and are online in the database
    def visitors_with_heartbeats(server, interval)
      visitors = server.visitors_everywhere("user")
      visitors.each { |visitor| visitor.send_heartbeats_every(interval) }
      eventually { expect(@app.online).to eq visitors.map(&:name).sort }
      visitors
    end

    it "changes no user in a phased restart", limit: 120 do
      server = @app.boot(workers: 2, preload: false)
      visitors = visitors_with_heartbeats(server, interval)
      names = visitors.map(&:name).sort
      before = server.pids

      restart = Thread.new do
        server.signal(:USR1)
        server.wait_for_workers(4)
      end
      throughout(0.1) { expect(@app.online).to eq names } while restart.alive?
      restart.join
      expect(server.pids & before).to eq []

      throughout(timeout * 1.2) { expect(@app.online).to eq names }
      expect(visitors.flat_map(&:cables)).to all(be_open)
      expect(@app.history(*names).values).to all(eq([%i[online heartbeat]]))
    end

    it "loses nobody when a worker is killed, whether they come back or not", limit: 120 do
      server = @app.boot(workers: 2)
      visitors = visitors_with_heartbeats(server, interval)
      names = visitors.map(&:name).sort
      gone = server.visitors_everywhere("gone")
      gone.each { |visitor| visitor.cables.first.heartbeat }
      eventually { expect(@app.online).to eq((names + gone.map(&:name)).sort) }

      Process.kill(:KILL, server.pids.first)
      server.wait_for_workers(3)
      eventually(limit: 20) { expect(@app.online).to eq names }
      throughout(timeout * 1.2) { expect(@app.online).to eq names }
      expect(@app.history(*names).values).to all(eq([%i[online heartbeat]]))
      # The whole history may differ: a callback during which the worker was killed is repeated.
      expect(@app.history(*gone.map(&:name)).values.map(&:last)).to all(eq(%i[offline timeout]))
    end

    [0, 2].each do |workers|
      it "ends well on SIGTERM as #{workers.zero? ? "a single process" : "a cluster"}, with nobody offline who is in " \
         "the store", limit: 120 do
        server = @app.boot(workers:)
        names = visitors_with_heartbeats(server, interval).map(&:name).sort

        server.signal(:TERM)
        status = server.finish.process.status
        expect(status.success? || status.termsig == Signal.list["TERM"]).to be true
        expect(server.process.stderr).to eq ""
        expect(@app.online).to eq names
        expect(@app.history(*names).values).to all(eq([%i[online heartbeat]]))
      end
    end

    context "with the store :memory" do
      let(:store) { "memory" }

      it "sets everybody offline on SIGTERM", limit: 120 do
        server = @app.boot
        names = visitors_with_heartbeats(server, interval).map(&:name).sort

        server.signal(:TERM)
        expect(server.finish.process.stderr).to eq ""
        expect(@app.online).to eq []
        expect(@app.history(*names).values).to all(eq([%i[online heartbeat], %i[offline stop]]))
      end
    end
  end

  context "with a store in Redis" do
    timeout = 2

    before do
      @redis = Stores::RedisServer.new.start
      @store = Stores::Redis.new(@redis, namespace: "")
      @app = ExampleApp.new(timeout:, store: @redis.url)
    end

    after do
      @app.remove
      @redis.stop
    end

    # Whether a process has a thread of the store, and whether it has a connection. (Two Ruby threads have the same
    # name: the reactor's and the watchdog's, which only wait.)
    def traces(pid)
      threads = Dir["/proc/#{pid}/task/*/comm"].map { |path| File.read(path) }.grep(/online_manager|tokio/)
      sockets = Dir["/proc/#{pid}/fd/*"].filter_map { |path| File.readlink(path)[/\Asocket:\[(\d+)\]/, 1] }
      there = format(":%04X", @redis.port)
      theirs = File.readlines("/proc/net/tcp").map(&:split).select { |row| row[2].end_with?(there) }
      [threads.size > 2, theirs.any? { |row| sockets.include?(row[9]) }]
    end

    it "has workers that deliver and a master without threads and connections, though it participated before it forked",
       limit: 120 do
      @app.edit("config/puma.rb") { |text| "#{text}before_fork { sleep 0.05 until File.exist?('tmp/fork') }\n" }
      booting = Thread.new { @app.boot(workers: 2) }
      wait_until(limit: ExampleApp::LIMIT) { @store.shares == [16] }
      @app.write("tmp/fork", "")
      server = booting.value
      expect(traces(master = server.process.pid)).to eq [false, false]
      # Puma would have warned about the threads.
      expect(server.process.lines.grep(/Thread.*online_manager/)).to be_empty

      visitors = Array.new(8) { |number| server.visitor("user#{number}") }
      visitors.each { |visitor| visitor.send_heartbeats_every(timeout / 6.0, over: :http) }
      names = visitors.map(&:name).sort
      eventually(limit: 15) { expect(@app.online).to eq names }
      eventually(limit: 15) { expect(@store.shares).to eq [8, 8] }
      expect([*server.pids, master].map { |pid| traces(pid) }).to eq [[true, true], [true, true], [false, false]]
      expect(@redis.cli("ZCARD", "{om:}:members")).to eq "2"

      visitors.each(&:silence)
      eventually(limit: 15) { expect(@app.online).to be_empty }
      eventually { expect(@app.history(*names).values).to all(eq([%i[online heartbeat], %i[offline timeout]])) }
      expect(@app.transitions.map(&:process) - server.pids).to be_empty
    end
  end
end
