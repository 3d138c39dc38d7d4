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

    # Its ids are Integers whose `to_s` continues.
    class Digits < Config
      def setup
        digits = Module.new do
          def to_s(*)
            self < 2**64 ? super : super.tap { continue }
          end
        end
        Integer.prepend(digits)
      end
    end

    # The same with a `timeout` that continues, once it is set up.
    class Impatient < Config
      def timeout = super.tap { continue if @heartbeat && Thread.current == Thread.main }
    end

    # A manager that has its heartbeat.
    class OnlineManager
      def heartbeat = @native.heartbeat
    end

    def start(config, **options) = OnlineManager.new(config, reactor: :thread, **options).tap(&:setup)

    # A shared store, in a folder of its own.
    def store
      folder = Dir.mktmpdir
      at_exit { FileUtils.remove_entry(folder) }
      "sqlite:\#{folder}/presence.sqlite3"
    end
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
    "the `hash` of an id in `leave`" => ["Config.new", "manager.leave(Id.new(number))"],
    "the `to_s` of an id in `seen`, with a store" => ["Digits.new", "manager.seen(number + (2**70))", "store: store"],
    "the `to_s` of an id in `leave`, with a store" => ["Digits.new", "manager.leave(number + (2**70))", "store: store"],
    "the `to_s` of an id in `seen_all`, with a store" =>
      ["Digits.new", "manager.seen_all([1, number + (2**70)])", "store: store"],
    "`timeout` in `seen`" => ["Impatient.new", "sleep(0.011).then { manager.seen(number) }"],
    "`timeout` in `seen`, with a store" =>
      ["Impatient.new", "sleep(0.011).then { manager.seen(number) }", "store: store"]
  }.each do |what, (config, act, options)|
    it "that enters a call again raises an error: from #{what}", limit: 60 do
      process = ruby(<<~RUBY, limit: 50)
        #{prelude}
        manager = start(#{[config, options].compact.join(", ")})
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

  # The same with a shared store, whose member waits until the config has said its last version.
  {
    "`last_version`" => "def last_version = continue.then { 7 }\ndef online(_) = again { super }",
    "`last_version`, which raises" => "def last_version = again { raise IOError, 'no database' }",
    "`online`" => "def online(_) = again { super }",
    "`online`, which raises" => "def online(_) = again { raise IOError, 'no database' }",
    "`on_error`" => "def online(_) = raise(IOError, 'no database')\ndef on_error(*) = again { super }"
  }.each do |what, methods|
    it "that enters a call of the reactor again raises an error, with a store: from #{what}", limit: 30 do
      process = ruby(<<~RUBY, limit: 25)
        #{prelude}
        # Its `calls` has an element for each call that continues.
        class Counted < Config
          attr_reader :calls

          def again
            @calls << true
            continue
            yield
          rescue RuntimeError => e # in the thread that has taken the place of the one that was left
            @calls << e.message
          end

          def setup = @calls = Thread::Queue.new
          def on_error(*) = nil
        end
        config = Class.new(Counted) do
          #{methods}
        end.new
        manager = start(config, store: store)
        manager.seen(0)
        config.calls.pop
        sleep 0.05 until manager.stats[:online] == 1
        1.step { |number| manager.seen(number) && sleep(0.02) && config.calls.size < 3 || break }
        manager.stop
        puts manager.stats[:state]
      RUBY

      expect(process.lines).to eq ["stopped"]
      expect(process.stderr.lines).to all match(/#{refused}>: it has been restarted/)
      expect(process.stderr).not_to be_empty
    end
  end

  {
    "with no store" => ["def offline(_) = continue", ""],
    "with a store" => ["def online(_) = continue", ", store: store"]
  }.each do |name, (method, option)|
    it "that enters a call of `run` again raises an error there, and the manager ends as ever: #{name}" do
      process = ruby(<<~RUBY)
        #{prelude}
        config = Class.new(Config) do
          attr_writer :manager

          def setup
            3.times { |number| @manager.seen(number) }
            3.times { |number| @manager.leave(number) }
          end

          #{method}
        end.new
        config.manager = manager = OnlineManager.new(config, reactor: :thread#{option})
        begin
          manager.run
        rescue OnlineManager::Error => e
          puts e.message
        end
        puts manager.stats.values_at(:state, :departing, :members, :internal_errors).compact.inspect
      RUBY

      expect(process.lines).to eq [refused, "[:stopped, 0, 0]"]
      expect([process.stderr, process]).to match ["", be_success]
    end
  end

  it "that enters `setup` again by the config's `timeout` raises an error, and changes nothing" do
    process = ruby(<<~RUBY)
      #{prelude}
      config = Config.new
      config.define_singleton_method(:timeout) { super().tap { callcc { |first| $continuation ||= first } } }
      manager = OnlineManager.new(config, reactor: :thread)
      begin
        manager.setup
      rescue OnlineManager::Error => e
        puts e.message
      end
      manager.seen(1)
      $continuation.call if ($times += 1) == 1
      manager.stop
      puts Thread.list.size
    RUBY

    expect(process.lines).to eq ["the manager is already running: call setup or run only once", "1"]
    expect([process.stderr, process]).to match ["", be_success]
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

  describe "that leaves a call" do
    include_context "with a faulty extension"

    {
      "a continuation" => "callcc { |before| ($before = before) && manager.seen(number) }",
      "a fiber that is abandoned" => "Fiber.new { manager.seen(number) }.resume",
      "a thread that ends while the fiber of the call waits" =>
        "Thread.new { Fiber.new { manager.seen(number) }.resume }.join"
    }.each do |what, call|
      it "leaves no memory behind: #{what}" do
        process = ruby(<<~RUBY)
          #{faulty}
          #{prelude}
          config = Config.new
          way = #{what == "a continuation"} ? -> { $before.call } : -> { Fiber.yield }
          config.define_singleton_method(:online) { |_| way.call }
          manager = start(config)
          1_000.times do |number|
            #{call}
            GC.start if number % 100 == 0
          end
          puts Faults.calls
          exit!(true)
        RUBY

        expect([process.stderr, process]).to match ["", be_success]
        expect(Integer(process.lines.last)).to be_between(1, 300)
      end
    end
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
