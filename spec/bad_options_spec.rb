# frozen_string_literal: true

require "tmpdir"
require "uri"
Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

# Unknown options, a missing reactor, and what remains of a manager that could not be set up: nothing.
RSpec.describe "Bad input" do
  describe "an option" do
    {
      { reactor: :threads } => "unknown reactor :threads: expected :thread, :eventmachine or :fiber",
      { reactor: "thread" } => 'unknown reactor "thread": expected :thread, :eventmachine or :fiber',
      { store: :disk } => 'unknown store :disk: expected :memory, "sqlite:PATH" or "redis://…"',
      { store: "users.db" } => 'unknown store "users.db"; there is :memory, "sqlite:PATH" and "redis://…"',
      { store: "sqlite:" } => 'the store "sqlite:" names no file; it must be "sqlite:PATH"',
      { store: nil } => 'unknown store nil: expected :memory, "sqlite:PATH" or "redis://…"',
      { store: "http://ann:secret@host" } =>
        'unknown store "http://ann:***@host"; there is :memory, "sqlite:PATH" and "redis://…"',
      { store: URI("redis://:secret@host") } =>
        'unknown store of the class URI::Generic: expected :memory, "sqlite:PATH" or "redis://…"',
      { store: ["redis://host", 7] } => 'unknown store 7: expected :memory, "sqlite:PATH" or "redis://…"',
      { namespace: 7 } => "namespace must be a String or a Symbol, got 7",
      { timeout: 5 } => "unknown option :timeout: expected :reactor, :store, :namespace or :max_sessions",
      { timeout: 5, reactor: :thread, stores: :memory } =>
        "unknown option :timeout, :stores: expected :reactor, :store, :namespace or :max_sessions"
    }.each do |options, message|
      it "is refused with an error that lists the valid ones: #{options}" do
        config = Conformance::Config.new
        threads = Thread.list

        %i[new setup run].each do |way|
          expect { OnlineManager.public_send(way, config, **options) }.to raise_error(ArgumentError, message)
        end
        expect([OnlineManager.current, config.last(:setup), Thread.list - threads]).to eq [nil, nil, []]
      end
    end
  end

  it "`reactor: :fiber` outside of a scheduler raises an error that says where to call it" do
    config = Conformance::Config.new
    manager = OnlineManager.new(config, reactor: :fiber)

    %i[setup run].each do |way|
      expect { manager.public_send(way) }.to raise_error(OnlineManager::Error, /needs a fiber scheduler on this thread/)
    end
    expect([manager.stats[:state], config.last(:setup)]).to eq [:new, nil]
  end

  describe "eventmachine that is missing" do
    # Runs a script in which EventMachine is neither a gem nor beside the standard library, where Debian installs it.
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
          # The setup thread that was killed may take a moment to end.
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
        it "is named to the caller who needs it: #{where} (#{way})" do
          process = without_eventmachine("Config.class_eval { #{method} }; OnlineManager.#{way}(Config.new)")

          expect(process.lines).to eq [*expected, "left: [1, nil]"]
          expect(process).to be_success, process.stderr
        end
      end
    end

    it "is named to the caller who asks for its reactor" do
      process = without_eventmachine("OnlineManager.run(Config.new, reactor: :eventmachine)")

      expect(process.lines).to eq [
        "OnlineManager::Error: the reactor :eventmachine needs the gem eventmachine: #{advice}", "left: [1, nil]"
      ]
    end

    it "is not needed by callers who do not ask for it" do
      process = without_eventmachine("OnlineManager.setup(Config.new)")

      expect(process.lines.first(1) + process.lines.last(1)).to eq ["online 7", "offline 7"]
    end

    it "does not change the error for other unknown names" do
      process = without_eventmachine("Config.class_eval { def setup = Em.run }; OnlineManager.run(Config.new)")

      expect(process.lines.first).to match(/\ANameError: uninitialized constant (Config::)?Em/)
    end
  end

  # Besides Ruby's threads and files, counts the extension's thread and descriptors.
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

        # The numbers of Ruby threads, of the process' threads and of its descriptors.
        def counts = [Thread.list.size, Dir.children("/proc/self/task").size, Dir.children("/proc/self/fd").size]

        # Makes the libraries start the threads and open the files that they keep.
        def warm_up
          EM.run { EM.stop }
          Async { sleep 0 }
        end

        warm_up
        before = counts
        3.times { %i[run setup].product(CONFIGS).each { |way, config| launch(way, config) } }
        warm_up

        # Ruby keeps an idle thread for some seconds.
        deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 8
        until (left = counts.zip(before).map { |now, earlier| now - earlier }).none?(&:positive?)
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
