# frozen_string_literal: true

require "bigdecimal"
Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

# Invalid input, and input that is valid although it looks invalid: the class and message of the error, and that nothing
# else has changed. Ids are in bad_ids_spec.rb, options in bad_options_spec.rb.
RSpec.describe "Bad input" do
  # What ActiveSupport::Duration (5 to 8) has of a number: `to_f` by `method_missing`, and it claims to be a number.
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

  # Values that are no positive number of seconds, and the error's class and text.
  bad_seconds = {
    "abc" => ArgumentError, "" => ArgumentError, "5 s" => ArgumentError, "5".encode("UTF-16LE") => ArgumentError,
    0 => ArgumentError, -1 => ArgumentError, -0.0 => ArgumentError, Float::NAN => ArgumentError,
    Float::INFINITY => ArgumentError, -Float::INFINITY => ArgumentError, Complex(1, 1) => ArgumentError,
    duration.new(-5) => ArgumentError,
    :five => TypeError, true => TypeError, [5] => TypeError, Object.new => TypeError
  }

  stopped_message = "the manager has been stopped and cannot be set up again: create a new one"

  def wrong_seconds(kind, name, value, wanted: "a finite number of seconds above 0")
    raise_error(kind, "#{name} must be #{wanted}, got #{value.inspect}") { |error| expect(error.cause).to be_nil }
  end

  %i[thread eventmachine fiber].each do |reactor|
    context "with the reactor #{reactor.inspect}" do
      let(:reactor) { reactor }

      include_context "with a manager"
      include Conformance::Unchanged

      # @return [Object] what the manager's `run` or `setup` returned
      # @raise what it raised
      def launch(manager, way)
        way == :run ? host.run { manager.run }.value : host.call { manager.setup }
      end

      # Expects that the manager was not set up, and still can be.
      def expect_untouched(manager, config)
        expect([manager.stats[:state], manager.size, OnlineManager.current]).to eq [:new, 0, nil]
        expect(config.last(:setup)).to be_nil if config.respond_to?(:last)
        expect(Thread.list - @threads - [host.thread]).to be_empty
      end

      describe "a config" do
        %i[setup run].each do |way|
          %i[timeout setup online offline].each do |method|
            it "without `#{method}` is named in an error before `setup` is called (#{way})" do
              stub_const("Lacking", Class.new(Conformance::Config) { undef_method(method) })
              config = Lacking.new
              manager = OnlineManager.new(config, reactor:)

              message = "Lacking has no method `#{method}'; a config needs timeout, setup, online, offline"
              expect { launch(manager, way) }.to raise_error(ArgumentError, message)
              expect_untouched(manager, config)
            end
          end

          it "that is no config raises an error that names the missing methods (#{way})" do
            manager = OnlineManager.new(nil, reactor:)

            expect { launch(manager, way) }
              .to raise_error(ArgumentError, "NilClass has no method `timeout', `setup', `online', `offline'; " \
                                             "a config needs timeout, setup, online, offline")
            expect_untouched(manager, nil)
          end

          bad_seconds.each do |value, kind|
            it "whose timeout is #{value.inspect} raises an error before `setup` is called (#{way})" do
              config = recording(timeout: value)
              manager = OnlineManager.new(config, reactor:)

              expect { launch(manager, way) }.to wrong_seconds(kind, "Conformance::Config#timeout", value)
              expect_untouched(manager, config)
            end
          end
        end

        it "can be fixed and then set up" do
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
        # The manager keeps a timeout for 10 ms before it asks the config again.
        def wait_for_error(config)
          wait_until do
            config.heartbeat.call(7) && false
          rescue ArgumentError, TypeError
            true
          end
        end

        bad_seconds.each do |value, kind|
          it "that becomes #{value.inspect} later makes the yield raise and changes no state or deadline" do
            config = recording(timeout: 60)
            manager = start(config)
            manager.seen(7)
            manager.seen(8, timeout: 30)
            config.timeout = value
            wait_for_error(config)

            expect_unchanged(manager) do
              heartbeats = [-> { config.heartbeat.call(7) }, -> { manager.seen(9) }, -> { manager.seen_all([8, 9]) }]
              throughout(0.05) do
                expect(&heartbeats.sample).to wrong_seconds(kind, "Conformance::Config#timeout", value)
              end
            end
            expect(config.calls).to eq [[:online, 7], [:online, 8]]

            config.timeout = 0.05
            expect(config.heartbeat.call(9)).to be true
            eventually { expect(config.calls_of(9)).to eq %i[online offline] }
          end
        end

        it "that becomes invalid near a user's deadline does not postpone it" do
          config = recording(timeout: 0.2)
          manager = start(config)
          manager.seen(7)
          config.timeout = "soon"
          eventually { expect { manager.seen(8) }.to raise_error(ArgumentError) }

          # Keeps failing heartbeats coming until far beyond the deadline.
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
          it "that #{what} before `setup` is checked at the first heartbeat" do
            config = recording(timeout:)
            manager = start(config)

            expect(config.last(:setup)).to be_truthy
            [-> { config.heartbeat.call(7) }, -> { manager.seen(7) }].each do |heartbeat|
              expect_unchanged(manager) { expect(&heartbeat).to raise_error(kind, message) }
            end
            expect(config.calls).to be_empty

            config.timeout = 60
            expect(manager.seen(7)).to be true
          end

          it "that #{what} before `setup` may be set in `setup`" do
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
            # Checks that nobody left in between; `seen_all` is the other way to pass the value.
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
        # Expects the error from the block, and that the manager with its one user does not change.
        def expect_refusal(kind, message)
          config = recording
          manager = start(config)
          manager.seen(7)
          expect_unchanged(manager) { expect { yield manager, config.heartbeat }.to raise_error(kind, message) }
          expect(config.calls).to eq [[:online, 7]]
          expect(manager.seen(7)).to be true
        end

        bad_seconds.each do |value, kind|
          it "`timeout: #{value.inspect}` of a heartbeat or of stop is named in the error" do
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

        it "`timeout: false` is refused as no number" do
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

        it "that is missing or superfluous raises an error as for a method of one argument" do
          message = ->(given) { "wrong number of arguments (given #{given}, expected 1)" }
          expect_refusal(ArgumentError, message[0]) { |_, heartbeat| heartbeat.call }
          expect_refusal(ArgumentError, message[2]) { |_, heartbeat| heartbeat.call(7, 8) }
          expect_refusal(ArgumentError, message[3]) { |_, heartbeat| heartbeat.call(7, 8, 9) }
          expect_refusal(ArgumentError, message[0]) { |_, heartbeat| [nil].each { heartbeat.yield } }
          expect_refusal(ArgumentError, message[0]) { |manager, _| manager.seen }
          expect_refusal(ArgumentError, message[2]) { |manager, _| manager.seen(7, 8) }
        end

        it "of `yield` that is missing or superfluous raises an error where the config yields" do
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

        it "of seen_all that is no collection is named in the error" do
          message = ->(value) { "user_ids must be an Array or another Enumerable, got #{value}" }
          expect_refusal(TypeError, message["7"]) { |manager, _| manager.seen_all(7) }
          expect_refusal(TypeError, message["nil"]) { |manager, _| manager.seen_all(nil) }
          expect_refusal(TypeError, message['"abc"']) { |manager, _| manager.seen_all("abc") }
        end
      end

      describe "setup" do
        it "that ignores its block is no error" do
          config = Class.new(Conformance::Config) { def setup = :done }.new
          manager = OnlineManager.new(config, reactor:)
          @managers << manager

          expect(launch(manager, :setup)).to eq :done
          expect([manager.stats[:state], manager.seen(7)]).to eq [:running, true]
        end

        it "that raises passes the error on, sets its users offline and leaves nothing running" do
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
            expect { launch(manager, way) }.to raise_error(OnlineManager::Error, stopped_message)
          end
        end
      end

      describe "a manager" do
        it "that already runs raises an error and goes on" do
          config = recording
          manager = start(config)
          manager.seen(7)
          message = "the manager is already running: call setup or run only once"

          %i[setup run].each do |way|
            expect_unchanged(manager) do
              expect { launch(manager, way) }.to raise_error(OnlineManager::Error, message)
            end
          end
          expect(config.heartbeat.call(8)).to be true
        end

        it "that has been stopped raises an error and ignores heartbeats" do
          config = recording
          manager = start(config)
          manager.seen(7)
          expect([manager.stop, manager.stop, manager.stop(timeout: 0)]).to eq [0, 0, 0]

          %i[setup run].each do |way|
            expect { launch(manager, way) }.to raise_error(OnlineManager::Error, stopped_message)
          end
          expect([config.heartbeat.call(7), manager.seen(8), manager.seen(8, timeout: 1), manager.seen_all([7, 8])])
            .to eq [false] * 4
          # A stopped manager no longer checks the timeout.
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

        it "that has not been set up raises an error at a heartbeat and can still be set up" do
          config = recording
          manager = OnlineManager.new(config, reactor:)
          @managers << manager
          message = "a heartbeat came before the manager was set up: call setup or run first"

          [-> { manager.seen(7) }, -> { manager.seen(7, timeout: 5) }, -> { manager.seen_all([7]) }].each do |heartbeat|
            expect(&heartbeat).to raise_error(OnlineManager::Error, message)
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
end
