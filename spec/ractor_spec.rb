# frozen_string_literal: true

# Everything belongs to the main Ractor. What another Ractor attempts raises Ruby's error and changes nothing.
RSpec.describe "From another Ractor" do
  # In a child process: the first Ractor changes Ruby for good.
  prelude = <<~RUBY
    require "online_manager"

    Warning[:experimental] = false

    class Config
      attr_reader :heartbeat

      def timeout = 60
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(user_id) = puts("online \#{user_id}")
      def offline(user_id) = puts("offline \#{user_id}")
    end

    config = Config.new
    OnlineManager.setup(config, reactor: :thread)
    manager = OnlineManager.current
    manager.seen(:main)

    # Prints the result of a Ractor, or that it could not be started.
    def try(name)
      puts "\#{name}: \#{yield.take.inspect}"
    rescue Ractor::RemoteError => e
      puts "\#{name}: \#{e.cause.class}: \#{e.cause.message}"
    rescue Ractor::Error, TypeError => e
      puts "\#{name}: not started, \#{e.class}"
    end
  RUBY

  # Runs a script, which must leave the manager unchanged: the only user is set offline at the end.
  def outcomes(prelude, script)
    process = ruby(<<~RUBY)
      #{prelude}
      begin
        #{script}
      ensure
        puts "online: \#{manager.online_users}"
      end
    RUBY
    expect(process).to be_success, process.stderr
    first, *outcomes, users, last = process.lines
    expect([first, users, last]).to eq ["online main", "online: [:main]", "offline main"]
    outcomes
  end

  it "the class refuses calls and reports that a manager runs" do
    refused = outcomes(prelude, <<~RUBY)
      %i[new run setup].each do |name|
        try(name) do
          Ractor.new(name) do |method|
            Thread.current.report_on_exception = false
            OnlineManager.public_send(method, Config.new)
          end
        end
      end
      [nil, "other"].each do |namespace|
        try("current") do
          Ractor.new(namespace) do |name|
            Thread.current.report_on_exception = false
            OnlineManager.current(name)
          end
        end
      end
    RUBY

    expect(refused.map { |line| line[/\A\w+: \w+::\w+/] })
      .to eq(%w[new run setup current current].map { |name| "#{name}: Ractor::UnsafeError" })
  end

  it "a manager cannot be obtained" do
    refused = outcomes(prelude, <<~RUBY)
      native = manager.instance_variable_get(:@native)
      [manager, native, config.heartbeat].each do |object|
        try("copied") { Ractor.new(object) { |copy| copy } }
        try("moved") { Ractor.new { receive }.tap { |ractor| ractor.send(object, move: true) } }
      end
      MANAGER = manager
      try("named") do
        Ractor.new do
          Thread.current.report_on_exception = false
          MANAGER.size
        end
      end
    RUBY

    expect(refused.grep(/\A(copied|moved): not started, (TypeError|Ractor::\w*Error)\z/)).to eq refused.first(6)
    expect(refused.last).to start_with "named: Ractor::IsolationError"
  end

  {
    "made shareable" => "Ractor.make_shareable(manager)",
    "made shareable in an Array" => "Ractor.make_shareable([manager])",
    "made shareable as a copy" => "Ractor.make_shareable(manager, copy: true)",
    "moved" => "Ractor.new { receive }.send(manager, move: true)",
    "sent" => "Ractor.new { receive }.send(manager)"
  }.each do |what, attempt|
    { "before `setup`" => false, "after it" => true }.each do |moment, is_set_up|
      it "a manager cannot be #{what} #{moment}, and works on" do
        process = ruby(<<~RUBY)
          require "online_manager"
          Warning[:experimental] = false

          class Config
            def timeout = 60
            def setup(&heartbeat) = @heartbeat = heartbeat
            def online(user_id) = puts("online \#{user_id}")
            def offline(user_id) = puts("offline \#{user_id}")
          end

          manager = OnlineManager.new(config = Config.new, reactor: :thread)
          manager.setup if #{is_set_up}
          begin
            #{attempt}
          rescue Ractor::Error, TypeError => e
            puts e.class
          end
          manager.setup unless #{is_set_up}
          manager.seen(7)
          puts config.frozen?, manager.stats.slice(:state, :online)
          manager.stop
        RUBY

        expect(process.stderr).to be_empty
        expect(process.lines).to match [/\A(Ractor::Error|TypeError)\z/, "online 7", "false",
                                        { state: :running, online: 1 }.to_s, "offline 7"]
      end
    end
  end

  # Ruby considers a Proc from C to be shareable.
  it "the heartbeat refuses calls although it is shareable", limit: 60 do
    refused = outcomes(prelude, <<~RUBY)
      Ractor.make_shareable(config.heartbeat)
      try("yielded") do
        Ractor.new(config.heartbeat) do |heartbeat|
          Thread.current.report_on_exception = false
          [:other].each(&heartbeat)
        end
      end
      # Other threads at the same time, with ids of all kinds and without an id.
      ractors = Array.new(4) do
        Ractor.new(config.heartbeat.dup) do |heartbeat|
          Array.new(2_000) do |number|
            heartbeat.call(*[number, "text", [number], 1.5].sample(number % 3))
          rescue StandardError => e
            e.class
          end.tally
        end
      end
      20_000.times { config.heartbeat.call(:main) }
      puts ractors.map { |ractor| ractor.take.inspect }.uniq
    RUBY

    expect(refused).to eq ["yielded: Ractor::UnsafeError: a heartbeat may only be called from the main Ractor",
                           { ArgumentError => 1_333, Ractor::UnsafeError => 667 }.inspect]
  end
end
