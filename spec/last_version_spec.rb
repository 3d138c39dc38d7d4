# frozen_string_literal: true

Dir[File.join(__dir__, "support/store/*.rb")].each { |file| require file }

# The config's `last_version`: versions grow though the wall clock was set back across a restart.
RSpec.describe "A config with last_version" do
  # An hour ahead of the clock: the last version from before the clock was set back.
  let(:ahead) { Process.clock_gettime(Process::CLOCK_REALTIME, :microsecond) + 3_600_000_000 }

  # Records each call: [:online, id, version], or [:asked, whether it is on the thread of the callback].
  let(:config) do
    Class.new do
      attr_reader :calls, :errors, :threads

      def initialize(*answers)
        @answers = answers
        @calls = Queue.new
        @errors = Queue.new
        @threads = Queue.new
      end

      def timeout = 60
      def setup = @calls << :setup
      def online(id, version:) = note(:online, id, version)
      def offline(id, version:) = note(:offline, id, version)

      def last_version
        note(:asked)
        answer = @answers.size > 1 ? @answers.shift : @answers.first
        answer.is_a?(Exception) ? raise(answer) : answer
      end

      def note(*call)
        @threads << Thread.current
        @calls << call
      end
    end
  end

  let(:listening) { Class.new(config) { def on_error(error, id) = @errors << [error.class, error.message, id] } }

  before { OnlineManager::Call.instance_variable_set(:@version, 0) }

  after do
    @managers&.each { |manager| manager.stop(timeout: 5) }
    @store&.remove
    OnlineManager::Call.instance_variable_set(:@version, 0)
  end

  def manager(config, **options)
    (@managers ||= []) << OnlineManager.new(config, reactor: :thread, **options).tap(&:setup)
    @managers.last
  end

  def calls(config, count)
    wait_until { config.calls.size >= count }
    Array.new(count) { config.calls.pop }
  end

  # What the answer has to be below.
  def limit(kind) = { nil => 2**62, Stores::Sqlite => 2**62, Stores::Redis => 2**52 }.fetch(kind)

  def names(calls) = calls.map { |call| Array(call).first }

  # Waits until two users are online. Returns the number of calls.
  def calling_twice(config)
    wait_until { config.calls.size >= 5 }
    config.calls.size
  end

  def empty(queue) = Array.new(queue.size) { queue.pop }

  [nil, Stores::Sqlite, Stores::Redis].each do |kind|
    context "with #{kind || "no store"}" do
      let(:options) { kind ? (@store = kind.new).options : {} }

      it "is asked once, before the first callback and not by setup, on the thread of that callback" do
        calling = config.new(ahead)
        manager = manager(calling, **options)
        throughout(0.1) { expect(calling.calls.size).to eq 1 }
        manager.seen("ann")
        expect(names(calls(calling, 3))).to eq %i[setup asked online]
        expect(empty(calling.threads).uniq.size).to eq 1
        manager.seen("ben")
        manager.leave("ann")

        expect(names(calls(calling, 2))).to contain_exactly(:online, :offline)
      end

      it "has every version above its answer" do
        calling = config.new(ahead)
        manager = manager(calling, **options)
        manager.seen("ann")
        manager.leave("ann")
        versions = calls(calling, 4).last(2).map(&:last)

        expect(versions).to all be > ahead
        expect(versions).to eq versions.sort.uniq
      end

      it "may answer nil and 0" do
        [nil, 0].each do |answer|
          calling = listening.new(answer)
          manager = manager(calling, **options)
          manager.seen("ann #{answer.inspect}")
          calls(calling, 3)
          manager.stop
          expect(calling.errors).to be_empty
        end
      end

      it "may say the highest version that the store can count on from" do
        calling = listening.new(limit(kind) - 1)
        manager = manager(calling, **options)
        manager.seen("ann")
        manager.leave("ann")
        versions = calls(calling, 4).last(2).map(&:last)

        expect(versions).to eq versions.sort.uniq
        expect(versions).to all be >= limit(kind)
        expect(calling.errors).to be_empty
      end

      it "has room above whatever it may answer: a callback gets no version that a column of SQL has no bits for" do
        calling = listening.new((2**63) - 1)
        manager = manager(calling, **options)
        manager.seen("ann")
        manager.leave("ann")
        # A member asks once more: before it begins.
        versions = calls(calling, kind ? 6 : 5).filter_map { |call| call.last if call.is_a?(Array) && call.size == 3 }

        expect(versions.size).to eq 2
        expect(versions).to all be < 2**63
        expect(empty(calling.errors).map { |error| error[1] })
          .to all match(/must return a version from 0 to #{limit(kind) - 1}, got #{(2**63) - 1}; return the highest/)
      end

      {
        "-1" => [-> { -1 }, ArgumentError, /must return a version from 0 to \d+, got -1; return the highest/],
        "too much" => [-> { limit(kind) }, ArgumentError, /must return a version from 0 to \d+, got \d+; /],
        "1.5" => [-> { 1.5 }, TypeError, /must return an Integer or nil, got 1.5/],
        "a String" => [-> { "7" }, TypeError, /must return an Integer or nil, got "7"/],
        "false" => [-> { false }, TypeError, /must return an Integer or nil, got false/],
        "an exception" => [-> { IOError.new("no database") }, IOError, /no database/]
      }.each do |what, (answer, error, message)|
        it "loses no call and is asked again after #{what}" do
          calling = listening.new(instance_exec(&answer), ahead)
          manager = manager(calling, **options)
          expect(manager.seen("ann")).to be true
          wait_until { calling.calls.size >= 3 }
          manager.seen("ben")
          made = calls(calling, calling_twice(calling))

          expect(made.reject { |call| call == [:asked] }.map { |name, id| [name, id].compact })
            .to eq [[:setup], [:online, "ann"], [:online, "ben"]]
          expect(made.last.last).to be > ahead
          expect(made.count([:asked])).to eq 2
          expect(empty(calling.errors)).to match [[error, message, nil]]
        end
      end

      it "keeps nobody from being called, and is asked before each callback, while it is an error" do
        calling = listening.new(IOError.new("no database"))
        manager = manager(calling, **options)
        manager.seen("ann")
        # A member asks once more: before it begins.
        first = calls(calling, kind ? 4 : 3)
        manager.leave("ann")
        made = first + calls(calling, 2)

        expect(names(made).last(4)).to eq %i[asked online asked offline]
        expect(empty(calling.errors).size).to eq made.count([:asked])
      end

      it "is reported where there is no on_error" do
        printed = Queue.new
        allow(OnlineManager::Integration.current).to receive(:report) { |*report| printed << report }
        manager(config.new(IOError.new("no database"), ahead), **options).seen("ann")

        error, message, id = wait_until { !printed.empty? } && printed.pop
        expect([error.message, id]).to eq ["no database", nil]
        expect(message).to match(/#last_version raised, and will be called again\z/)
      end

      it "is asked by nobody if no callback comes" do
        calling = config.new(ahead)
        manager(calling, **options).stop
        expect(names(empty(calling.calls))).to eq %i[setup]
      end
    end
  end

  [Stores::Sqlite, Stores::Redis].each do |kind|
    context "with #{kind}" do
      let(:options) { (@store = kind.new).options }

      it "is waited for by a stop, which then writes the heartbeats with versions above the answer" do
        gate = Queue.new
        last_version = ahead
        calling = config.new
        calling.define_singleton_method(:last_version) { gate.pop.then { last_version } }
        first = manager(calling, **options)
        first.seen("ann")
        wait_until { first.stats[:delivering] == :last_version }
        stopping = Thread.new { first.stop }
        wait_until { first.stats[:state] == :stopping }
        gate << true
        expect(stopping.value).to eq 0
        expect(names(empty(calling.calls))).to eq %i[setup]

        heir = config.new(nil)
        manager(heir, **options).start
        expect(calls(heir, 3).last).to match [:online, "ann", be > last_version]
      end

      { "Thread#kill" => "Thread.current.kill", "throw" => "throw :out", "exit" => "exit 3" }.each do |name, ending|
        it "is asked again when #{name} has ended it, and loses no call" do
          process = ruby(<<~RUBY, bundled: true)
            require "online_manager"
            class Config
              def timeout = 60
              def setup = nil
              def online(id) = puts("online \#{id}")
              def offline(_) = nil

              def last_version
                puts "asked"
                #{ending} if (@count = @count.to_i + 1) == 1
              end
            end
            $stdout.sync = true
            manager = OnlineManager.new(Config.new, reactor: :thread, **#{options.inspect})
            manager.setup
            begin
              manager.seen("ann")
              sleep 0.02 until manager.stats.values_at(:online, :waiting) == [1, 0]
            rescue SystemExit
              retry
            end
            manager.stop
          RUBY
          expect(process.lines).to eq ["asked", "asked", "online ann"]
          expect(process).to be_success
        end
      end

      it "is asked again in a child of fork" do
        process = ruby(<<~RUBY, bundled: true)
          require "online_manager"
          class Config
            def timeout = 60
            def setup; end
            def last_version = puts("asked in \#{Process.pid == PARENT ? "the parent" : "the child"}")
            def online(id) = puts("online \#{id}")
            def offline(_) = nil
          end
          PARENT = Process.pid
          $stdout.sync = true
          manager = OnlineManager.new(Config.new, reactor: :thread, **#{options.inspect})
          manager.setup
          manager.seen("ann")
          sleep 0.02 until manager.stats.values_at(:online, :waiting) == [1, 0]
          Process.wait(fork do
            manager.seen("ben")
            sleep 0.02 until manager.stats.values_at(:online, :waiting) == [2, 0]
            manager.stop
          end)
        RUBY
        expect(process.stderr).to eq ""
        expect(process.lines.grep(/asked/)).to eq ["asked in the parent", "asked in the child"]
      end
    end
  end
end
