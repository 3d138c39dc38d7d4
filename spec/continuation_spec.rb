# frozen_string_literal: true

# A continuation (`callcc`) restores the stack of the moment that captured it. If that is the stack of a call of the
# extension that has returned, the call would return once more, and free its memory once more. Ruby itself prevents it
# unless the call is made from the same depth of the stack again; so does each of these scripts.
RSpec.describe "A continuation" do
  prelude = <<~RUBY
    require "online_manager"
    require "tmpdir"
    $VERBOSE = nil # "callcc is obsolete"
    require "continuation"
    $VERBOSE = true

    # How often a continuation enters a call again.
    TIMES = 300
    $times = 0
    $continuation = nil
    $errors = Hash.new(0)

    # Captures a continuation, or calls the one of an earlier call.
    def continue
      if !$continuation
        callcc { |continuation| $continuation = continuation }
      elsif $times < TIMES
        $times += 1
        $continuation.call
      end
    end

    # Calls the block for one number after the other. An error goes on with the numbers after those of its call.
    def rounds
      (2 * TIMES).times do |number|
        yield number
      rescue OnlineManager::Error => e
        $errors[e.message] += 1
      end
      $errors.each { |message, times| puts "\#{times} times: \#{message}" }
    end

    # An id.
    Id = Struct.new(:name) do
      def hash
        continue
        7
      end

      def eql?(other) = equal?(other)
    end

    # An id that has the same `hash` as all of them.
    Same = Struct.new(:name) do
      def hash = 7

      def eql?(_)
        continue
        false
      end
    end

    # A config; `by` is the callback that continues.
    class Config
      def initialize(by = nil) = @by = by
      def timeout = 60
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(_) = (continue if @by == :online)
      def offline(_) = (continue if @by == :offline)
    end

    # The same with the `_all` callbacks.
    class ConfigOfMany < Config
      def online_all(_) = (continue if @by == :online_all)
      def offline_all(_) = (continue if @by == :offline_all)
    end

    # A manager that has its heartbeat.
    class OnlineManager
      def heartbeat = @native.heartbeat
    end

    def start(config, **options) = OnlineManager.new(config, reactor: :thread, **options).tap(&:setup)
  RUBY

  refused = "a continuation has entered a call of online_manager again that had returned: call a continuation only " \
            "while the callback, or the method of an id, that captured it runs"

  {
    "`online` in `seen`" => ["Config.new(:online)", "manager.seen(number.to_s)"],
    "`online` in the heartbeat" => ["Config.new(:online)", "manager.heartbeat.call(number.to_s)"],
    "`online` in `seen_all`" => ["Config.new(:online)", "manager.seen_all([number.to_s, [number]])"],
    "`online_all` in `seen_all`" =>
      ["ConfigOfMany.new(:online_all)", "manager.seen_all([number.to_s, [number]])"],
    "the `hash` of an id in `seen`" => ["Config.new", "manager.seen(Id.new(number))"],
    "the `hash` of an id in `seen_all`" => ["Config.new", "manager.seen_all([number.to_s, Id.new(number)])"],
    "the `eql?` of an id in `seen_all`" => ["Config.new", "manager.seen_all([number.to_s, Same.new(number)])"],
    "the `hash` of an id in `leave`" => ["Config.new", "manager.leave(Id.new(number))"]
  }.each do |what, (config, act)|
    it "that enters a call again raises an error: from #{what}", limit: 60 do
      process = ruby(<<~RUBY, limit: 50)
        #{prelude}
        manager = start(#{config})
        rounds { |number| #{act} }
        manager.stop
      RUBY

      expect([process.stderr, process.lines]).to eq ["", ["300 times: #{refused}"]]
      expect(process).to be_success
    end
  end

  # There the error ends the reactor's thread, and another one takes its place. In that one Ruby raises an error.
  ["Config.new(:offline)", "ConfigOfMany.new(:offline_all)"].each do |config|
    it "that enters a call of the reactor again raises an error: #{config}" do
      process = ruby(<<~RUBY)
        #{prelude}
        config = #{config}
        errors = Thread::Queue.new
        config.define_singleton_method(:on_error) { |error, _| errors << error.message }
        manager = start(config)
        10.times { |number| manager.seen(number) }
        10.times { |number| manager.leave(number) && sleep(0.02) }
        puts errors.pop
        sleep 0.01 until manager.stats.values_at(:online, :departing) == [0, 0]
        manager.stop
      RUBY

      expect(process.stderr.lines).to contain_exactly(/#{refused}>: it has been restarted/)
      expect(process.lines).to eq ["continuation called across threads"]
      expect(process).to be_success
    end
  end

  it "may be called while the callback that captured it runs" do
    process = ruby(<<~RUBY)
      #{prelude}
      config = Config.new
      config.define_singleton_method(:online) do |_|
        count = 0
        again = callcc { |continuation| continuation }
        count += 1
        again.call(again) if count < 3
        puts "counted to \#{count}"
      end
      manager = start(config)
      3.times { |number| manager.seen(number) }
      puts manager.stats.values_at(:online, :announcing).inspect
      manager.stop
    RUBY

    expect([process.stderr, process.lines]).to eq ["", [*["counted to 3"] * 3, "[3, 0]"]]
  end

  # Of what calls Ruby code, only `protect.rs` may know.
  it "has no other way into the extension" do
    folder = "#{RubyProcess::ROOT}/ext/online_manager/src"
    others = Dir["#{folder}/**/*.rs"].reject { |path| path == "#{folder}/protect.rs" }
    calls = others.flat_map { |path| File.readlines(path).grep(/\.funcall|rb_sys::protect|rb_protect|rb_funcall/) }

    expect(others.size).to be > 10
    expect(calls).to be_empty
  end
end
