# frozen_string_literal: true

require "json"
require_relative "support/api/documentation"
require_relative "support/api/reflection"
require_relative "support/api/signatures"
require_relative "support/rails/rails_bundle"

# The signatures declare exactly what exists.
RSpec.describe "The signatures in sig/" do
  root = RubyProcess::ROOT

  signatures = nil
  before(:context) { signatures = TimeLimit.enforce(60) { Signatures.new("#{root}/sig") } }

  # The classes that are written in Rust and private to the gem.
  native = %w[OnlineManager::NativeTracker OnlineManager::NativeMember]

  in_rails = <<~RUBY
    require "bundler/setup"
    require "json"
    require "rails"
    require "active_record"
    require "action_cable/engine"
    require "rails/generators"
    require "online_manager"
    require "generators/online_manager/install/install_generator"
    require "#{root}/spec/support/api/reflection"

    # It loads what the other Rails files need.
    OnlineManager::HeartbeatChannel
    found = ARGV.to_h { |name| [name, Reflection.of(Object.const_get(name))] }
    # What a model gets in addition.
    Class.new(ActiveRecord::Base) do
      define_singleton_method(:scope) do |name, body|
        parameters = body.parameters.map { |kind, parameter| Reflection.parameter(kind, parameter) }
        found.fetch("OnlineManager::Presence::ClassMethods").fetch("instance")[name.to_s] = parameters
      end
      include OnlineManager::Presence
    end
    puts JSON.generate(found)
  RUBY

  # @return [Hash{String => Hash}] the classes that need no Rails
  def plain(names)
    found = names.select { |name| Object.const_defined?(name) }
    found.to_h { |name| [name, Reflection.of(Object.const_get(name))] }
  end

  # @return [Hash{String => Hash}] the classes that need Rails
  define_method(:with_rails) do |names|
    process = ruby(in_rails, *names, env: RailsBundle::ENVIRONMENT)
    expect(process).to be_success, process.stderr
    JSON.parse(process.stdout)
  end

  # @param methods [Hash{String => Array<String>}] the methods with their parameters
  # @param real [Hash{String => Array<String>}] the real methods; parameters of Rust methods have no names
  def lines(methods, real)
    methods.map do |name, parameters|
      parameters = parameters.map { "_" } if real[name]&.any?("_")
      "#{name}(#{parameters.join(", ")})"
    end
  end

  # @param described [Hash] see {Signatures#of}
  # @return [Array<String>] everything in it, one line each
  def list(name, described, real)
    [*lines(described["instance"], real["instance"]).map { |line| "#{name}##{line}" },
     *lines(described["singleton"], real["singleton"]).map { |line| "#{name}.#{line}" },
     *described["constants"].map { |constant| "#{name}::#{constant}" }]
  end

  it "cover every documented class and the Rust classes" do
    expect(signatures.names).to match_array(Documentation.new("#{root}/lib").names + native)
  end

  it "declare exactly the methods, parameters and constants that exist", limit: 60 do
    real = plain(signatures.names)
    expect(real.keys).to include("OnlineManager", *native)
    real.update(with_rails(signatures.names - real.keys))

    expect(signatures.names.flat_map { |name| list(name, signatures.of(name), real[name]) })
      .to match_array(real.flat_map { |name, described| list(name, described, described) })
  end

  it "declare the error classes with their superclasses" do
    errors = signatures.names.select { |name| signatures.superclass(name) }

    expect(errors.to_h { |name| [name, signatures.superclass(name)] })
      .to eq(OnlineManager.constants.map { |name| OnlineManager.const_get(name) }
                          .select { |found| found.is_a?(Class) && found < Exception }
                          .to_h { |error| [error.name, error.superclass.name] })
  end

  it "pass RBS' own check", limit: 60 do
    process = ruby(<<~RUBY, bundled: true, limit: 60)
      require "rbs"
      require "rbs/cli"

      status = RBS::CLI.new(stdout: $stdout, stderr: $stderr).run(%w[-I sig validate])
      exit status if status.is_a?(Integer) # RBS 3 and later return one
    RUBY

    expect(process).to be_success, process.stdout + process.stderr
  end

  # RBS wraps the methods that it knows, and raises where an argument or a result does not have the declared type.
  it "declare the types of arguments and results", limit: 60 do
    env = { "RBS_TEST_TARGET" => ["OnlineManager", *native].join(","), "RBS_TEST_OPT" => "-I #{root}/sig",
            "RBS_TEST_LOGLEVEL" => "fatal" }
    process = ruby(<<~RUBY, bundled: true, env:, limit: 60)
      require "tmpdir"
      require "online_manager"
      require "rbs/test/setup"

      # RBS wraps a class when its body ends.
      class OnlineManager
        class NativeTracker; end
        class NativeMember; end
      end

      class Config
        def timeout = 0.5
        def setup(&heartbeat) = heartbeat.call(1)
        def online(user_id) = user_id
        def offline(user_id) = user_id
      end

      def use(manager)
        manager.setup
        manager.start
        [:a, "b", 1].each { |id| manager.seen(id, timeout: "2") and manager.seen(id) }
        manager.seen_all([1, 2], timeout: 3) and manager.seen_all(3..4)
        manager.leave(1) and manager.leave(2, after: 1.5)
        [1, 99].each { |id| manager.online?(id) and manager.last_seen(id) }
        [manager.online_users, manager.size, manager.timeout, manager.stats, manager.inspect, manager.namespace]
        sleep 0.5
        Process.wait(fork { exit! })
        manager.stop(timeout: 10)
      end

      use(OnlineManager.new(Config.new, reactor: :thread, namespace: "rooms"))
      Dir.mktmpdir do |folder|
        store = "sqlite:\#{folder}/presence.sqlite3"
        use(OnlineManager.new(-> { Config.new }, reactor: :thread, store:))
        OnlineManager::NativeMember.report(store, "", true, nil, 1)
        OnlineManager::NativeMember.requeue_dead_letters(store, "")
        OnlineManager::NativeMember.purge(store, "", true)
      end
      Thread.new { sleep 0.1 until OnlineManager.current; OnlineManager.current.stop }
      OnlineManager.run(Config.new, reactor: :thread)
      OnlineManager.setup("Config", reactor: :thread)
      puts "done"
    RUBY

    expect(process.stderr).to eq ""
    expect(process.lines).to eq ["done"]
    expect(process).to be_success
  end
end
