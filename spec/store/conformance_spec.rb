# frozen_string_literal: true

# Over 400 lines: one promise of the stores after the other, all with the same applications.

require "English"
Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# What every store must guarantee, in real processes. The judge (spec/support/store/judge.rb) reads the log of their
# callbacks. The sizes are small here; `rake soak` has the large ones.
[Stores::Sqlite, Stores::Redis, *Stores::Valkey.if_installed].each do |kind|
  RSpec.describe "A store: #{kind}" do
    include_context "with applications on a store", kind

    size = ->(name, default) { Integer(ENV.fetch("STORE_#{name}", default)) }

    describe "with 4 processes" do
      crowd = size["USERS", 200]

      it "delivers each transition once for #{crowd} users with heartbeats at random processes", limit: 60 + crowd do
        application = deploy(timeout: 2)
        workers = application.start_all(4)
        application.crowd.churn(users(crowd), silence_rate: 0.5, max_sessions: 2, arrivals: crowd / 5)
        application.crowd.churn_out

        expect(expect_good_end(application)).to have_attributes(transitions: crowd * 4, repeats: 0)
        holders = [kind::PARTITIONS, workers.size].min
        expect(application.transitions.map(&:pid).uniq.size).to eq holders
        expect(workers.count(&:lease_holder?)).to eq holders
      end

      it "causes no transition in a rolling restart", limit: 60 do
        application = deploy(timeout: 2, together: true)
        workers = application.start_all(4)
        application.crowd.come(users(100))
        application.expect_all(users(100), :online)

        workers.zip([nil, :TERM].cycle) do |worker, signal|
          ended = worker.finish(signal)
          expect(signal ? ended.status.termsig : ended.status.exitstatus).to eq(signal ? Signal.list["TERM"] : 0)
          application.start
        end
        throughout(application.timeout * 1.5) { expect(application.transitions.size).to eq 100 }

        expect(expect_good_end(application)).to have_attributes(transitions: 200, repeats: 0)
      end
    end

    describe "when processes die" do
      # With many lease holders, each has fewer events, and it takes longer until one of them dies.
      kills = size["KILLS", kind::PARTITIONS == 1 ? 3 : 1]
      points = %i[first middle last returned]
      # These processes have finished their callback, and have not committed it.
      without_commit = points.drop(1).map(&:to_s)

      it "loses nothing of lease holders killed at the #{points[..-2].join(", ")} line of a callback, or before the " \
         "commit: #{kills} of each", limit: 90 + (kills * 40) do
        application = deploy(timeout: 2)
        application.start_all(3)
        application.crowd.churn(users(kills * 800), arrivals: 2)

        (points * kills).each_with_index do |point, index|
          Progress.at(index, kills * points.size)
          # The first kill at each point comes in the middle of a batch.
          application.crowd.come(users(300, "crowd #{index}")) if index < points.size
          holder = application.lease_holder
          holder.ask("die_at(*args)", point, index < points.size ? rand(300 / application.lease_holders.size) : rand(4))
          wait_until(limit: 30) { holder.process.status }
          expect(holder.process.status.termsig).to eq Signal.list["KILL"]
          application.start
          # The next holder has to get past the callback in which the last one died.
          killed = application.log.lines(:killed).last
          wait_until(limit: 30) do
            application.transitions(repeats: true).any? { |line| line.id == killed.id && line.at > killed.at }
          end
        end

        report = expect_good_end(application)
        expect(report.kills).to eq(points.to_h { |point| [point.to_s, kills] })
        killed = application.log.lines(:killed).select { |line| without_commit.include?(line.detail) }.map(&:pid)
        expect(report.repeats_of.values_at(*killed.map(&:to_s))).to all be_positive
        expect(report.repeats).to eq report.repeats_of.values.sum
      end

      # Seconds for which no process runs. STORE_DEAD=60 is the size in `rake soak`.
      dead = size["DEAD", 3]

      # @return [Stores::Application] with 30 users online
      def deploy_with_users(**settings)
        application = deploy(**settings)
        application.start_all(2)
        application.crowd.come(users(30))
        application.expect_all(users(30), :online)
        application.expect_committed(30)
        application
      end

      it "sets offline exactly those who do not come back when all were killed and one starts again: with " \
         "heartbeats at once, and without any", limit: 60 + dead do
        some_return = deploy_with_users
        none_returns = deploy_with_users(together: true)
        [some_return, none_returns].each { |application| application.workers.each { |one| application.kill(one) } }
        some_return.crowd.fall_silent(users(30).last(20))
        none_returns.crowd.fall_silent(users(30))
        throughout(dead) { expect([some_return, none_returns].map { |one| one.transitions.size }).to eq [30, 30] }

        none_returns.start(start: false)
        some_return.start
        some_return.expect_all(users(30).last(20), :offline)
        none_returns.expect_all(users(30), :offline)
        throughout(some_return.timeout * 1.5) { expect(some_return.transitions.size).to eq 50 }

        expect([expect_good_end(some_return), expect_good_end(none_returns)])
          .to all have_attributes(transitions: 60, repeats: 0)
      end
    end

    describe "when the lease holder pauses for longer than its lease" do
      # Pauses it, and returns the process that has taken over.
      def pause_lease_holder(application, holder)
        application.pause(holder)
        application.lease_holders.first
      end

      # Waits until it knows that it has lost its lease. With many leases, it then gets its share of them again.
      define_method(:expect_late) do |application, holder|
        wait_until { !holder.lease_holder? } if kind::PARTITIONS == 1
        application.lease_holders
      end

      it "lets another process take over, and the old one's remaining calls carry an older version", limit: 90 do
        application = deploy(timeout: 2)
        old = application.start
        application.lease_holder
        FileUtils.touch(gate = application.flag("gate"))
        old.ask("block_callback(*args)", "held", gate)
        application.crowd.come(["held", *users(10)])
        wait_until { application.log.lines(:held).any? }
        application.start
        expect(pause_lease_holder(application, old)).not_to be old
        application.expect_all(["held", *users(10)], :online)
        application.crowd.fall_silent(["held"])
        application.expect_all(["held"], :offline)

        File.delete(gate)
        old.resume
        wait_until { application.transitions("held", repeats: true).size == 3 }
        online, offline, late = application.transitions("held", repeats: true)
        expect(late).to have_attributes(kind: :online, pid: old.pid, version: online.version)
        expect(late.version).to be < offline.version
        expect_late(application, old)
        expect(expect_good_end(application).repeats_of.fetch(old.pid.to_s)).to be_positive
      end

      stops = size["STOPS", 1]

      it "loses nothing under load, #{stops} times", limit: 60 + (stops * 15) do
        application = deploy(timeout: 2, together: true)
        application.start_all(3)
        application.crowd.churn(users(200 + (stops * 200)), arrivals: 3)
        stops.times do |number|
          Progress.at(number, stops)
          application.expect_all(users(10), :online) if number.zero?
          old = application.lease_holder
          expect(pause_lease_holder(application, old)).not_to be old
          old.resume
          expect_late(application, old)
        end
        expect_good_end(application)
        expect(application.log.lines(:stopped).size).to eq stops
      end

      takeovers = size["TAKEOVERS", 1]

      # It believes that it still has its leases, and nobody has them.
      it "holds the leases again when the process that took over has stopped and it is resumed, #{takeovers} times",
         limit: 60 + (takeovers * 30) do
        application = deploy(timeout: 3)
        holder = application.start
        application.crowd.come(users(10) + passing = users(10, "passing"))
        application.expect_all(users(10) + passing, :online)
        takeovers.times do |round|
          Progress.at(round, takeovers)
          application.lease_holders
          application.pause(holder)
          other = application.start
          wait_until(limit: 20) { application.store.shared_by?(1) && other.lease_holder? }
          # It must not bring them back.
          application.crowd.fall_silent(passing)
          application.expect_all(passing, :offline)

          other.finish
          holder.resume
          wait_until(limit: 5) { application.store.shared_by?(1) && holder.lease_holder? }
          application.crowd.come(passing = users(10, "passing #{round}"))
          application.expect_all(passing, :online)
        end
        expect_good_end(application)
        application.store.check
      end
    end

    describe "when callbacks raise" do
      # Seconds. STORE_OUTAGE=180 is the size in `rake soak`.
      outage = size["OUTAGE", 6]

      # Raises while the file `away` exists, and for some users always.
      away = '->(at, *) { raise IOError, "it is away" if at == :first && File.exist?("#{folder}/away") }' # rubocop:disable Lint/InterpolationCheck
      poison = '->(at, _, id) { raise ArgumentError, "not this one" if at == :first && id.to_s.start_with?("poison") }'

      # @return [Stores::Application] an application whose database is down, so that every callback raises
      define_method(:deploy_without_database) do
        application = deploy(hook: away)
        FileUtils.touch(application.flag("away"))
        application.start_all(2)
        application
      end

      # An application in which one user's callback raises, and others' callbacks do not.
      define_method(:deploy_poisoned) do
        application = deploy(hook: poison)
        application.start_all(2).first.ask('manager.seen("poison", timeout: 600)')
        application.crowd.churn(users(20), max_sessions: 1_000)
        application
      end

      # Three sessions of each user, none of which is delivered yet.
      def come_and_leave(application, ids)
        worker = application.workers.first
        ["manager.seen_all(args)", "args.each { |id| manager.leave(id) }"].cycle(3).with_index(1) do |code, count|
          worker.ask(code, *ids)
          worker.ask("wait { manager.stats[:waiting] == args.first }", count * ids.size)
        end
      end

      # Expects the numbers of waiting events and of dead letters.
      def expect_undelivered(application, waiting, dead)
        eventually(limit: 10) do
          expect(application.lease_holder.ask("manager.stats.values_at(:waiting, :dead_letters)")).to eq [waiting, dead]
        end
      end

      # @return the dead letters and the retries of all processes together
      def dead_letters_and_retries(application)
        %i[dead_letters retries].zip(%i[first sum]).map do |name, method|
          application.serving.map { |worker| worker.ask("manager.stats[args.first]", name) }.public_send(method)
        end
      end

      # Expects that the poisoned user's callback was called 5 times, with others' calls in between.
      def expect_one_given_up(application)
        wait_until(limit: 60) { dead_letters_and_retries(application) in [1, 4..5] }
        expect_good_end(application, { "poison" => 0 })

        lines = application.log.lines(:error, :online, :offline)
        errors = lines.reject(&:transition?).map { |line| [line.id, line.detail] }
        expect(errors).to eq [['"poison"', "ArgumentError: not this one"]] * 5
        expect(lines.each_cons(2)).to all(satisfy { |both| both.any?(&:transition?) })
      end

      it "calls the others' callbacks while those of 20 users always raise, and gives these up", limit: 120 do
        application = deploy(hook: poison)
        poisoned = users(20, "poison")
        worker = application.start
        worker.ask("manager.seen_all(args, timeout: 600)", *poisoned)
        eventually { expect(application.log.lines(:error).size).to be >= 5 }
        worker.ask("start_heartbeats(args)", *users(5))
        application.expect_all(users(5), :online, limit: 40)
        application.start # after which the events of the poisoned users may be fetched anew
        application.crowd.churn(users(20, "other"), max_sessions: 1_000)
        eventually(limit: 60) { expect(worker.ask("manager.stats[:dead_letters]")).to eq 20 }
        worker.ask("stop_heartbeats")
        application.expect_all(users(5), :offline)
        sessions = { poisoned => 0, users(5) => 1 }.flat_map { |ids, count| ids.map { |id| [id, count] } }
        expect_good_end(application, sessions.to_h)
      end

      it "gives up a user who fails 5 times while others succeed without a delay; and nobody while all of them " \
         "fail, for #{outage} s", limit: 120 + (outage * 2) do
        # Both applications run at the same time, since each takes long.
        poisoned = deploy_poisoned
        stalled = deploy_without_database
        stalled.workers.last.ask("manager.seen_all(args, timeout: 600)", *users(10))

        began = Wait.monotonic
        mended = deploy_without_database
        come_and_leave(mended, users(10))
        throughout([outage - (Wait.monotonic - began), 0].max) { expect(mended.transitions).to be_empty }
        expect_undelivered(mended, 60, 0)
        File.delete(mended.flag("away"))
        wait_until(limit: 70 + outage) { mended.transitions.size == 60 }
        expect_undelivered(mended, 0, 0)
        expect(expect_good_end(mended, users(10).to_h { |id| [id, 3] })).to have_attributes(repeats: 0)
        expect(mended.log.lines(:error).map(&:detail).uniq).to eq ["IOError: it is away"]

        expect_one_given_up(poisoned)
        expect(stalled.log.lines(:error).size).to be >= 5
        expect_undelivered(stalled, 10, 0)
      end
    end

    describe "when a process forks" do
      forks = size["FORKS", 20]

      it "works in the parent and in the child: #{forks} forks under load", limit: 60 + (forks * 2) do
        application = deploy(timeout: 2)
        parent, = application.start_all(2)
        own = users(10, "parent's")
        parent.ask("start_heartbeats(args)", *own)
        application.crowd.come(users(100))
        application.expect_all(own + users(100), :online)

        parent.ask(<<~RUBY, (0...forks).to_a)
          forkers = args.first.partition { |number| number % 4 < 2 }.map { |part| Thread.new { fork_children(part) } }
          Thread.new { puts "forks done" if forkers.each(&:join) }
        RUBY
        parent.wait_for("forks done", limit: 40 + (forks * 2))
        expect(parent.process.lines.grep(/^child/)).to be_empty
        expect(application.transitions.map(&:id).tally.values_at(*own.map { |id| Stores::Log.token(id) })).to all eq 1

        parent.ask("stop_heartbeats")
        children = Array.new(forks) { |number| "child #{number}" }
        application.expect_all(own + children, :offline)
        expect_good_end(application, (own + children).to_h { |id| [id, 1] })
        application.store.check
      end

      # The master of a preloading server (Puma, Unicorn) whose boot takes so long that it participates without a
      # heartbeat.
      it "takes the lease from a master without heartbeats once it has forked", limit: 60 do
        application = deploy
        master = application.start(start: false)
        expect(application.lease_holder).to be master

        children = master.ask("args.map { |user| fork_heartbeat_child(user) }", "ann", "ben")
        application.expect_all(%w[ann ben], :online)
        expect(application.transitions.map(&:pid) - children).to be_empty
        throughout(application.timeout) { expect(master).not_to be_lease_holder }

        # The master sets nobody offline either.
        children.each do |pid|
          application.log.append(:killed, pid:, detail: "outside")
          master.ask("Process.kill(:KILL, args.first) and Process.wait(args.first)", pid)
        end
        throughout(application.timeout * 3) { expect(application.transitions.size).to eq 2 }
        expect(master).not_to be_lease_holder

        application.start
        application.expect_all(%w[ann ben], :offline)
        expect_good_end(application, { "ann" => 1, "ben" => 1 })
      end

      it "raises an error after Process.daemon that says to call it before the first heartbeat", limit: 60 do
        application = deploy
        worker = application.start
        # The answer comes from the daemon, which is in no process group that the spec could end.
        message = worker.ask(<<~RUBY)
          manager.seen("ann")
          Process.daemon(true, true)
          Thread.new { sleep 20 and exit! }
          begin
            manager.seen("ben")
          rescue OnlineManager::Error => e
            e.message
          end
        RUBY
        expect(message).to match(/daemon/i)
      end
    end

    describe "for ids" do
      ids = ["with spaces", "new\nline", "nul\0", "", "x" * 10_000, "\xFF\xFE".b, "é", "é".b, :é, "\xFF", -1, 0, 2**62,
             1, "1", :"1", :"two words", "two words"]

      # An id with its type and encoding, which must survive the way to another process.
      def whole(ids) = ids.map { |id| [id, id.is_a?(String) ? id.encoding : id.class] }

      it "distinguishes all kinds of ids in every process", limit: 60 do
        application = deploy
        here, there = application.start_all(2)
        here.ask("manager.seen_all(args)", *ids)
        application.expect_all(ids, :online)
        eventually { expect(whole(there.ask("manager.online_users"))).to match_array(whole(ids)) }
        expect(there.ask("args.map { |id| manager.online?(id) }", *ids, "2", :"3", 4))
          .to eq [*[true] * ids.size, false, false, false]

        application.expect_all(ids, :offline)
        expect_good_end(application, ids.to_h { |id| [id, 1] })
      end

      it "refuses other objects at the heartbeat" do
        worker = deploy.start
        [[7, 3], nil, 1.5, { a: 1 }, true].each do |id|
          ["manager.seen(args.first)", "manager.seen_all(args)", "config.heartbeat.call(*args)"].each do |heartbeat|
            expect { worker.ask(heartbeat, id) }.to raise_error(Stores::Worker::Raised, /ArgumentError.*/)
          end
        end
        expect(worker.ask("manager.seen(7)")).to be true
      end
    end

    describe "between processes" do
      it "returns the same answers in all of them, no matter which one got the heartbeat", limit: 60 do
        application = deploy
        workers = application.start_all(2)
        application.crowd.come(users(10))
        application.expect_all(users(10), :online)
        workers.each do |worker|
          eventually { expect(worker.ask("manager.online_users")).to match_array users(10) }
          expect(worker.ask("[manager.size, manager.online?(args.first), manager.online?(7_000)]", users(10).last))
            .to eq [10, true, false]
          seen = worker.ask("manager.last_seen(args.first)", users(10).last)
          expect(Time.now - seen).to be_between(0, application.timeout * 5)
        end
        expect_good_end(application)
        workers.each do |worker|
          eventually { expect(worker.ask("[manager.size, manager.last_seen(1)]")).to eq [0, nil] }
        end
      end

      it "lets a leave win over earlier heartbeats in another process", limit: 60 do
        application = deploy(timeout: 4)
        here, there = application.start_all(2)
        here.ask("manager.seen(7)")
        application.expect_all([7], :online)
        eventually { expect(there.ask("manager.online?(7)")).to be true }
        # That process need not write the heartbeat at once. And clocks are exact to 10 ms only.
        here.ask("manager.seen(7)")
        throughout(0.1) { expect(application.transitions.size).to eq 1 }
        expect(there.ask("manager.leave(7)")).to be true
        application.expect_all([7], :offline, limit: 3)
        throughout(application.timeout / 2) { expect(application.transitions.size).to eq 2 }
        expect_good_end(application, { 7 => 1 })
      end

      it "sets nobody offline for a heartbeat with a shorter timeout in another process", limit: 60 do
        application = deploy(timeout: 9)
        here, there = application.start_all(2)
        here.ask("manager.seen(1)")
        application.expect_all([1], :online)
        # Without word of the other process this one would write its heartbeats every 3 s.
        there.ask("manager.seen(1, timeout: 1)")
        throughout(4) do
          expect(here.ask("manager.seen(1) && [manager.online?(1), manager.online_users]")).to eq [true, [1]]
        end
        expect(application.transitions.map(&:kind)).to eq [:online]
      end

      it "brings nobody online who left in another process when the data are lost", limit: 60 do
        application = deploy(timeout: 3)
        here, there = application.start_all(2)
        here.ask("manager.seen_all(args)", 1, 2)
        application.expect_all([1, 2], :online)
        there.ask("manager.leave(1)")
        application.expect_all([1], :offline)
        application.expect_committed(1)
        # The processes have heard of it.
        eventually { expect([here, there].map { |worker| worker.ask("manager.online?(1)") }).to eq [false, false] }
        application.store.delete
        wait_until(limit: 10) { application.store_errors.map(&:pid).uniq.size == 2 }
        throughout(application.timeout) { here.ask("manager.seen(2)") }
        # `offline` may be called again.
        expect(application.transitions(1).map(&:kind).drop(1)).to all be :offline
        expect(application.transitions(2).last.kind).to eq :online
      end

      it "keeps namespaces apart", limit: 60 do
        application = deploy
        here = application.start
        there = application.start(namespace: "#{application.store.options[:namespace]}, too")
        here.ask("manager.seen(7, timeout: 60)")
        application.expect_all([7], :online)
        throughout(application.timeout) { expect(there.ask("manager.online_users")).to be_empty }
        expect([here, there].map(&:lease_holder?)).to eq [true, true]
        expect_good_end(application, { 7 => 1 }, online: [7])
      end

      it "flushes unwritten heartbeats at the end of a process", limit: 60 do
        application = deploy
        passing, = application.start_all(2)
        passing.ask("manager.seen_all(args)", *users(100))
        passing.finish
        application.expect_all(users(100), :offline)
        expect(expect_good_end(application, users(100).to_h { |id| [id, 1] })).to have_attributes(repeats: 0)
      end
    end

    it "lets nobody expire early or stay online when the wall clock is stepped by an hour", limit: 60 do
      skip "libfaketime is not installed" unless Stores::WallClock::LIBRARY

      application = deploy(own_clock: true)
      workers = application.start_all(2)
      clocks = "[Time.now.to_f, now, Process.clock_gettime(Process::CLOCK_BOOTTIME)]"
      application.crowd.come(users(10))
      application.expect_all(users(10), :online)

      [[1, 1], [-1, -2], [0, 1]].each_with_index do |(hours, moved), round|
        application.crowd.come(["passing"])
        application.expect_all(["passing"], :online)
        application.crowd.fall_silent(["passing"])

        before = workers.map { |worker| worker.ask(clocks) }
        application.wall_clock.step(hours)
        workers.zip(before) do |worker, times|
          steps = worker.ask(clocks).zip(times).map { |after, earlier| ((after - earlier) / 3_600).round }
          expect(steps).to eq [moved, 0, 0]
        end

        application.expect_all(["passing"], :offline)
        throughout(application.timeout) { expect(application.transitions.size).to eq(12 + (2 * round)) }
      end
      expect(expect_good_end(application)).to have_attributes(transitions: 26, repeats: 0)
    end
  end
end
