# frozen_string_literal: true

Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

RSpec.describe OnlineManager do
  # TRANSITIONS=200000 is the size in `rake soak`.
  wanted = Integer(ENV.fetch("TRANSITIONS", 20_000))

  oops = Class.new(StandardError)
  users = 200

  # What threads and callbacks do, and how often.
  acts = {
    ->(manager, _, user) { manager.seen(user) } => 8,
    ->(manager, _, user) { manager.seen(user, timeout: 0.002) } => 2,
    ->(_, config, user) { config.heartbeat.call(user) } => 1,
    ->(manager, _, user) { manager.seen_all([user, user % 7, user]) } => 1,
    ->(manager, _, user) { manager.leave(user) } => 7,
    ->(manager, _, user) { manager.leave(user, after: 0.001) } => 1,
    ->(manager, _, user) { manager.seen(user, session: rand(3)) } => 3,
    ->(manager, _, user) { manager.seen(user, session: rand(3) / 2.0, timeout: 0.002) } => 1,
    ->(manager, _, user) { manager.leave(user, session: rand(3)) } => 3,
    ->(manager, _, user) { manager.leave(user, session: rand(3) / 2.0, after: 0.001) } => 1,
    ->(manager, _, user) { manager.session_ids(user) } => 1,
    ->(manager, _, user) { manager.online?(user) } => 1,
    ->(manager, _, user) { manager.last_seen(user) } => 1,
    ->(manager, _, _) { [manager.stats, manager.size, manager.online_users] } => 1
  }.flat_map { |act, times| [act] * times }

  # Half of them on the most common reactor, the rest on the others.
  { thread: wanted / 2, eventmachine: wanted / 4, fiber: wanted / 4 }.each do |reactor, transitions|
    context "with the reactor #{reactor.inspect} and 16 threads that send heartbeats and leave" do
      let(:reactor) { reactor }

      include_context "with a manager"

      # The body of a callback: let others run, call the manager, sleep, or fail.
      define_method(:call_back) do |manager, config|
        Thread.pass
        acts.sample.call(manager, config, rand(users)) if rand(3).zero?
        sleep 0.002 if rand(100).zero? # rubocop:disable OnlineManager/BareSleep
        raise oops if rand(100).zero?
      end

      it "alternates, never overlaps and agrees with the manager: #{transitions} transitions",
         limit: 60 + (wanted / 1_000) do
        manager = nil
        config = Journal.new(timeout: 60) { call_back(manager, config) }
        config.define_singleton_method(:on_error) { |error, _| raise error unless error.is_a?(oops) }
        manager = start(config)

        threads = Array.new(16) do
          background do
            while config.size < transitions
              begin
                5.times { acts.sample.call(manager, config, rand(users)) }
                # Without it, the reactor would wait for each of them in turn, 100 ms at a time.
                Thread.pass
              rescue oops
                next
              end
            end
          end
        end
        until threads.none?(&:alive?)
          Progress.at(config.size, transitions)
          threads.each { |thread| thread.thread.join(0.1) }
        end
        threads.each(&:value)

        # A few users are still due.
        eventually do
          settle(manager)
          expect(manager.online_users).to match_array(config.verify.select { |_, state| state == :online }.keys)
        end
        expect(config.size).to be >= transitions

        manager.stop
        expect(config.verify.values.uniq).to eq [:offline]
        expect(manager.stats).to include(state: :stopped, online: 0, departing: 0, due: 0)
      end
    end
  end
end
