# frozen_string_literal: true

# A callback can leave `run` without an exception, and no `ensure` runs: a fiber stops in the middle of it, or a
# continuation (`callcc`) goes back to before it. Nobody waits for it then, and everybody else is set offline once.
RSpec.describe "A callback that leaves `run` and never comes back" do
  prelude = <<~RUBY
    require "online_manager"
    require "fiber"
    $VERBOSE = nil # "callcc is obsolete"
    require "continuation"
    $VERBOSE = true
    $stdout.sync = true

    class Config
      attr_writer :manager

      def initialize(&leave) = @leave = leave
      def timeout = 60
      def online(_) = nil

      def setup(&heartbeat)
        3.times(&heartbeat)
        @manager.leave(1)
      end

      def offline(id)
        puts "offline \#{id}"
        @leave.call if id == 1
      end
    end

    def manager(reactor, **options, &leave)
      require "eventmachine" if reactor == :eventmachine
      config = Config.new(&leave)
      config.manager = OnlineManager.new(config, reactor:, **options)
    end

    at_exit { at_exit { puts $manager.stats.values_at(:state, :departing, :internal_errors).inspect } }
  RUBY

  # How it leaves: the body of `offline`, and the call of `run`.
  ways = {
    "Fiber.yield" => ["Fiber.yield", "Fiber.new { $manager.run }.resume"],
    "Fiber#transfer" => ["$main.transfer", "($main = Fiber.current) && Fiber.new { $manager.run }.transfer"],
    "an Enumerator" => ["$values << 1", "Enumerator.new { |values| ($values = values) && $manager.run }.next"],
    "a continuation" => ["$before.call(true)", "$manager.run unless callcc { |before| ($before = before) && nil }"]
  }

  %i[thread eventmachine].each do |reactor|
    ways.each do |name, (leave, run)|
      it "takes nobody with it at exit: #{name} (#{reactor})" do
        process = ruby(<<~RUBY, bundled: true, limit: 10)
          #{prelude}
          $manager = manager(:#{reactor}) { #{leave} }
          #{run}
          puts "left"
        RUBY

        expect(process.lines.first(2)).to eq ["offline 1", "left"]
        expect(process.lines[2..-2]).to contain_exactly("offline 0", "offline 2")
        expect([process.lines.last, process.stderr]).to eq ["[:stopped, 0, 0]", ""]
        expect(process).to be_success
      end
    end

    ways.slice("Fiber.yield", "a continuation").each do |name, (leave, run)|
      it "takes nobody with it in a stop: #{name} (#{reactor})" do
        process = ruby(<<~RUBY, bundled: true, limit: 10)
          #{prelude}
          $manager = manager(:#{reactor}) { #{leave} }
          #{run}
          puts "left \#{$manager.stop}"
        RUBY

        expect(process.lines.first(3)).to contain_exactly("offline 0", "offline 1", "offline 2")
        expect(process.lines.drop(3)).to eq ["left 0", "[:stopped, 0, 0]"]
        expect([process.stderr, process]).to match ["", be_success]
      end

      it "keeps no stop on another thread waiting: #{name} (#{reactor})" do
        process = ruby(<<~RUBY, bundled: true, limit: 10)
          #{prelude}
          $manager = manager(:#{reactor}) { #{leave} }
          #{run}
          puts "left \#{Thread.new { $manager.stop }.value}"
        RUBY

        expect(process.lines.first(3)).to contain_exactly("offline 0", "offline 1", "offline 2")
        expect(process.lines.drop(3)).to eq ["left 0", "[:stopped, 0, 0]"]
        expect([process.stderr, process]).to match ["", be_success]
      end

      it "keeps no stop with a store waiting: #{name} (#{reactor})" do
        Dir.mktmpdir do |folder|
          process = ruby(<<~RUBY, bundled: true, limit: 10)
            #{prelude}
            $manager = manager(:#{reactor}, store: "sqlite:#{folder}/presence.sqlite3") { #{leave} }
            #{run}
            puts "left \#{$manager.stop}", $manager.stats.values_at(:online, :waiting, :members).inspect
          RUBY

          # The event of user 1 waits, since its callback has not returned.
          expect(process.lines).to eq ["offline 1", "left 0", "[2, 1, 0]", "[:stopped, nil, 0]"]
          expect([process.stderr, process]).to match ["", be_success]
        end
      end
    end
  end

  it "is not called again where its fiber comes back after all" do
    process = ruby(<<~RUBY, limit: 10)
      #{prelude}
      $manager = manager(:thread) { Fiber.yield }
      fiber = Fiber.new { $manager.run && nil }
      fiber.resume
      $manager.stop
      fiber.resume
      puts fiber.alive?
    RUBY

    expect(process.lines.first(3)).to contain_exactly("offline 0", "offline 1", "offline 2")
    expect(process.lines.drop(3)).to eq ["false", "[:stopped, 0, 0]"]
    expect([process.stderr, process]).to match ["", be_success]
  end
end
