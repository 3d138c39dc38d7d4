# frozen_string_literal: true

require "tmpdir"

# Where a store's callbacks run, and their arguments.
RSpec.describe "A store" do
  around { |example| Dir.mktmpdir { |folder| Dir.chdir(folder) { example.run } } }

  # A config that prints its calls and whether they are on the reactor; and `main`, which runs the block where the
  # reactor is, and keeps the reactor running.
  prelude = <<~RUBY
    require "online_manager"
    require "async"
    require "eventmachine"

    STORE = "sqlite:presence.sqlite3"

    def here?
      case REACTOR
      when :thread then Thread.current != Thread.main
      when :eventmachine then EM.reactor_thread?
      when :fiber then !Fiber.current_scheduler.nil?
      end
    end

    def say(*words) = puts([*words, here? ? "here" : "elsewhere"].join(" "))

    class Config
      def timeout = 1
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(user_id, version:) = say("online", user_id, version.class)
      def offline(user_id) = say("offline", user_id)
    end

    def main(config = Config.new)
      body = lambda do
        OnlineManager.setup(config, store: STORE, reactor: REACTOR)
        yield OnlineManager.current
      end
      case REACTOR
      when :thread then body.call
      when :eventmachine then EM.run { Thread.new { EM.schedule(EM.method(:stop)) if body.call || true } }
      when :fiber then Async { body.call }
      end
    end
  RUBY

  def application(prelude, reactor, script)
    ruby("REACTOR = #{reactor.inspect}\n#{prelude}\n#{script}", bundled: true, chdir: Dir.pwd)
  end

  %i[thread eventmachine fiber].each do |reactor|
    it "delivers on the reactor #{reactor} and stops without setting anybody offline" do
      process = application(prelude, reactor, <<~RUBY)
        main do |manager|
          manager.seen_all([7, 8], timeout: 60)
          sleep 0.02 until manager.stats.values_at(:online, :waiting) == [2, 0]
          manager.leave(7)
          sleep 0.02 until manager.stats.values_at(:online, :waiting) == [1, 0]
          puts "stop", manager.stop, manager.seen(7), manager.stats[:state], manager.online_users.inspect
        end
      RUBY

      expect(process.stderr).to eq ""
      expect(process.lines.first(2)).to contain_exactly("online 7 Integer here", "online 8 Integer here")
      expect(process.lines.drop(2)).to eq ["offline 7 here", "stop", "0", "false", "stopped", "[8]"]
    end
  end

  it "passes several users to the _all callbacks with their versions in the same order" do
    process = application(prelude, :thread, <<~RUBY)
      class Config
        def online_all(user_ids, version:) = note(:online, user_ids, version)
        def offline_all(user_ids, version:) = note(:offline, user_ids, version)

        def note(transition, user_ids, versions)
          $calls += user_ids.size
          puts "\#{transition} of several" if user_ids.size > 1
          raise "\#{user_ids} and \#{versions}" unless versions.size == user_ids.size && versions.sort == versions
          puts user_ids.zip(versions).map { |id, version| [transition, id, version].join(" ") }
        end
      end

      $calls = 0
      main do |manager|
        manager.seen_all(1..100)
        sleep 0.02 until $calls == 200
      end
    RUBY

    expect(process.stderr).to eq ""
    expect(process.lines).to include("online of several", "offline of several")
    calls = process.lines.grep(/\d/).map(&:split)
    expect(calls.map { |transition, id, _| [transition, id.to_i] })
      .to match_array(%w[online offline].product((1..100).to_a))
    calls.group_by { |_, id, _| id }.each_value do |of_user|
      expect(of_user.map { |_, _, version| version.to_i }).to eq(of_user.map { |_, _, version| version.to_i }.sort)
    end
  end

  it "reports the error of a callback without an on_error, on EventMachine too, and calls it again" do
    process = application(prelude, :eventmachine, <<~RUBY)
      class Config
        def online(user_id) = (@calls = @calls.to_i + 1) == 1 ? raise("no database") : say("online", user_id)
      end

      main do |manager|
        manager.seen("ann", timeout: 60)
        sleep 0.02 until manager.stats.values_at(:online, :waiting) == [1, 0]
        puts manager.stats.values_at(:retries, :errors).inspect
      end
    RUBY

    expect(process.stderr).to include("Config#online raised, and will be called again", "no database (RuntimeError)")
    expect(process.lines).to eq ["online ann here", "[1, 1]"]
  end
end
