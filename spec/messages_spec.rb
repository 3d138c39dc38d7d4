# frozen_string_literal: true

# Over 400 lines: it is one table.

require "eventmachine"
require "fileutils"
require "json"
require "socket"
require "stringio"
require "tmpdir"
require "online_manager/command"
require_relative "support/messages/fake_redis"
require_relative "support/rails/rails_bundle"
require_relative "support/messages/sources"

# Every message that a user can read: how it comes about, and its text. A message says what happened, with the value;
# what was expected; what to do.
RSpec.describe "The messages" do
  root = RubyProcess::ROOT

  rows = []

  # Adds a row.
  #
  # @param name [String] when the message appears
  # @param places [Hash{String => Array<String, Regexp>}] for each file what its statement has in it; folders as below
  # @param text [String, Regexp] what the user reads; a Regexp where the rest is Ruby's, the system's or a backtrace
  # @yieldreturn [String] the message, provoked; without a block it would take too much, and the places are all there is
  define_singleton_method(:message) do |name, places, text = nil, &provoke|
    rows << places
    next unless provoke

    it "#{name} is read like this" do
      expect(instance_exec(&provoke)).to text.is_a?(Regexp) ? match(text) : eq(text)
    end
  end

  around { |example| Dir.mktmpdir { |folder| Dir.chdir(folder) { example.run } } }

  let(:config) { MyConfig.new }
  # Has a store, and is not set up.
  let(:shared) { OnlineManager::SharedDelivery.new(OnlineManager::Config.new(config), sqlite, nil) { nil } }
  let(:sqlite) { OnlineManager::StoreOption.new("sqlite:presence.sqlite3") }

  before do
    stub_const("MyConfig", Class.new do
      define_method(:timeout) { 60 }
      define_method(:setup) { nil }
      define_method(:online) { |_| nil }
      define_method(:offline) { |_| nil }
    end)
  end

  after { OnlineManager.current&.stop(timeout: 5) }

  # @return [String, nil] the message of what the block raises
  def error
    yield
    nil
  rescue StandardError, LoadError => e
    e.message
  end

  # @return [String] what is printed on standard error, once that is something
  def printed
    before = $stderr
    said = $stderr = StringIO.new
    yield
    wait_until { !said.string.empty? }
    said.string.chomp
  ensure
    $stderr = before
  end

  def manager(config = self.config, reactor: :thread, **options) = OnlineManager.new(config, reactor:, **options)

  # @return [String] what the command prints, on either side
  def command_says(*argv, typed: "")
    out = StringIO.new
    OnlineManager::Command.new(input: StringIO.new(typed), out:, err: out).run(argv)
    out.string.chomp
  end

  # Creates a file, and returns what the block returns while a manager participates.
  def with_store(path, **options)
    participant = manager(store: "sqlite:#{path}", **options).tap(&:setup).tap(&:start)
    wait_until { participant.stats[:members] == 1 }
    yield
  ensure
    participant.stop
  end

  # @return [NativeMember] a manager's member of that store
  def member(store) = OnlineManager::StoreOption.new(store).open(shared, "")

  def child(script, **options)
    process = ruby(<<~RUBY, bundled: true, **options)
      require "online_manager"
      Warning[:experimental] = false

      class MyConfig
        attr_reader :heartbeat

        def timeout = 60
        def setup(&heartbeat) = @heartbeat = heartbeat
        def online(_) = nil
        def offline(_) = nil
      end

      begin
        #{script}
      rescue StandardError => e
        puts e.message
      end
    RUBY
    process.stdout.chomp
  end

  # -- lib/online_manager.rb: its arguments and its state -----------------------------------------------------------

  running = "lib/online_manager.rb"
  options = "lib/online_manager/options.rb"
  message("an option that there is not", { options => ["unknown option"] },
          "unknown option :timeout, :stores: expected :reactor, :store, :namespace or :max_sessions") do
    error { manager(timeout: 5, stores: 1) }
  end
  message("a number of sessions that is none", { options => ["max_sessions must be"] },
          "max_sessions must be an Integer from 1 to 1000000, got 0") { error { manager(max_sessions: 0) } }
  message("an unknown reactor", { options => ["unknown reactor"] },
          "unknown reactor :threads: expected :thread, :eventmachine or :fiber") do
    error { manager(reactor: :threads) }
  end
  message("an unknown store", { "lib/online_manager/store_option.rb" => ["unknown store"] },
          'unknown store 7: expected :memory, "sqlite:PATH" or "redis://…"') do
    error { manager(store: 7) }
  end
  message("a session in a shared store", { "lib/online_manager/store_option.rb" => ["a shared store keeps no"] },
          'a shared store keeps no sessions, got session: "tab"; leave it out, or use the store :memory') do
    error { manager(store: "sqlite:presence.sqlite3").seen(7, session: "tab") }
  end
  message("a namespace that is none", { "lib/online_manager/store_option.rb" => ["namespace must be"] },
          "namespace must be a String or a Symbol, got 7") { error { manager(namespace: 7) } }
  message("a namespace that is no text", { "lib/online_manager/store_option.rb" => ["namespace must be"] },
          'namespace must be valid in UTF-8, got "\xFF"') { error { manager(namespace: "\xFF") } }
  message("a namespace that has no form in UTF-8", { "lib/online_manager/store_option.rb" => ["namespace must be"] },
          'namespace must be valid in UTF-8, got "a\xFF"') { error { manager(namespace: "a\xFF".b) } }
  message("a store that is no text", { "lib/online_manager/store_option.rb" => ["valid in UTF-8"] },
          "store must be valid in UTF-8, got a String in UTF-8 that is not") { error { manager(store: "sqlite:\xFF") } }
  message("a namespace of the command that is no text",
          { "lib/online_manager/command/command_line.rb" => ["valid in UTF-8"] },
          /\Aonline_manager: the command line must be valid in UTF-8, got "\\xFF"\nUsage: /) do
    command_says("store", "a", "-n", "\xFF")
  end
  message("a timeout that is none", { "lib/online_manager/seconds.rb" => ["must be"] },
          'timeout must be a finite number of seconds above 0, got "soon"') do
    error { manager.seen(7, timeout: "soon") }
  end
  message("a timeout that a store cannot keep", { "lib/online_manager/store_option.rb" => ["must be at least"] },
          %r{\Atimeout must be at least 0\.\d+ s with the store sqlite:/.*/presence\.sqlite3, got 0\.1\z}) do
    error { manager(store: "sqlite:presence.sqlite3").seen(7, timeout: 0.1) }
  end
  message("a config's timeout that drops below that",
          { "lib/online_manager/shared_delivery.rb" => ["shorter than the store"] },
          /\AOnlineManager: MyConfig#timeout is 0\.1 s, shorter than the store \S+ can keep: 0\.\d+ s .*that\z/) do
    config.define_singleton_method(:timeout) { 0.1 }
    printed { shared.timeout }
  end
  message("a negative time to leave after", { "lib/online_manager/seconds.rb" => ["must be"] },
          "after must be a finite number of seconds, 0 or more, got -1") { error { manager.leave(7, after: -1) } }
  message("ids that are no collection", { running => ["user_ids must be"] },
          "user_ids must be an Array or another Enumerable, got 7") { error { manager.seen_all(7) } }
  message("a start before setup", { running => ["start was called"] },
          "start was called before the manager was set up: call setup or run first") { error { manager.start } }
  message("a heartbeat before setup", { "lib/online_manager/delivery.rb" => ["a heartbeat came"] },
          "a heartbeat came before the manager was set up: call setup or run first") { error { manager.seen(7) } }
  message("a second setup", { running => ["already running"] },
          "the manager is already running: call setup or run only once") { error { manager.tap(&:setup).setup } }
  message("a setup after a stop", { running => ["has been stopped"] },
          "the manager has been stopped and cannot be set up again: create a new one") do
    error { manager.tap(&:stop).setup }
  end
  message("a copy of a manager", { running => ["cannot be copied"] },
          "a manager cannot be copied by dup or clone: pass the manager itself around, or create another one with " \
          "OnlineManager.new") { error { manager.dup } }

  {
    0 => "the last offline has not returned", 1 => "1 user has not been set offline",
    2 => "2 users have not been set offline"
  }.each do |users, left|
    message("a stop that leaves #{users}",
            { running => ["the timeout of stop"], "lib/online_manager/integration.rb" => ["OnlineManager: "] },
            "OnlineManager: after 0.5 s, the timeout of stop, #{left} yet: that goes on in the background; " \
            "pass a longer timeout to wait for it") do
      stopping = manager
      allow(stopping).to receive(:size).and_return(users)
      printed { stopping.send(:warn_about_remaining, 0.5) }
    end
  end
  message("a stop that has not written everything", { running => ["the timeout of stop"] },
          "OnlineManager: after 0.5 s, the timeout of stop, not everything has been written to the store yet: that " \
          "goes on in the background; pass a longer timeout to wait for it") do
    printed { manager(store: "sqlite:presence.sqlite3").send(:warn_about_remaining, 0.5) }
  end

  # -- the config, and what it raises -------------------------------------------------------------------------------

  message("a config without its methods", { "lib/online_manager/config.rb" => ["has no method"] },
          "Object has no method `timeout', `setup', `online', `offline'; " \
          "a config needs timeout, setup, online, offline") { error { manager(Object.new).setup } }
  message("a config that does not answer", { "lib/online_manager/config.rb" => ["its last answer counts"] },
          /\AOnlineManager: MyConfig#respond_to\?\(:on_error\) raised; its last answer counts:\n.*no answer/) do
    config.define_singleton_method(:respond_to?) { |*args| @is_broken ? raise("no answer") : super(*args) }
    checked = manager.tap(&:setup)
    config.instance_variable_set(:@is_broken, true)
    printed { checked.instance_variable_get(:@config).on_error? }
  end
  message("a reload that takes a callback away", { "lib/online_manager/call.rb" => ["Config::Changed"] })
  message("a config whose method is private", { "lib/online_manager/config.rb" => ["is not public"] },
          "MyConfig#last_version is not public, so it cannot be called: make it public, or rename it if it is not " \
          "for online_manager") do
    config.define_singleton_method(:last_version) { nil }
    config.singleton_class.send(:private, :last_version)
    error { manager.setup }
  end
  message("a config that wants EventMachine", { "lib/online_manager/config.rb" => ["uses EventMachine"] },
          'MyConfig uses EventMachine, which is not loaded: add `gem "eventmachine"` to your Gemfile beside ' \
          "online_manager, and require it") do
    hide_const("EM")
    hide_const("EventMachine")
    config.define_singleton_method(:setup) { EventMachine.add_timer(1) }
    error { manager.setup }
  end
  message("a config whose code is gone", { "lib/online_manager/config.rb" => ["cannot be loaded"] },
          /\AMyConfig cannot be loaded: uninitialized constant MyConfig\b/) do
    named = OnlineManager::Config.new("MyConfig").tap(&:object).tap(&:invalidate)
    hide_const("MyConfig")
    error { named.object }
  end

  callbacks = "lib/online_manager/callback_invoker.rb"
  message("an offline that raises",
          { callbacks => ['raised", call'], "lib/online_manager/integration.rb" => ["error.full_message"] },
          /\AOnlineManager: MyConfig#offline raised:\n.*: no row \(RuntimeError\)$/) do
    config.define_singleton_method(:offline) { |_| raise "no row" }
    leaving = manager.tap(&:setup)
    printed { leaving.seen(7) && leaving.leave(7) }
  end
  message("an offline_all that raises", { callbacks => ['raised", call'] },
          /\AOnlineManager: MyConfig#offline_all \(1 user\) raised:\n/) do
    config.define_singleton_method(:offline_all) { |_| raise "no rows" }
    leaving = manager.tap(&:setup)
    printed { leaving.seen(7) && leaving.leave(7) }
  end
  message("an on_error that raises", { callbacks => ["on_error raised", "the error that on_error got"] },
          /\AOnlineManager:\ MyConfig\#on_error\ raised:\n.*:\ full\ \(IOError\)\n
           .*^OnlineManager:\ the\ error\ that\ on_error\ got:\n.*:\ no\ row\ \(RuntimeError\)/mx) do
    config.define_singleton_method(:on_error) { |*| raise IOError, "full" }
    shared.reactor = OnlineManager::Reactor.for_setup(:thread, shared)
    printed { shared.send(:report_to_config, RuntimeError.new("no row"), 7) }
  end
  message("a last_version that raises", { callbacks => ["last_version raised"] },
          /\AOnlineManager: MyConfig#last_version raised, and will be called again:\n.*: no table \(RuntimeError\)$/) do
    config.define_singleton_method(:last_version) { raise "no table" }
    printed { manager.tap(&:setup).seen(7) }
  end
  message("a last_version that is no number", { "lib/online_manager/config.rb" => ["must return an Integer or nil"] },
          'MyConfig#last_version must return an Integer or nil, got "7"') do
    config.define_singleton_method(:last_version) { "7" }
    error { OnlineManager::Config.new(config).last_version(10) }
  end
  message("a last_version that nothing can follow", { "lib/online_manager/config.rb" => ["must return a version"] },
          "MyConfig#last_version must return a version from 0 to 9, got 10; " \
          "return the highest one that a callback has got, or nil") do
    config.define_singleton_method(:last_version) { 10 }
    error { OnlineManager::Config.new(config).last_version(10) }
  end
  message("an event whose callback raises", { "lib/online_manager/shared_delivery.rb" => ["will be called again"] },
          /\AOnlineManager: MyConfig#online raised, and will be called again:\n.*: no row \(RuntimeError\)$/) do
    config.define_singleton_method(:online) { |_| raise "no row" }
    shared.reactor = OnlineManager::Reactor.for_setup(:thread, shared)
    printed { shared.deliver_events(:online, ["ann"], [1], [], [[:heartbeat, 0.0]], [0.0]) }
  end
  message("a callback that takes long", { "lib/online_manager/watchdog.rb" => ["has been running"] },
          "OnlineManager: MyConfig#offline has been running for 10 s: all other callbacks wait for it; " \
          "move slow work into a background job") do
    printed { OnlineManager::Watchdog.new(-> { "MyConfig" }).send(:warn_about, :offline) }
  end

  # -- reactors, Ractors, extension ---------------------------------------------------------------------------------

  event_machine = "lib/online_manager/reactor/event_machine.rb"
  message("EventMachine's reactor without its gem", { event_machine => ["needs the gem"] },
          'the reactor :eventmachine needs the gem eventmachine: add `gem "eventmachine"` to your Gemfile beside ' \
          "online_manager") do
    child(<<~RUBY)
      def require(name) = name == "eventmachine" ? raise(LoadError) : super
      OnlineManager.setup(MyConfig.new, reactor: :eventmachine)
    RUBY
  end
  message("EventMachine's reactor where it does not run", { event_machine => ["no EventMachine reactor"] },
          "no EventMachine reactor runs: call setup inside EM.run, or call run instead") do
    error { manager(reactor: :eventmachine).setup }
  end
  message("a setup that blocks EventMachine", { event_machine => ["has blocked"] },
          "OnlineManager: MyConfig#setup has blocked the EventMachine reactor for 0.01 s, so no user can be set " \
          "offline: let it return, or pass `reactor: :thread` if it has to block") do
    reactor = OnlineManager::Reactor.for_run(:eventmachine, shared)
    stub_const("OnlineManager::Reactor::EventMachine::WARN_AFTER", 0.01)
    printed { reactor.send(:warn_if_setup_blocks) { wait_until { !$stderr.string.empty? } } }
  end
  message("a fiber's reactor without a scheduler", { "lib/online_manager/reactor/fiber.rb" => ["needs a fiber"] },
          "the reactor :fiber needs a fiber scheduler on this thread: call setup or run inside `Async { }`, " \
          "or in a fiber of another scheduler") { error { manager(reactor: :fiber).setup } }
  message("a thread that is killed", { "lib/online_manager/reactor/thread.rb" => ["was ended by"] },
          "OnlineManager: the thread that calls offline was ended by Thread#kill: it has been restarted, and " \
          "no callback is lost; leave the thread named online_manager alone, also in callbacks") do
    manager.tap(&:setup).seen(7)
    printed { Thread.list.find { |thread| thread.name == "online_manager" }.kill }
  end
  message("a signal that a callback raises in a stop", { "lib/online_manager/reactor/thread.rb" => ["during a stop"] },
          "OnlineManager: a callback raised #<Interrupt: Interrupt> during a stop, which is over now: 1 user has not " \
          "been set offline; rescue signals in callbacks") do
    config.define_singleton_method(:offline) { |_| raise Interrupt }
    manager.tap(&:setup).seen_all([7, 8])
    printed { Thread.new { OnlineManager.current.stop }.join }
  end
  # Ruby 4.0 has the one, those before the other.
  taken = Ractor.method_defined?(:value) ? "value" : "take"
  message("the manager of another Ractor", { "lib/online_manager/registry.rb" => ["main Ractor"] },
          "OnlineManager.current may only be called from the main Ractor") do
    child(<<~RUBY)
      OnlineManager.setup(MyConfig.new)
      puts Ractor.new { OnlineManager.current rescue $!.message }.#{taken}
    RUBY
  end
  message("a heartbeat of another Ractor", { "ext" => ["a heartbeat may only be called"] },
          "a heartbeat may only be called from the main Ractor") do
    child(<<~RUBY)
      OnlineManager.setup(config = MyConfig.new)
      puts Ractor.new(Ractor.make_shareable(config.heartbeat)) { |shared| shared.call(7) rescue $!.message }.#{taken}
    RUBY
  end
  message("an extension that is not compiled", { "lib/online_manager/extension.rb" => ["no compiled extension"] },
          "online_manager has no compiled extension for Ruby 3.9, nor for any other: run `rake compile` in a " \
          "checkout, or install the gem again") { error { OnlineManager::Extension.path(Dir.pwd, ruby: "3.9.1") } }
  message("an extension for other Rubies", { "lib/online_manager/extension.rb" => ["no compiled extension"] },
          "online_manager has no compiled extension for Ruby 3.9, only for 3.1 and 3.10: to compile one, run " \
          "`gem uninstall online_manager --all --executables` and then `gem install online_manager --platform ruby`, " \
          "or set `force_ruby_platform: true` beside the gem's name in a Gemfile (with Bundler 2.3.18 or newer)") do
    %w[3.10 3.1].each do |version|
      FileUtils.mkdir(version)
      FileUtils.touch("#{version}/online_manager.#{RbConfig::CONFIG["DLEXT"]}")
    end
    error { OnlineManager::Extension.path(Dir.pwd, ruby: "3.9.1") }
  end

  # -- the binding --------------------------------------------------------------------------------------------------

  message("a heartbeat of two ids", { "ext" => ["wrong number of arguments"] },
          "wrong number of arguments (given 2, expected 1)") do
    config.define_singleton_method(:setup) { |&heartbeat| @heartbeat = heartbeat }
    manager.setup
    error { config.instance_variable_get(:@heartbeat).call(7, 8) }
  end
  message("a continuation of an earlier heartbeat", { "ext" => ["a continuation has entered"] },
          "a continuation has entered a call of online_manager again that had returned: call a continuation only " \
          "while the callback, or the method of an id, that captured it runs") do
    child(<<~RUBY)
      $VERBOSE = nil # "callcc is obsolete"
      require "continuation"
      captured = nil
      MyConfig.define_method(:online) { |_| captured ? captured.call : callcc { |its| captured = its } }
      OnlineManager.setup(MyConfig.new)
      puts [1, 2].filter_map { |id| OnlineManager.current.seen(id) && nil rescue $!.message }
      exit!
    RUBY
  end
  message("an id that a store cannot keep", { "ext" => ["a user id in a shared store must be"] },
          "a user id in a shared store must be an Integer, a String or a Symbol, got an object of the class Array: " \
          "pass the user's database id, for example") do
    error { member("sqlite:presence.sqlite3").online?([7]) }
  end
  message("a daemon that was forked too late", { "ext" => ["without Process._fork"] },
          "this process was forked without Process._fork, by Process.daemon for example, while the manager was using " \
          "its store: daemonize before the first heartbeat") do
    child(<<~RUBY)
      manager = OnlineManager.new(MyConfig.new, store: "sqlite:#{Dir.pwd}/presence.sqlite3")
      manager.setup
      manager.seen(1)
      Process.daemon(true, true)
      Thread.new { sleep 20 and exit! }
      begin
        manager.seen(2)
      rescue OnlineManager::Error => e
        puts e.message
      end
      $stdout.flush
      exit!
    RUBY
  end
  message("a descriptor that there is not", { "ext" => ["{action} failed", "starting the manager in this process"] },
          "starting the manager in this process failed: Too many open files (os error 24); check the limits of the " \
          "process (ulimit -a)") do
    child(<<~RUBY)
      OnlineManager.setup(MyConfig.new, reactor: :thread)
      Process.setrlimit(:NOFILE, 3)
      begin
        OnlineManager.current.seen(7)
      rescue OnlineManager::Error => e
        puts e.message
      end
      $stdout.flush
      exit!
    RUBY
  end
  # These take a system without threads or memory, or a bug.
  message("a thread or a pipe that there is not",
          { "ext" => ["pthread_atfork", "starting a thread", "duplicating the wakeup pipe"] })
  message("ids beyond number", { "ext" => ["more than 2**32 ids"] })
  message("a check that panics", { "ext" => ["its thread panicked"] })

  # -- stores, as the binding and lib word it -----------------------------------------------------------------------

  message("a store that does not answer", { "lib/online_manager/native_member.rb" => ["no answer from the store"] },
          "no answer from the store within 0.01 s: check that it can be reached") do
    error { member("sqlite:presence.sqlite3").send(:wait, 0.01) { :wait } }
  end
  message("a store that fails", { "lib/online_manager/shared_delivery.rb" => ["the store has failed"] },
          "OnlineManager: the store has failed, and is tried again until it works; heartbeats are kept meanwhile: " \
          "/p.sqlite3: disk full") { printed { shared.store_failed("/p.sqlite3: disk full") } }
  message("a member that cannot start", { "lib/online_manager/shared_delivery.rb" => ["could not become a member"] },
          "OnlineManager: this process could not become a member of the store, and tries again at its first " \
          "heartbeat: no thread") do
    allow(shared.native).to receive(:start).and_raise(OnlineManager::Error, "no thread")
    printed { shared.send(:start_after, 0) }
  end
  message("a store that is away at setup", { "ext" => ["the store cannot be reached"] },
          %r{\Athe store cannot be reached and will be tried again: redis://127\.0\.0\.1:\d+: .*refused}) do
    url = Messages::FakeRedis.new.tap(&:stop).url
    member(url).check.first
  end
  message("a file that the command does not find", { "ext" => ["there is no such file"] },
          "online_manager: nothing.sqlite3: there is no such file; pass the path of a store that a manager has " \
          "created") do
    command_says("store", "nothing.sqlite3")
  end

  # -- the command --------------------------------------------------------------------------------------------------

  usage = "\n#{OnlineManager::Command::CommandLine::USAGE}"
  {
    [] => ["no command", "no command: expected `store'"],
    ["stores"] => ["unknown command", "unknown command \"stores\": expected `store'"],
    ["store"] => ["no store", "no store: expected a path or a URL"],
    %w[store a b] => [" stores: expected one", "2 stores: expected one, or the URLs of one Redis Cluster"]
  }.each do |argv, (fragment, text)|
    message("`online_manager #{argv.join(" ")}'",
            { "lib/online_manager/command/command_line.rb" => [fragment],
              "lib/online_manager/command.rb" => ["e.message"] },
            "online_manager: #{text}#{usage}") { command_says(*argv) }
  end
  {
    %w[store a --watch --purge] => ["expected one of them", "--purge and --watch: expected one of them"],
    %w[store a --force] => ["--force without --purge", "--force without --purge"],
    %w[store a --purge b -n c] =>
      [" differ: write", '--purge "b" and --namespace "c" differ: write the namespace once'],
    %w[store a --requeue --json --users] =>
      [" with \#{actions.first}", "--users and --json with --requeue: they are only for a listing; leave them out"],
    %w[store a --purge --events] =>
      [" with \#{actions.first}", "--events with --purge: that is only for a listing; leave it out"],
    %w[store --purge presence.sqlite3] =>
      ["what is behind --purge", "no store: what is behind --purge is a namespace; write `online_manager store " \
                                 "PATH|URL --purge [NAMESPACE]'"]
  }.each do |argv, (fragment, text)|
    message("`online_manager #{argv.join(" ")}'", { "lib/online_manager/command/command_line.rb" => [fragment] },
            "online_manager: #{text}#{usage}") { command_says(*argv) }
  end
  message("a purge that is not confirmed",
          { "lib/online_manager/command.rb" => ["got \#{typed", "interrupted", "has begun to participate"] },
          /^Type chat to go on: online_manager: nothing was deleted: expected "chat", got "no"\z/) do
    with_store("presence.sqlite3", namespace: "chat") { nil }
    command_says("store", "presence.sqlite3", "--purge", "chat", typed: "no\n")
  end
  message("a purge beside processes", { "lib/online_manager/command.rb" => ["participate"] },
          /\Aonline_manager: nothing was deleted: 1 process participates \(.+:\d+\); stop it first, or .*\z/) do
    with_store("presence.sqlite3", namespace: "chat") { command_says("store", "presence.sqlite3", "--purge", "chat") }
  end
  message("requeued dead letters", {}, "requeued 0, dropped 0 that a later transition has superseded") do
    with_store("presence.sqlite3") { command_says("store", "presence.sqlite3", "--requeue") }
  end

  # -- Rails: in a child that has loaded it, see spec/support/child/channels.rb -------------------------------------

  context "with Rails" do
    before(:context) do
      @folder = Dir.mktmpdir("messages")
      env = Bundler.unbundled_env.merge(RailsBundle::ENVIRONMENT, "LC_ALL" => "C.UTF-8")
      @rails = RubyProcess.new(RbConfig.ruby, "-w", "-rbundler/setup", "-r#{root}/spec/support/child/prelude",
                               "#{root}/spec/support/child/channels.rb", chdir: @folder, env:)
      @rails.wait_for("ready")
      @answers = (1..).each
    end

    after(:context) do
      @rails&.kill
      FileUtils.rm_rf(@folder) if @folder
    end

    # @return [Object] what a script returns in the child
    def rails(script)
      @rails.puts(JSON.generate(script))
      answer = JSON.parse(@rails.wait_for(/\A{"(?:result|error)":.*/m, count: @answers.next)[0])
      raise answer["error"] if answer["error"]

      answer["result"]
    end

    # @param script [String] gets a Rails logger, at the level debug
    # @return [String] what is logged
    def logged(script)
      rails(<<~RUBY)
        Rails.logger = Logger.new(log = StringIO.new, formatter: ->(*, text) { text + "\\n" })
        integration = OnlineManager::Integration.current
        #{script}
        log.string.chomp
      RUBY
    end

    define_singleton_method(:message) do |name, places, text = nil, &provoke|
      rows << places
      it("#{name} is read like this") { expect(instance_exec(&provoke)).to text.is_a?(Regexp) ? match(text) : eq(text) }
    end

    channel = "lib/online_manager/rails/channel.rb"
    message("a channel without a manager", { channel => ["no manager runs"] },
            'OnlineManager::Error: no manager runs in the namespace "rooms": ' \
            "call OnlineManager.setup in an initializer") do
      rails('error_of { client(channel { presence_of(namespace: "rooms") { 7 } }).subscribe }')
    end
    message("a channel without presence_of", { channel => ["does not name the user"] },
            "OnlineManager::Error: ChatChannel does not name the user of its heartbeats: " \
            "add `presence_of { current_user.id }`") { rails("set_up; error_of { client(channel).subscribe }") }
    message("a connection that does not name its user",
            { "lib/online_manager/rails/heartbeat_channel.rb" => ["does not name the user"] },
            "OnlineManager::Error: Connection does not name the user of heartbeats for " \
            "OnlineManager::HeartbeatChannel: add `include OnlineManager::Connection` and " \
            "`presence_of { current_user.id }`") do
      rails("set_up; error_of { client(OnlineManager::HeartbeatChannel, Connection.new).subscribe }")
    end
    message("presence_of without a block", { "lib/online_manager/rails/presence_of.rb" => ["needs a block"] },
            "ArgumentError: presence_of needs a block, such as `presence_of { current_user.id }`") do
      rails("error_of { channel { presence_of } }")
    end
    message("the end of a subscription that fails", { channel => ["e.class"] },
            "OnlineManager: no settings (RuntimeError)") do
      rails(<<~RUBY).lines.grep(/OnlineManager/).first[/OnlineManager.*/]
        config = set_up
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        chat.perform(:heartbeat)
        def config.timeout = raise("no settings")
        chat.unsubscribe
        chat.connection.log
      RUBY
    end

    integration = "lib/online_manager/rails/integration.rb"
    message("code that cannot be reloaded", { integration => ["code cannot be loaded"] },
            "OnlineManager::Unloadable: the application's code cannot be loaded: syntax error") do
      rails(<<~RUBY)
        application = Struct.new(:reloader).new(Class.new { def self.wrap = raise(SyntaxError, "syntax error") })
        Rails.define_singleton_method(:application) { application }
        error_of { OnlineManager::Integration.current.around_delivery { nil } }
      RUBY
    end
    message("workers that share no store", { integration => ["both get heartbeats", "OnlineManager: \#{message}\")"] },
            "OnlineManager: process 2 and process 1 both get heartbeats, but do not share the store :memory: each " \
            "calls online and offline by its own heartbeats only. Share a store: " \
            "OnlineManager.setup(…, store: \"sqlite:storage/presence_\#{Rails.env}.sqlite3\")") do
      logged(<<~RUBY)
        lock = Object.new
        def lock.acquire(_) = 1
        integration.instance_variable_set(:@worker_lock, lock)
        Process.define_singleton_method(:pid) { 2 }
        integration.warn_if_not_alone(nil)
      RUBY
    end
    message("workers that cannot be counted", { "lib/online_manager/rails/worker_lock.rb" => ["cannot check"] },
            /\AOnlineManager: cannot check whether other workers use the store :memory: .*gone/) do
      logged(<<~RUBY)
        root = Pathname.new(Dir.mktmpdir).join("gone").tap { |root| root.write("no folder") }
        Rails.define_singleton_method(:root) { root }
        integration.warn_if_not_alone(nil)
      RUBY
    end
    message("an offline that raises", { integration => ["format_error(error)", "the user id of that error"] },
            "OnlineManager: MyConfig#offline raised:\nRuntimeError (no row)\ncaused by\nIOError (full)\n" \
            "OnlineManager: the user id of that error is 7") do
      logged(<<~RUBY)
        error = (raise IOError, "full" rescue (raise "no row" rescue $!))
        [error, error.cause].each { |one| one.set_backtrace([]) }
        integration.report(error, "MyConfig#offline raised", 7)
      RUBY
    end
    message("a subscriber that raises", { integration => ["a subscriber of"] },
            /\AOnlineManager: a subscriber of online\.online_manager raised:\nIOError \(full\)/) do
      logged('integration.send(:report_errors_of, "online.online_manager") { raise IOError, "full" }')
    end

    presence = "lib/online_manager/rails/presence.rb"
    model = <<~RUBY
      require "active_record"
      require "online_manager/rails/presence"
      class User < ActiveRecord::Base
        def self.has_attribute?(_) = false
        def self.primary_key = nil
        include OnlineManager::Presence
      end
    RUBY
    message("a model that is none", { presence => ["must be included"] },
            "TypeError: OnlineManager::Presence must be included in an ActiveRecord model, got Comparable") do
      rails("#{model}\nerror_of { Comparable.include(OnlineManager::Presence) }")
    end
    message("a model without the column", { presence => ["has no column"] },
            "OnlineManager::Error: the table users has no column `online`: " \
            "run `rails generate online_manager:install User` and migrate") do
      rails("#{model}\nerror_of { User.online }")
    end
    message("a model without a manager", { presence => ["no manager runs"] },
            "OnlineManager::Error: no manager runs: call OnlineManager.setup in an initializer") do
      rails("#{model}\nerror_of { User.online_now }")
    end
    message("a model without a primary key", { presence => ["no primary key"] },
            "OnlineManager::Error: User has no primary key to look user ids up by: set `self.primary_key`") do
      rails("set_up\n#{model}\nerror_of { User.online_now }")
    end

    generator = "lib/generators/online_manager/install/install_generator.rb"
    generating = <<~RUBY
      require "active_record"
      require "rails/generators"
      require "generators/online_manager/install/install_generator"
      install = ->(name) { OnlineManager::Generators::InstallGenerator.new([name], [], destination_root: Dir.pwd) }
      class Visit < ActiveRecord::Base
        def self.primary_key = %w[user_id day]
      end
    RUBY
    message("a generator without its model", { generator => ["no ActiveRecord model"] },
            "Thor::Error: There is no ActiveRecord model Nobody. Run `rails generate model Nobody` first.") do
      rails("#{generating}\nerror_of { install.call('Nobody').check_model }")
    end
    message("a generator for a model with a key of two columns", { generator => ["has the primary key"] },
            'Thor::Error: Visit has the primary key ["user_id", "day"]. ' \
            "A user id needs one of a single column: set `self.primary_key`.") do
      rails("#{generating}\nerror_of { install.call('Visit').check_model }")
    end
    message("a model that the generator cannot edit", { generator => ["return say"] },
            "Add `include OnlineManager::Presence` to Visit.") do
      rails("#{generating}\n$stdout, out = StringIO.new, $stdout\ninstall.call('Visit').include_presence_in_model\n" \
            "$stdout, said = out, $stdout\nsaid.string.gsub(/\\e\\[\\d+m/, '').chomp")
    end
    message("what a generator leaves to do", { generator => ["next_steps.tt"] },
            %r{\A\nWhat is left to do: .*presence_of { current_visit\.id }.*import "\./online_manager"}m) do
      rails("#{generating}\n$stdout, out = StringIO.new, $stdout\ninstall.call('Visit').show_next_steps\n" \
            "$stdout, said = out, $stdout\nsaid.string")
    end
  end

  # -- stores, as the crate words it: each names the path or the URL, without a password ----------------------------

  store = "ext/store"
  message("a store without a file", { store => [/names no file/] }, /sqlite:/) { error { manager(store: "sqlite:") } }
  message("a URL of something else", { store => [/unknown store|expected/] },
          %r{http://ann:\*\*\*@host.*:memory.*sqlite:PATH.*redis://}) { error { manager(store: "http://ann:secret@host") } }
  message("no URL of a cluster", { store => [/empty Array/] }, /empty Array.*URLs/) { error { manager(store: []) } }
  message("a socket of a cluster", { store => [/has no socket/] },
          %r{redis\+unix:///s.*has no socket; .*"redis://host:}) do
    error { return_warning(member(["redis+unix:///s"])) }
  end
  message("a cluster without a server that answers", { store => [/gives no answer/] })
  message("a cluster that is not complete", { store => [/no server of the cluster has/, /knows of no slot/] })
  message("a URL that is none of a cluster's", { store => [/URL of a server|Cluster/] }, %r{sqlite:/x.*redis://}) do
    error { manager(store: ["sqlite:/x"]) }
  end
  message("a URL that is none of Redis'", { store => [/URL/] }, %r{host:\*\*\*" has a port that .*redis://user:}) do
    error { manager(store: "redis://host:port") }
  end

  {
    "a folder" => [-> { FileUtils.mkdir("store") }, "store", /folder|directory/],
    "a file in no folder" => [-> {}, "no/store", /folder|directory/],
    "a file in a file" => [-> { FileUtils.touch("file") }, "file/store", /folder|directory/],
    "a file of something else" => [-> { File.write("store", "x" * 4096) }, "store", /not a database/],
    "another application's database" =>
      [-> { sql("CREATE TABLE t (x)") }, "store", /another application|not .*online_manager/]
  }.each do |what, (prepare, path, text)|
    message("a store that is #{what}",
            { store => [text, /names no file|may not be written|writable|read-only|write-ahead|could not be|cannot/] },
            text) do
      instance_exec(&prepare)
      error { member("sqlite:#{path}").check }.tap { |said| expect(said).to include("/#{path}: ") }
    end
  end
  message("an error of the disk", { store => [/SystemIoFailure/] })
  def sql(statement) = expect(command("sqlite3", "store", statement, chdir: Dir.pwd)).to(be_success)

  message("a store of a newer gem", { store => [/newer/] }, %r{/store: .*newer.*version}m) do
    with_store("store") { nil }
    sql("PRAGMA user_version = 999")
    error { member("sqlite:store").check }
  end
  message("a store that no manager has created", { store => [/there is no such store/] })
  message("a store that no manager could write", { store => [/there is nothing in it/] },
          /: there is nothing in it yet: no process has written to it, or none could\. Check the path, and that /) do
    FileUtils.touch("store")
    command_says("store", "store")
  end
  message("a namespace that the command cannot find", { store => [/there is no namespace/, /there is none yet/] },
          %r{/store: there is no namespace "nowhere" in it; there is "a"\. Check the name}) do
    with_store("store", namespace: "a") { command_says("store", "#{Dir.pwd}/store", "--namespace", "nowhere") }
  end
  message("the namespace without a name that the command cannot find", { store => [/there is no namespace/] },
          %r{/store: there is no namespace without a name in it; there are "a" and "b"\. Check the name}) do
    with_store("store", namespace: "a") { nil }
    with_store("store", namespace: "b") { command_says("store", "#{Dir.pwd}/store") }
  end
  message("a namespace beside the one without a name", { store => [/there is no namespace/] },
          %r{/store: there is no namespace "a" in it; there is the one without a name\. Check the name}) do
    with_store("store") { command_says("store", "#{Dir.pwd}/store", "-n", "a") }
  end
  message("a store that is not open", { store => [/the store is not open/] })
  message("a store that leaves an answer out", { store => [/has not answered a request/] })
  message("a store that was replaced",
          { store => [/replaced/, /data are gone|data|lost/, /Every process writes its users again/] })

  {
    "something else" => [{ answer: "HTTP/1.1 400\r\n" }, /Redis/],
    "silent about its version" => [{ redis_version: nil }, /version/],
    "too old" => [{ redis_version: "5.0.1" }, /5\.0\.1.*newer/],
    "still loading" => [{ loading: 1 }, /loading/],
    "one of a cluster" => [{ cluster_enabled: 1 }, /cluster.*as an Array; on the command line, add --cluster/i],
    "a Sentinel" => [{ redis_mode: "sentinel" }, /this is a Redis Sentinel.*give the URL of the master/],
    "a Sentinel of Valkey" => [{ server_mode: "sentinel" }, /this is a Redis Sentinel.*give the URL of the master/],
    "a replica" => [{ role: "slave", master_host: "first" }, /replica of first.*(?:master|primary)/],
    "one that evicts keys" => [{ maxmemory_policy: "allkeys-lru" }, /allkeys-lru.*noeviction/],
    "one that wants a password" => [{ answer: "-NOAUTH Authentication required.\r\n" },
                                    %r{Authentication required\. Write its password into the URL: redis://:password@h}],
    "one that wants another password" => [{ answer: "-WRONGPASS invalid username-password pair\r\n" },
                                          /WRONGPASS.*\. Check the user and the password/],
    "one of a cluster, which has one database" => [{ answer: "-ERR SELECT is not allowed in cluster mode\r\n" },
                                                   /one of a Redis Cluster.*as an Array.*--cluster/],
    "one whose user lacks a command" =>
      [{ denying: { "HGET" => "User default has no permissions to run the 'hget' command",
                    "XADD" => "this user has no permissions to run the 'xadd' command or its subcommand" } },
       /its user may not run hget, xadd\. Allow that: ACL SETUSER default \+hget \+xadd\. README\.md has the line/],
    "one whose user lacks the keys" =>
      [{ denying: { "EVALSHA" => "this user has no permissions to access one of the keys used as arguments" } },
       /its user may not use the key \{om::0\}:users\. Allow .*: ACL SETUSER default ~\{om:\*; or .*: \?prefix=…\z/],
    "one whose user may not run INFO" =>
      [{ denying: { "INFO" => "this user has no permissions to run the 'info' command",
                    "HELLO" => "this user has no permissions to run the 'hello' command" } },
       /may not run INFO, .*noeviction.*: ACL SETUSER default \+info\z/],
    "one with less databases" => [{ answer: "-ERR DB index is out of range\r\n" },
                                  /DB index is out of range\. .*`databases`.*0 to 15/],
    "something else, in several lines" => [{ answer: "no\nRedis\r\n" }, /this is no Redis: .*rediss:/]
  }.each do |what, (info, text)|
    message("a server that is #{what}",
            { store => [text, /\{error\}/, /names no server/, /maxmemory-policy is/, /its user may not/] }, text) do
      server = Messages::FakeRedis.new(**info)
      store = member(server.url)
      said = error { return_warning(store) }
      expect(said).to include(server.url)
      said
    ensure
      server.stop
    end
  end
  # A server that is away for now is a warning.
  def return_warning(store) = raise(store.check.first)

  {
    "redis://h?color=red" => /\?\*\*\*" has an unknown parameter. There is "db", /,
    "redis://h?timeout=5" => /\?timeout=\*\*\*" has an unknown parameter. There is "db", /,
    "redis+unix:///s?pass=a&b" => /\?pass=\*\*\*&\*\*\*" has an unknown parameter behind the password: in .*&" as /,
    "redis://h?db=one" => /has a "db" that is no number; write it as in "db=0"/,
    "redis://h/one" => %r{has behind its host a database that is no number; write it as in "redis://host:6379/0"},
    "redis://h:99999" => %r{"redis://h:99999" has a port that is no number from 1 to 65535; it may be "redis://user:},
    "redis:///0" => %r{names no host; it may be "redis://user:},
    "redis://h?db=1&db=2" => /has one parameter twice; write it once/,
    "redis://h/1?db=2" => /names two databases, one behind the host and one as "db"; write one of them/,
    "redis://h?user=ann" => /has a user or a password in its query; write /,
    "redis://h?prefix=a{b}" => /has a prefix with braces; it may have none/,
    "rediss://h?verify=all" => /has another "verify" than "none"; leave it out to verify .*, or write verify=none/,
    "redis://ann:1#b@h" => %r{"redis://\*\*\*" has .*percent-encoded: .*"#" as %23, .*"%" as %25\z},
    "redis://ann:1/b@h" => /percent-encoded/,
    "redis://ann:1?b@h" => /percent-encoded/,
    "redis://ann:p@a#b@h" => /percent-encoded/,
    "rediss://h#b" => /has a "#"; if it belongs to a password or a path, write it as %23, else leave it out/,
    "redis://h?PASSWORD=secret" => /\?PASSWORD=\*\*\*" has an unknown parameter/,
    "redis://h?%70assword=secret" => /\?\*\*\*" has a user or a password in its query/,
    "redis://ann:secret" => %r{"redis://ann:\*\*\*" has a port .*a password, write "@" and the host behind it},
    "sqlite:redis://ann:secret@h" => /"sqlite:\*\*\*" has a URL, or parameters, for a path; write "sqlite:PATH", or /,
    "sqlite::memory:" => /" would be a file of that name; :memory, a Symbol, is the store within one process/,
    "sqlite:file:x?mode=memory" => /has a URI for a file, which is not supported; write "sqlite:PATH"/,
    "http://h?db=1;Token=secret" => /\?db=1;Token=\*\*\*"/,
    "redis://h?ca_file=a" => %r{has a "ca_file", which is for TLS; write "rediss://…"}
  }.each do |url, text|
    message("the URL #{url}",
            { store => [/twice|two databases|in its query|"verify\\|is for TLS|has an? |behind its host|names no host/,
                        /is no URL of a Redis|\{fault\}|fault\.concat/] }, text) do
      error { manager(store: url) }
    end
  end
  message("URLs of a cluster that differ", { store => [/than the URL before it/] },
          /has another prefix or ca_file than the URL before it; write the same in all/) do
    error { manager(store: %w[redis://a?prefix=x redis://b?prefix=y]) }
  end
  message("TLS that fails",
          { store => [/untrusted\(host/, /TLS failed/, /expected a server with TLS/, /certificate/, /\{said\}/] })
  message("TLS with a server that has none", { store => [/NO_ANSWER/, /the connection timed out/] },
          %r{the server gives no answer to TLS; if it is one without TLS, write "redis://…"}) do
    silent = TCPServer.new("127.0.0.1", 0)
    Thread.new { silent.accept.tap { |client| client.readpartial(1) }.close }
    error { return_warning(member("rediss://127.0.0.1:#{silent.addr[1]}?verify=none")) }
  ensure
    silent.close
  end
  message("a server with TLS that gets none", { store => [/one with TLS/] },
          %r{ends the connection; if it is one with TLS, write "rediss://…"}) do
    server = TCPServer.new("127.0.0.1", 0)
    Thread.new { server.accept.tap { |client| client.readpartial(1) }.close }
    error { return_warning(member("redis://127.0.0.1:#{server.addr[1]}")) }
  ensure
    server.close
  end
  message("a file without certificates", { store => [/has no certificate/] },
          /the ca_file has no certificate; expected PEM, with -----BEGIN CERTIFICATE-----\z/) do
    File.write("key.pem", "a key")
    error { member("rediss://h?ca_file=#{Dir.pwd}/key.pem").check }
    error { member(["rediss://127.0.0.1:1?ca_file=#{Dir.pwd}/key.pem"]).check }
  end

  message("a file of certificates that is not there", { store => [/cannot be read/] },
          %r{\Arediss://h\S*: the ca_file cannot be read: No such}) do
    error { member("rediss://h?ca_file=/no/ca.pem").check }
  end
  message("a connection that is lost", { store => [/fork/, /lost/, /answer|reply/] })

  # -- the table is whole -------------------------------------------------------------------------------------------

  listed = lambda do |site, folder|
    rows.flat_map { |places| places.flat_map { |place, texts| place == folder || site.file == place ? texts : [] } }
        .any? { |text| text.is_a?(Regexp) ? site.text.match?(text) : site.text.include?(text) }
  end

  it "are all listed here: those of lib" do
    sites = Messages::Sources.ruby

    expect(sites.size).to be > 50
    expect(sites.reject { |site| listed.call(site, nil) }.map(&:to_s)).to be_empty
  end

  it "are all listed here: those of the crates" do
    store, binding = Messages::Sources.rust.partition { |site| site.file.start_with?("ext/store/") }

    expect([store.size, binding.size]).to all be > 10
    expect(binding.reject { |site| listed.call(site, "ext") }.map(&:to_s)).to be_empty
    expect(store.reject { |site| listed.call(site, "ext/store") }.map(&:to_s)).to be_empty
  end

  it "are listed here only if they are in the sources" do
    sources = { "ext" => Messages::Sources.rust }
    Messages::Sources.ruby.group_by(&:file).each { |file, sites| sources[file] = sites }
    stale = rows.flat_map { |places| places.except("ext/store").to_a }.flat_map do |file, texts|
      texts.reject { |text| sources.fetch(file, []).any? { |site| site.text.include?(text) } }
    end

    expect(stale).to be_empty
  end
end
