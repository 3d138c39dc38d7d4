# frozen_string_literal: true

# The background thread that calls `offline` is ended from outside while users expire. In child processes, which have no
# other such thread, and whose warnings come from nothing else.
RSpec.describe "The delivery thread, when it is ended from outside" do
  prelude = <<~RUBY
    require "online_manager"

    # Counts the warnings.
    SAID = Hash.new(0)
    Warning.singleton_class.prepend(Module.new do
      def warn(message, **)
        SAID[message[/has been restarted|offline raised/] || message] += 1
      end
    end)

    # Records the transitions of each user.
    class Config
      attr_reader :calls, :heartbeat

      def initialize = @calls = Hash.new { |calls, user| calls[user] = +"" }
      def timeout = 0.02
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(user) = @calls[user] << "+"

      def offline(user)
        @calls[user] << "-"
        sleep rand * 0.001 if rand(4).zero?
      end
    end

    CONFIG = Config.new
    OnlineManager.setup(CONFIG, reactor: :thread)
    MANAGER = OnlineManager.current

    def delivery_thread = Thread.list.find { |thread| thread.name == "online_manager" && thread.alive? }

    $done = false

    # @yield makes some heartbeats
    def in_background
      Thread.new do
        until $done
          yield
          sleep 0.001
        end
      end
    end

    # Waits for a condition.
    def await(limit = 5)
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + limit
      until (answer = yield)
        abort "in vain: \#{caller(1, 1)} \#{SAID}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
        sleep 0.0005
      end
      answer
    end

    def nobody_left? = MANAGER.stats.values_at(:online, :departing, :due) == [0, 0, 0]

    # At a random moment, in its sleep or at work.
    def some_moment
      rand(2).zero? ? sleep(rand * 0.004) : rand(20_000).times { nil }
    end
  RUBY

  {
    "Thread#kill" => "thread.kill",
    "Thread#raise" => 'thread.raise("from outside")'
  }.each do |name, interrupt|
    it "is restarted at once with one warning, and loses and doubles nothing: #{name}" do
      process = ruby(<<~RUBY, limit: 25)
        #{prelude}
        user = 0
        sender = in_background { 3.times { CONFIG.heartbeat.call(user += 1) } }
        await { delivery_thread }

        300.times do |number|
          thread = delivery_thread
          some_moment
          #{interrupt}
          # One warning each: the end of the thread, or an error that its callback raised.
          await { SAID.values.sum == number + 1 }
          await { delivery_thread }
        end

        $done = true
        sender.join
        # Without a further heartbeat.
        await { CONFIG.calls.each_value.all?("+-") && nobody_left? }
        puts "users \#{CONFIG.calls.size}", "said \#{SAID.values.sum}", SAID.keys.sort
      RUBY

      kinds = ["has been restarted", ("offline raised" if name == "Thread#raise")].compact
      expect(process.lines).to match [/\Ausers \d{3,}\z/, "said 300", *kinds]
      expect(process.stderr).to be_empty
      expect(process).to be_success
    end
  end

  it "survives being ended again while it is restarted, with users who come back while they leave" do
    process = ruby(<<~RUBY, limit: 25)
      #{prelude}
      sender = in_background { 5.times { CONFIG.heartbeat.call(rand(40)) } and MANAGER.leave(rand(40)) }
      await { delivery_thread }

      until SAID["has been restarted"] > 300
        thread = delivery_thread or next
        some_moment if rand(3).zero?
        (1 + rand(3)).times { rand(2).zero? ? thread.kill : thread.raise("from outside") }
      end

      $done = true
      sender.join
      # An `online` on this thread that was aborted is followed by another; an `offline` never is.
      await { CONFIG.calls.each_value.all?(/\\A(\\++-)+\\z/) && nobody_left? }
      repeated = CONFIG.calls.each_value.sum { |calls| calls.scan("++").size }
      puts repeated <= SAID.values.sum ? "ends well" : "\#{repeated} onlines too many"
      puts MANAGER.stats[:state]
    RUBY

    expect(process.lines).to eq ["ends well", "running"]
    expect(process.stderr).to be_empty
    expect(process).to be_success
  end

  # Sets when a thread pauses, and for how many seconds.
  pausing = lambda do |max_fruitless, pause|
    <<~RUBY
      OnlineManager::Reactor::Thread.send(:remove_const, :MAX_FRUITLESS)
      OnlineManager::Reactor::Thread::MAX_FRUITLESS = #{max_fruitless}
      OnlineManager::Reactor::Thread.send(:remove_const, :PAUSE)
      OnlineManager::Reactor::Thread::PAUSE = #{pause}
    RUBY
  end
  failing = <<~RUBY
    $fails = true
    MANAGER.instance_variable_get(:@native).singleton_class.prepend(Module.new do
      def deliver(*) = $fails ? raise("no delivery") : super
    end)
  RUBY

  it "pauses if many end one after the other before they call anybody, and goes on once one can" do
    process = ruby(<<~RUBY, limit: 25)
      #{prelude + failing}
      def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

      started = now
      CONFIG.heartbeat.call(1)
      # Each of the last two paused.
      await(20) { SAID.values.sum == OnlineManager::Reactor::Thread::MAX_FRUITLESS + 3 }
      pauses = now - started
      $fails = false
      await { nobody_left? }
      puts pauses >= 2 * OnlineManager::Reactor::Thread::PAUSE ? "paused" : pauses, CONFIG.calls.values
    RUBY

    expect(process.lines).to eq ["paused", "+-"]
    expect(process.stderr).to be_empty
    expect(process).to be_success
  end

  it "is stopped during a pause" do
    process = ruby(<<~RUBY, limit: 25)
      #{prelude + failing + pausing[0, 3_600]}
      CONFIG.heartbeat.call(1)
      await { SAID.values.sum == 1 && delivery_thread&.stop? }
      $fails = false
      puts MANAGER.stop, CONFIG.calls.values
    RUBY

    expect(process.lines).to eq ["0", "+-"]
    expect(process.stderr).to be_empty
    expect(process).to be_success
  end

  it "does not pause if callbacks end it" do
    process = ruby(<<~RUBY, limit: 25)
      #{prelude + pausing[0, 3_600]}
      class Config
        def offline(user)
          @calls[user] << "-"
          Thread.current.kill
        end
      end
      MANAGER.seen_all(1..10)
      await { nobody_left? }
      puts CONFIG.calls.values.uniq
    RUBY

    expect(process.lines).to eq ["+-"]
    expect(process.stderr).to be_empty
    expect(process).to be_success
  end

  it "gets on however often its pauses are ended" do
    process = ruby(<<~RUBY, limit: 25)
      #{prelude + pausing[0, 0.2]}
      CONFIG.heartbeat.call(1)
      until nobody_left?
        thread = delivery_thread
        thread&.kill
        # Long enough that a thread which does not pause sets the user offline.
        sleep 0.05
      end
      puts CONFIG.calls.values
    RUBY

    expect(process.lines).to eq ["+-"]
    expect(process.stderr).to be_empty
    expect(process).to be_success
  end
end
