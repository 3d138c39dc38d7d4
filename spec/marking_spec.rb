# frozen_string_literal: true

# Objects that only the extension references must survive garbage collections. In child processes, since without the
# marks Ruby crashes.
RSpec.describe "What the extension holds" do
  prelude = <<~RUBY
    require "online_manager"

    class Config
      attr_reader :heartbeat

      def timeout = 60
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(user_id) = nil
      def offline(user_id) = nil
    end

    # Collects garbage, and reuses the places of freed objects.
    def collect
      3.times do
        GC.start
        @rest = Array.new(50_000) { [rand, "something else"] }
      end
    end

    manager = OnlineManager.new(Config.new, reactor: :thread)
  RUBY

  # The script follows the prelude, and prints whether its condition holds.
  define_method(:expect_true) do |script|
    process = ruby(prelude + script)
    expect(process.lines).to eq ["true"]
    expect(process).to be_success
  end

  it "survives: the ids that are objects" do
    expect_true(<<~RUBY)
      manager.setup
      300.times { |number| manager.seen([number, "an id"]) }
      collect
      puts manager.online_users.sort == Array.new(300) { |number| [number, "an id"] }
    RUBY
  end

  it "survives: the heartbeat, before setup receives it" do
    expect_true(<<~RUBY)
      # Several, so that no reference on the stack keeps the tested one by accident.
      managers = Array.new(50) { OnlineManager.new(Config.new, reactor: :thread) }
      collect
      puts managers.all? { |other| other.setup.call(7) && other.online_users == [7] }
    RUBY
  end

  it "survives: the Array for ids of a tracker that is being made" do
    expect_true(<<~RUBY)
      GC.stress = true
      managers = Array.new(5) { OnlineManager.new(Config.new, reactor: :thread) }
      GC.stress = false
      collect
      puts managers.all? { |other| other.setup.call([7]) && other.online_users == [[7]] }
    RUBY
  end

  it "stays in its place: the ids of a seen_all, while online is called of one after the other" do
    expect_true(<<~RUBY)
      config = Config.new
      called = []
      config.define_singleton_method(:online) do |user_id|
        # Moves all objects that can move.
        GC.verify_compaction_references(toward: :empty, double_heap: true) if called.empty?
        called << user_id.inspect
      end
      manager = OnlineManager.new(config, reactor: :thread)
      manager.setup
      ids = -> { Array.new(200) { |number| number.even? ? [number, "an id"] : "id \#{number}" } }
      manager.seen_all(ids.call)
      puts called == ids.call.map(&:inspect)
    RUBY
  end

  it "survives and stays in its place: the ids of sessions" do
    expect_true(<<~RUBY)
      manager = OnlineManager.new(Config.new, reactor: :thread)
      manager.setup
      sessions = Array.new(4) { |number| [number, "a session"] }
      manager.seen([7], session: sessions.first)
      GC.stress = true
      sessions.each { |session| manager.seen([7], session: session.dup) }
      GC.stress = false
      collect
      GC.verify_compaction_references(toward: :empty, double_heap: true)
      there = manager.session_ids([7]).sort == sessions
      puts there && sessions.all? { |session| manager.leave([7], session: session.dup) }
    RUBY
  end
end
