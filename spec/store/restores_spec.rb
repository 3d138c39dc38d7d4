# frozen_string_literal: true

Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# Data of an hour before come back while processes live. One restore here; `rake soak` has more of them.
[Stores::Sqlite, Stores::Redis].each do |kind|
  RSpec.describe "A store that is restored: #{kind}" do
    include_context(kind == Stores::Redis ? "with servers of Redis" : "with applications on a store", kind)

    restores = Integer(ENV.fetch("STORE_RESTORES", 1))

    # The store, on a server of its own if it needs one.
    define_method(:new_store) { kind == Stores::Redis ? kind.new(serve) : kind.new }

    def come(application, users)
      application.crowd.come(users)
      application.expect_all(users, :online)
      expect_committed(application)
    end

    # Expects that every event is delivered and committed.
    def expect_committed(application) = application.expect_committed(application.crowd.present.size)

    def leave(application, users)
      application.crowd.fall_silent(users)
      application.expect_all(users, :offline)
      expect_committed(application)
    end

    # Makes a copy of the data in which an event waits that is then delivered, and replaces a process that has not
    # delivered it.
    #
    # @return [Object] see the store's `back_up`
    def back_up(application, user)
      FileUtils.touch(gate = application.flag("gate"))
      application.serving.each { |worker| worker.ask("block_callback(*args)", user, gate) }
      application.crowd.come([user])
      held = wait_until { application.log.lines(:held).find { |line| line.id == Stores::Log.token(user) } }
      copy = application.store.back_up
      File.delete(gate)
      application.expect_all([user], :online)
      application.serving.find { |worker| worker.pid != held.pid }.finish
      application.start
      copy
    end

    # Expects that each process has reported once that the data are older, whatever it found afterwards, and the outage
    # before that at most once.
    def expect_messages(application, before)
      errors = application.store_errors.drop(before)
      losses, others = errors.partition { |line| line.detail.match?(/its data are|replaced/) }
      expect(losses.map(&:pid)).to match_array(application.serving.map(&:pid))
      expect(others.map(&:pid).tally.values).to all eq 1
    end

    # Expects that nothing more happens, and that no process calls the store as fast as it can.
    def expect_quiet(application, before)
      rate = "manager.stats[:calls_per_second]"
      application.serving.each { |worker| worker.ask(rate) }
      transitions = application.transitions.size
      throughout(application.timeout) do
        expect_messages(application, before)
        expect(application.transitions.size).to eq transitions
      end
      expect(application.serving.map { |worker| worker.ask(rate) }).to all be < 200
    end

    # Expects how often each user has gone offline.
    def expect_offline(application, counts)
      expected = counts.flat_map { |users, count| users.map { |user| [Stores::Log.token(user), count] } }.to_h
      actual = application.transitions.select { |line| line.kind == :offline }.map(&:id).tally
      expect(expected.keys.to_h { |id| [id, actual.fetch(id, 0)] }).to eq expected
    end

    # Puts the data back after users have come and gone, and has the users of `silent` go meanwhile.
    def put_back(application, copy, silent)
      # Each process polls every partition within a quarter of a timeout, and then knows that the users before are gone.
      transitions = application.transitions.size
      throughout(application.timeout / 2.0) { expect(application.transitions.size).to eq transitions }
      messages = application.store_errors.size
      application.store.restore(copy) do
        application.crowd.fall_silent(silent)
        application.log.append(:restored)
      end
      application.lease_holders(limit: 5)
      application.expect_all(silent, :offline)
      expect_committed(application)
      expect_quiet(application, messages)
    end

    define_method(:restore) do |application, round|
      before, meanwhile, later, passing =
        %w[before meanwhile later passing].map { |name| users(5, "#{name} #{round}") }
      come(application, before + meanwhile)
      copy = back_up(application, "held #{round}")
      come(application, later + passing)
      leave(application, before + passing)
      put_back(application, copy, silent = meanwhile + later.first(2))

      # Users who left before are online in the data, and no process knows better.
      expect_offline(application, { silent => 1, passing => 1, before => 2, application.crowd.present => 0 })
      leave(application, later.drop(2) + ["held #{round}"])
    end

    it "keeps users with heartbeats online, and sets offline once who left meanwhile: #{restores} times",
       limit: 60 + (restores * 30) do
      application = deploy(new_store, timeout: 2)
      application.start_all(2)
      come(application, users(10))
      application.lease_holders
      restores.times do |round|
        Progress.at(round, restores)
        restore(application, round)
      end
      expect(expect_good_end(application)).to have_attributes(repeats: 0)
      application.store.check
    end
  end
end
