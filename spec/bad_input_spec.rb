# frozen_string_literal: true

require "bigdecimal"
require "tmpdir"
Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

# What does not work, and what does although it looks as if it should not: class and message of the error, and that
# nothing else has changed.
RSpec.describe "Bad input" do
  # What ActiveSupport::Duration (5 to 8) has of a number: `to_f` by `method_missing`, and it says that it is one.
  duration = Class.new do
    def initialize(value) = @value = value
    def is_a?(kind) = @value.is_a?(kind)
    alias_method :kind_of?, :is_a?
    def instance_of?(kind) = @value.instance_of?(kind)
    def coerce(other) = [other, @value]
    def inspect = "#{@value} seconds"
    def respond_to_missing?(method, _) = @value.respond_to?(method)
    def method_missing(method, ...) = @value.public_send(method, ...)
  end

  # What is no positive number of seconds, and what one is told.
  bad_seconds = {
    "abc" => ArgumentError, "" => ArgumentError, "5 s" => ArgumentError, "5".encode("UTF-16LE") => ArgumentError,
    0 => ArgumentError, -1 => ArgumentError, -0.0 => ArgumentError, Float::NAN => ArgumentError,
    Float::INFINITY => ArgumentError, -Float::INFINITY => ArgumentError, Complex(1, 1) => ArgumentError,
    duration.new(-5) => ArgumentError,
    :five => TypeError, true => TypeError, [5] => TypeError, Object.new => TypeError
  }

  def wrong_seconds(kind, name, value, wanted: "a finite number of seconds above 0")
    raise_error(kind, "#{name} must be #{wanted}, got #{value.inspect}") { |error| expect(error.cause).to be_nil }
  end

  %i[thread eventmachine fiber].each do |reactor|
    context "with the reactor #{reactor.inspect}" do
      let(:reactor) { reactor }

      include_context "with a manager"

      # @return [Object] what `run` or `setup` of the manager returned
      # @raise what it raised
      def launch(manager, way)
        way == :run ? host.run { manager.run }.value : host.call { manager.setup }
      end

      # @return [Hash] the users and who is in which state, and when each has been seen, which tells the deadline
      def situation(manager)
        { stats: manager.stats, users: manager.online_users.sort_by(&:inspect),
          seen: manager.online_users.to_h { |user| [user, manager.last_seen(user).to_f] } }
      end

      # Holds that the block changes nothing of it.
      def keep(manager)
        before = situation(manager)
        yield
        seen = before.delete(:seen).transform_values { |time| be_within(0.03).of(time) }
        expect(situation(manager)).to match(before.merge(seen:))
      end

      # The manager has not been set up, and still can be.
      def expect_untouched(manager, config)
        expect([manager.stats[:state], manager.size, OnlineManager.current]).to eq [:new, 0, nil]
        expect(config.last(:setup)).to be_nil if config.respond_to?(:last)
        expect(Thread.list - @threads - [host.thread]).to be_empty
      end

      describe "a config" do
        %i[setup run].each do |way|
          %i[timeout setup online offline].each do |method|
            it "without `#{method}` is named, before `setup` is called (#{way})" do
              stub_const("Lacking", Class.new(Conformance::Config) { undef_method(method) })
              config = Lacking.new
              manager = OnlineManager.new(config, reactor:)

              message = "Lacking has no method `#{method}'; a config needs timeout, setup, online, offline"
              expect { launch(manager, way) }.to raise_error(ArgumentError, message)
              expect_untouched(manager, config)
            end
          end

          it "that is none at all is told what it lacks (#{way})" do
            manager = OnlineManager.new(nil, reactor:)

            expect { launch(manager, way) }
              .to raise_error(ArgumentError, "NilClass has no method `timeout', `setup', `online', `offline'; " \
                                             "a config needs timeout, setup, online, offline")
            expect_untouched(manager, nil)
          end

          bad_seconds.each do |value, kind|
            it "whose timeout is #{value.inspect} is told so, before `setup` is called (#{way})" do
              config = recording(timeout: value)
              manager = OnlineManager.new(config, reactor:)

              expect { launch(manager, way) }.to wrong_seconds(kind, "Conformance::Config#timeout", value)
              expect_untouched(manager, config)
            end
          end
        end

        it "may be put right and set up then" do
          config = recording(timeout: 0)
          manager = OnlineManager.new(config, reactor:)
          @managers << manager
          expect { host.call { manager.setup } }.to raise_error(ArgumentError)
          config.timeout = 60
          host.call { manager.setup }

          expect(manager.seen(7)).to be true
        end
      end

      describe "a timeout" do
        # Whatever is answered is good for 10 ms.
        def wait_for_error(config)
          wait_until do
            config.heartbeat.call(7) && false
          rescue ArgumentError, TypeError
            true
          end
        end

        bad_seconds.each do |value, kind|
          it "that turns #{value.inspect} later raises out of the yield, and changes nobody's state or deadline" do
            config = recording(timeout: 60)
            manager = start(config)
            manager.seen(7)
            manager.seen(8, timeout: 30)
            config.timeout = value
            wait_for_error(config)

            keep(manager) do
              beats = [-> { config.heartbeat.call(7) }, -> { manager.seen(9) }, -> { manager.seen_all([8, 9]) }]
              throughout(0.05) do
                expect(&beats.sample).to wrong_seconds(kind, "Conformance::Config#timeout", value)
              end
            end
            expect(config.calls).to eq [[:online, 7], [:online, 8]]

            config.timeout = 0.05
            expect(config.heartbeat.call(9)).to be true
            eventually { expect(config.calls_of(9)).to eq %i[online offline] }
          end
        end

        it "that is bad when a user's deadline is near does not put it off" do
          config = recording(timeout: 0.2)
          manager = start(config)
          manager.seen(7)
          config.timeout = "soon"
          eventually { expect { manager.seen(8) }.to raise_error(ArgumentError) }

          # Far beyond the deadline, with ever more heartbeats that fail.
          wait_until do
            expect { manager.seen(7) }.to raise_error(ArgumentError, /got "soon"/)
            config.last(:offline, 7)
          end
          expect(config.last(:offline, 7).began - config.last(:online, 7).ended).to be_between(0.2, 2)
          expect(manager.online?(7)).to be false
        end

        oops = IOError.new("no settings yet")
        {
          "is nil" => [nil, TypeError, /\AConformance::Config#timeout must be a finite number of seconds.*, got nil\z/],
          "raises" => [-> { raise oops }, IOError, oops.message],
          "is not implemented" => [-> { raise NotImplementedError, "todo" }, NotImplementedError, "todo"]
        }.each do |what, (timeout, kind, message)|
          it "that #{what} before `setup` is not judged then, but at a heartbeat" do
            config = recording(timeout:)
            manager = start(config)

            expect(config.last(:setup)).to be_truthy
            [-> { config.heartbeat.call(7) }, -> { manager.seen(7) }].each do |beat|
              keep(manager) { expect(&beat).to raise_error(kind, message) }
            end
            expect(config.calls).to be_empty

            config.timeout = 60
            expect(manager.seen(7)).to be true
          end

          it "that #{what} before `setup` may be set there" do
            config = recording(timeout:, setup: lambda { |heartbeat|
              config.timeout = 60
              heartbeat.call(7)
            })
            manager = start(config)

            expect(manager.online?(7)).to be true
          end
        end

        {
          5 => 5, 0.25 => 0.25, "5" => 5, 5r => 5, BigDecimal("0.25") => 0.25, duration.new(5) => 5,
          31_556_952 => 31_556_952, 1e300 => 1e300, Float::MAX => Float::MAX
        }.each_key do |value|
          it "of #{value.inspect} is accepted" do
            config = recording(timeout: value)
            manager = start(config)

            throughout(0.05) do
              expect([manager.seen(7), manager.seen(8, timeout: value), manager.size]).to eq [true, true, 2]
            end
            expect(manager.last_seen(7).to_f).to be_within(1).of(Time.now.to_f)
            # Nobody left on the way; `seen_all` beside the others.
            expect(manager.seen_all([8, 9], timeout: value)).to be true
            expect(config.calls).to eq [[:online, 7], [:online, 8], [:online, 9]]
          end
        end

        {
          0.1 => 0.1, "0.1" => 0.1, " 0.1\n" => 0.1, "1e-1" => 0.1, 1/10r => 0.1, BigDecimal("0.1") => 0.1,
          duration.new(0.1) => 0.1, 1e-9 => 0, Float::MIN => 0
        }.each do |value, seconds|
          it "of #{value.inspect} is kept" do
            config = recording(timeout: value)
            manager = start(config)
            manager.seen(7)
            manager.seen(8, timeout: value)

            eventually { expect([7, 8].map { |user| config.calls_of(user) }).to eq [%i[online offline]] * 2 }
            [7, 8].each do |user|
              passed = config.last(:offline, user).began - config.last(:online, user).ended
              expect(passed).to be_between(seconds, seconds + 2)
            end
          end
        end
      end

      describe "an argument" do
        # The manager with one user, and nothing but an error out of the block.
        def expect_refusal(kind, message)
          config = recording
          manager = start(config)
          manager.seen(7)
          keep(manager) { expect { yield manager, config.heartbeat }.to raise_error(kind, message) }
          expect(config.calls).to eq [[:online, 7]]
          expect(manager.seen(7)).to be true
        end

        bad_seconds.each do |value, kind|
          it "`timeout: #{value.inspect}` of a heartbeat or of stop is named" do
            message = "timeout must be a finite number of seconds above 0, got #{value.inspect}"
            expect_refusal(kind, message) { |manager, _| manager.seen(7, timeout: value) }
            expect_refusal(kind, message) { |manager, _| manager.seen(8, timeout: value) }
            expect_refusal(kind, message) { |manager, _| manager.seen_all([7, 8], timeout: value) }
            next if value.respond_to?(:zero?) && value.zero?

            message = "must be a finite number of seconds, 0 or more, got #{value.inspect}"
            expect_refusal(kind, "timeout #{message}") { |manager, _| manager.stop(timeout: value) }
            expect_refusal(kind, "after #{message}") { |manager, _| manager.leave(7, after: value) }
          end
        end

        it "false is no number either" do
          message = "timeout must be a finite number of seconds above 0, got false"
          expect_refusal(TypeError, message) { |manager, _| manager.seen(7, timeout: false) }
          expect_refusal(TypeError, message) { |manager, _| manager.seen_all([7], timeout: false) }
          expect_refusal(TypeError, "timeout must be a finite number of seconds, 0 or more, got false") do |manager, _|
            manager.stop(timeout: false)
          end
          expect_refusal(TypeError, "after must be a finite number of seconds, 0 or more, got nil") do |manager, _|
            manager.leave(7, after: nil)
          end
        end

        it "that is missing or too much is told so, as for a method of one argument" do
          message = ->(given) { "wrong number of arguments (given #{given}, expected 1)" }
          expect_refusal(ArgumentError, message[0]) { |_, heartbeat| heartbeat.call }
          expect_refusal(ArgumentError, message[2]) { |_, heartbeat| heartbeat.call(7, 8) }
          expect_refusal(ArgumentError, message[3]) { |_, heartbeat| heartbeat.call(7, 8, 9) }
          expect_refusal(ArgumentError, message[0]) { |_, heartbeat| [nil].each { heartbeat.yield } }
          expect_refusal(ArgumentError, message[0]) { |manager, _| manager.seen }
          expect_refusal(ArgumentError, message[2]) { |manager, _| manager.seen(7, 8) }
        end

        it "of `yield` that is missing or too much is told so where the config yields" do
          yielding = Class.new(Conformance::Config) do
            def setup = yield(*@hooks[:arguments])
          end
          { [] => 0, [7, 3] => 2 }.each do |arguments, given|
            config = yielding.new(arguments:)
            expect { launch(OnlineManager.new(config, reactor:), :setup) }
              .to raise_error(ArgumentError, "wrong number of arguments (given #{given}, expected 1)")
            expect(config.calls).to be_empty
          end

          config = yielding.new(arguments: [[7, 3]])
          start(config)
          expect(config.calls).to eq [[:online, [7, 3]]]
        end

        it "of seen_all that is no collection is named" do
          message = ->(value) { "user_ids must be an Array or another Enumerable, got #{value}" }
          expect_refusal(TypeError, message["7"]) { |manager, _| manager.seen_all(7) }
          expect_refusal(TypeError, message["nil"]) { |manager, _| manager.seen_all(nil) }
          expect_refusal(TypeError, message['"abc"']) { |manager, _| manager.seen_all("abc") }
        end
      end

      describe "an id" do
        oops = Class.new(StandardError)
        # Its `hash` or `eql?` raises while it is told to.
        hostile = Class.new do
          attr_accessor :fails

          def hash = fails == :hash ? raise(IOError, "in hash") : 7
          def eql?(other) = fails == :eql? ? raise(IOError, "in eql?") : equal?(other)
        end

        %i[hash eql?].each do |method|
          it "whose #{method} raises makes that come out of the yield, and nothing else changes" do
            config = recording
            manager = start(config)
            # One of the same hash, so that `eql?` is called.
            ids = [hostile.new, 7]
            ids.each { |id| manager.seen(id) }
            bad = hostile.new
            bad.fails = method

            keep(manager) do
              [-> { config.heartbeat.call(bad) }, -> { manager.seen(bad) }, -> { manager.seen(bad, timeout: 1) },
               -> { manager.seen_all([7, 8, bad, 9]) }, -> { manager.leave(bad) }, -> { manager.online?(bad) },
               -> { manager.last_seen(bad) }].each { |act| expect(&act).to raise_error(IOError, "in #{method}") }
            end
            expect(config.calls).to eq [[:online, ids[0]], [:online, 7]]

            bad.fails = nil
            expect([manager.seen(bad), manager.size]).to eq [true, 3]
          end
        end

        it "whose hash is left by throw, or is no Integer, changes nothing either" do
          config = recording
          manager = start(config)
          manager.seen(7)
          leaving = Object.new
          leaving.define_singleton_method(:hash) { throw :out, "thrown" }
          odd = Object.new
          odd.define_singleton_method(:hash) { "odd" }

          keep(manager) do
            expect(catch(:out) { manager.seen(leaving) }).to eq "thrown"
            expect { manager.seen(odd) }.to raise_error(TypeError)
            expect { { odd => true } }.to raise_error(TypeError) # as for a Hash
          end
        end

        it "that an `online` refuses leaves nothing behind" do
          config = recording(online: ->(_) { raise oops })
          manager = start(config)

          [7, "seven", [7], 7.5].each { |id| keep(manager) { expect { manager.seen(id) }.to raise_error(oops) } }
        end

        {
          "ASCII" => +"abc", "UTF-8" => +"grüße", "BINARY" => "gr\xFC".b, "UTF-16" => "abc".encode("UTF-16LE"),
          "a subclass" => Class.new(String).new("abc"),
          "a long one" => "long" * 1000
        }.each do |what, text|
          it "that is a String and changes after the yield is kept as it was: #{what}" do
            config = recording
            manager = start(config)
            id = text.dup
            config.heartbeat.call(id)
            id << "!".encode(id.encoding)

            expect([manager.online?(text), manager.online?(id), manager.online_users]).to eq [true, false, [text]]
            manager.leave(text)
            eventually { expect(config.calls.last).to eq [:offline, text] }
          end
        end

        it "that is an Array and changes after the yield is found where a Hash would find it" do
          config = recording
          manager = start(config)
          id = [7, +"a"]
          hash = { id => true }
          config.heartbeat.call(id)

          [-> { id << 8 }, -> { id[1] << "b" }, -> { id[1].chop! && id.pop }].each do |change|
            change.call
            [id, id.dup, [7, "a"], [7, "a", 8], [7, "ab", 8]].each do |key|
              expect(manager.online?(key)).to be(hash.key?(key)), "#{key} after #{id}"
            end
            expect(manager.online_users).to eq [id]
          end
        end

        it "that is an Array and changes is set offline as it is by then" do
          config = recording(timeout: 0.1)
          manager = start(config)
          id = [7]
          manager.seen(id)
          id << 8

          eventually { expect(config.calls).to eq [[:online, id], [:offline, id]] }
          expect(manager.size).to eq 0
          expect(manager.seen(id)).to be true
        end
      end

      describe "setup" do
        it "that never takes its block is no error" do
          config = Class.new(Conformance::Config) { def setup = :done }.new
          manager = OnlineManager.new(config, reactor:)
          @managers << manager

          expect(launch(manager, :setup)).to eq :done
          expect([manager.stats[:state], manager.seen(7)]).to eq [:running, true]
        end

        it "that raises makes that come out, with its users offline and nothing left running" do
          %i[setup run].each do |way|
            oops = IOError.new("no setup")
            config = recording(setup: lambda { |heartbeat|
              heartbeat.call(7)
              raise oops
            })
            manager = OnlineManager.new(config, reactor:)

            expect { launch(manager, way) }.to raise_error(oops)
            expect(config.calls).to eq [[:online, 7], [:offline, 7]]
            expect([OnlineManager.current, manager.stats[:state], manager.seen(7)]).to eq [nil, :stopped, false]
            expect { launch(manager, way) }.to raise_error(OnlineManager::Error, "the manager is stopped")
          end
        end
      end

      describe "a manager" do
        it "that runs already says so, and goes on" do
          config = recording
          manager = start(config)
          manager.seen(7)

          %i[setup run].each do |way|
            keep(manager) do
              expect { launch(manager, way) }.to raise_error(OnlineManager::Error, "the manager is already running")
            end
          end
          expect(config.heartbeat.call(8)).to be true
        end

        it "that has been stopped says so, and ignores heartbeats" do
          config = recording
          manager = start(config)
          manager.seen(7)
          expect([manager.stop, manager.stop, manager.stop(timeout: 0)]).to eq [0, 0, 0]

          %i[setup run].each do |way|
            expect { launch(manager, way) }.to raise_error(OnlineManager::Error, "the manager is stopped")
          end
          expect([config.heartbeat.call(7), manager.seen(8), manager.seen(8, timeout: 1), manager.seen_all([7, 8])])
            .to eq [false] * 4
          # Its timeout is nobody's concern any more.
          config.timeout = "abc"
          expect(manager.seen(7)).to be false
          expect(config.calls).to eq [[:online, 7], [:offline, 7]]
        end

        %i[online offline].each do |method|
          it "that is stopped inside #{method} ends after that callback" do
            manager = nil
            config = recording(method => lambda { |user|
              user == 7 and @left = manager.stop
            })
            manager = start(config)
            manager.seen_all([6, 8])
            manager.seen(7)
            manager.leave(7) if method == :offline

            eventually { expect(manager.stats[:state]).to be :stopped }
            expect(@left).to be_positive
            expect([6, 7, 8].map { |user| config.calls_of(user) }).to all eq(%i[online offline])
            expect(config.heartbeat.call(9)).to be false
          end
        end

        it "that has not been set up says so at a heartbeat, and still can be" do
          config = recording
          manager = OnlineManager.new(config, reactor:)
          @managers << manager
          message = "the manager does not run yet: call setup or run before its first heartbeat"

          [-> { manager.seen(7) }, -> { manager.seen(7, timeout: 5) }, -> { manager.seen_all([7]) }].each do |beat|
            expect(&beat).to raise_error(OnlineManager::Error, message)
          end
          expect([manager.leave(7), manager.online?(7), manager.size, manager.online_users, manager.last_seen(7)])
            .to eq [false, false, 0, [], nil]
          expect_untouched(manager, config)

          launch(manager, :setup)
          expect([manager.seen(7), config.calls]).to eq [true, [[:online, 7]]]
        end
      end
    end
  end

  describe "an option" do
    {
      { reactor: :threads } => "unknown reactor :threads; there is :thread, :eventmachine, :fiber",
      { reactor: "thread" } => 'unknown reactor "thread"; there is :thread, :eventmachine, :fiber',
      { store: :disk } => 'unknown store :disk; there is :memory, "sqlite:PATH" and "redis://…"',
      { store: "users.db" } => 'unknown store "users.db"; there is :memory, "sqlite:PATH" and "redis://…"',
      { store: "sqlite:" } => 'the store "sqlite:" names no file; it must be "sqlite:PATH"',
      { store: nil } => 'unknown store nil; there is :memory, "sqlite:PATH" and "redis://…"',
      { store: "http://ann:secret@host" } =>
        'unknown store "http://ann:***@host"; there is :memory, "sqlite:PATH" and "redis://…"',
      { store: ["redis://host", 7] } => 'unknown store 7; there is :memory, "sqlite:PATH" and "redis://…"',
      { namespace: 7 } => "namespace must be a String or a Symbol, got 7",
      { timeout: 5 } => "unknown option :timeout; there are :reactor, :store, :namespace",
      { timeout: 5, reactor: :thread, stores: :memory } =>
        "unknown option :timeout, :stores; there are :reactor, :store, :namespace"
    }.each do |options, message|
      it "is refused with what there is: #{options}" do
        config = Conformance::Config.new
        threads = Thread.list

        %i[new setup run].each do |way|
          expect { OnlineManager.public_send(way, config, **options) }.to raise_error(ArgumentError, message)
        end
        expect([OnlineManager.current, config.last(:setup), Thread.list - threads]).to eq [nil, nil, []]
      end
    end
  end

  it "`reactor: :fiber` outside of a scheduler says where it belongs" do
    config = Conformance::Config.new
    manager = OnlineManager.new(config, reactor: :fiber)

    %i[setup run].each do |way|
      expect { manager.public_send(way) }.to raise_error(OnlineManager::Error, /needs a fiber scheduler on this thread/)
    end
    expect([manager.stats[:state], config.last(:setup)]).to eq [:new, nil]
  end

  describe "eventmachine that is missing" do
    # A script that does not find it: neither as a gem nor beside the standard library, where Debian has it.
    def without_eventmachine(script)
      Dir.mktmpdir do |gems|
        return ruby(<<~RUBY, env: { "GEM_HOME" => gems, "GEM_PATH" => gems })
          $LOAD_PATH.reject! { |folder| File.exist?("\#{folder}/eventmachine.rb") }
          require "online_manager"

          class Config
            def timeout = 5
            def setup = yield(7)
            def online(user) = puts("online \#{user}")
            def offline(user) = puts("offline \#{user}")
          end

          begin
            #{script}
          rescue StandardError => e
            puts "\#{e.class}: \#{e.message}"
          end
          # One that has been killed may take a moment.
          50.times { Thread.list.size > 1 and sleep 0.02 }
          puts "left: \#{[Thread.list.size, OnlineManager.current].inspect}"
        RUBY
      end
    end

    advice = 'add `gem "eventmachine"` to your Gemfile beside online_manager'
    named = "OnlineManager::Error: Config uses EventMachine, which is not loaded: #{advice}, and require it"
    {
      "named in setup" => ["def setup = EM.add_periodic_timer(1) { yield 7 }", [named]],
      "named in setup after a heartbeat" =>
        ["def setup = yield(7) && EventMachine::PeriodicTimer.new(1)", ["online 7", "offline 7", named]],
      "named in online" => ["def online(_) = EM.next_tick {}", [named]]
    }.each do |where, (method, expected)|
      %i[run setup].each do |way|
        it "is told to who needs it: #{where} (#{way})" do
          process = without_eventmachine("Config.class_eval { #{method} }; OnlineManager.#{way}(Config.new)")

          expect(process.lines).to eq [*expected, "left: [1, nil]"]
          expect(process).to be_success, process.stderr
        end
      end
    end

    it "is told to who asks for its reactor" do
      process = without_eventmachine("OnlineManager.run(Config.new, reactor: :eventmachine)")

      expect(process.lines).to eq [
        "OnlineManager::Error: the reactor :eventmachine needs the gem eventmachine: #{advice}", "left: [1, nil]"
      ]
    end

    it "is not missed by who does not" do
      process = without_eventmachine("OnlineManager.setup(Config.new)")

      expect(process.lines.first(1) + process.lines.last(1)).to eq ["online 7", "offline 7"]
    end

    it "is no excuse for other names that are unknown" do
      process = without_eventmachine("Config.class_eval { def setup = Em.run }; OnlineManager.run(Config.new)")

      expect(process.lines.first).to match(/\ANameError: uninitialized constant (Config::)?Em/)
    end
  end

  # Beside what Ruby knows of, there are the descriptors and the thread of the extension.
  %i[thread eventmachine fiber].each do |reactor|
    it "leaves no thread and no descriptor behind (#{reactor})" do
      skip "there is no /proc" unless File.exist?("/proc/self/task")

      process = ruby(<<~RUBY, bundled: true)
        require "online_manager"
        require "async"
        require "eventmachine"

        class Config
          def timeout = 5
          def setup = yield(7)
          def online(_) = nil
          def offline(_) = nil
        end

        CONFIGS = [
          Class.new(Config) { undef_method :offline },
          Class.new(Config) { def timeout = 0 },
          Class.new(Config) { def setup = raise("oops") },
          Class.new(Config) { def setup = super && raise("oops") }
        ]

        def launch(way, config)
          run = -> { OnlineManager.public_send(way, config.new, reactor: :#{reactor}) }
          case [:#{reactor}, way]
          in [:fiber, _] then Async { run.call rescue puts "refused" }
          in [:eventmachine, :setup] then EM.run(&run)
          else run.call
          end
        rescue StandardError
          puts "refused"
        end

        # How many: threads of Ruby's, threads of the process, descriptors.
        def things = [Thread.list.size, Dir.children("/proc/self/task").size, Dir.children("/proc/self/fd").size]

        # The libraries' own, which they keep.
        def warm_up
          EM.run { EM.stop }
          Async { sleep 0 }
        end

        warm_up
        before = things
        3.times { %i[run setup].product(CONFIGS).each { |way, config| launch(way, config) } }
        warm_up

        # Ruby keeps an idle thread for some seconds.
        deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 8
        until (left = things.zip(before).map { |now, earlier| now - earlier }).none?(&:positive?)
          break if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

          GC.start
          sleep 0.02
        end
        puts "left \#{left}"
      RUBY

      expect(process.lines.first(24)).to eq ["refused"] * 24
      expect(process.lines.last).to match(/\Aleft \[(0|-\d+), (0|-\d+), (0|-\d+)\]\z/), process.stderr
    end
  end
end
