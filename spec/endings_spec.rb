# frozen_string_literal: true

# Whichever way a reactor ends, one piece of code decides what follows (lib/online_manager/lifecycle.rb): everybody who
# is left is set offline once, never two at a time, nobody waits for ever, and the process ends as it would without the
# gem. The table is spec/support/endings.yml.
RSpec.describe "The end of a reactor, as a table" do
  it "has a row for each ending at each place" do
    endings = [
      "return", "raise", "throw", "exit", "abort", "kill self", "Interrupt", "SignalException", "killed from outside",
      "Timeout"
    ]
    expect(Endings.rows.keys).to eq [
      "in run", "in setup's reactor", "in stop", "at exit", "online in run", "online in setup's reactor",
      "heartbeat in run", "heartbeat in setup's reactor"
    ]
    expect(Endings.rows.values.map(&:keys)).to all eq(endings)
  end

  # @return [Hash{Symbol => Array<Integer>}] the users who must be set offline: `:exactly` those, and one of `:one_of`
  define_method(:users) do |cell|
    own = [[1, 2, 3], [11, 12, 13]].first(cell.managers)
    probed = cell.expected.alive_of(cell.managers).map { |manager| own[manager - 1].last + 1 }
    case cell.expected.offline
    when "all" then { exactly: own.flatten + probed }
    when "all, user 2 twice" then { exactly: [2, *own.flatten, *probed] }
    when "all, user 9 too" then { exactly: [9, *own.flatten, *probed] }
    when "one" then { one_of: own.flatten, exactly: probed }
    when "one of the first" then { one_of: own.first, exactly: own.drop(1).flatten + probed }
    end
  end

  # @param given [Array<Hash>] what the process of each cell is given
  # @return [Hash{Symbol => Hash}] how each ended, by its name
  define_method(:outcomes) do |reactor, given|
    env = { "BUNDLE_GEMFILE" => "#{RubyProcess::ROOT}/Gemfile" }
    process = command(RbConfig.ruby, "-w", "-rbundler/setup", "-r./spec/support/child/prelude", "-Ilib",
                      "spec/support/child/endings.rb", reactor.to_s, env:, limit: 120) do |child|
      child.puts(JSON.generate(given))
      child.close
    end
    expect(process.stderr).to be_empty
    JSON.parse(process.stdout, symbolize_names: true)
  end

  # Of every cell but those whose error the gem reports, where plain Ruby has nobody to report it.
  { thread: 67, eventmachine: 77, fiber: 67 }.each do |reactor, size|
    it "has the statuses of plain Ruby: #{reactor}" do
      cells = Endings.cells(reactor).select { |cell| cell.managers == 1 && !cell.expected.says&.match?(/line raised:/) }
      outcomes = outcomes(reactor, cells.map { |cell| cell.given(plain: true) })

      expect(outcomes.size).to eq size
      expect(outcomes.transform_values { |outcome| outcome.slice(:hung, :exitstatus, :termsig) })
        .to eq(cells.to_h { |cell| [cell.name.to_sym, cell.expected.end] })
    end
  end

  Endings::REACTORS.each do |reactor|
    context "with the reactor #{reactor.inspect}" do
      cells = Endings.cells(reactor)

      before(:context) do
        selected = self.class.filtered_examples.map { |example| example.metadata.fetch(:cell) }
        @outcomes = outcomes(reactor, selected.map(&:given))
      end

      cells.each do |cell|
        it "is the end of everybody, once: #{cell.name}", cell: do
          expected = cell.expected
          outcome = @outcomes.fetch(cell.name.to_sym)
          lines = outcome.fetch(:stdout).lines(chomp: true)
          offline = lines.grep(/\Aoffline/).map { |line| Integer(line.delete_prefix("offline ")) }
          users = users(cell)
          rest = offline - users.fetch(:exactly)

          expect(outcome).to include(expected.end), -> { outcome.inspect }
          expect(offline - rest).to match_array(users.fetch(:exactly))
          expect(rest.size).to eq(users.key?(:one_of) ? 1 : 0)
          expect(rest - users.fetch(:one_of, [])).to be_empty
          expect(lines).not_to include("overlap")
          expect(lines.grep(/\Aalive/).size).to eq expected.alive_of(cell.managers).size
          expect(outcome.fetch(:stderr)).to expected.says ? match(/#{expected.says}/m) : be_empty
        end
      end
    end
  end

  # Both were seen in real applications.
  context "when every offline ends it" do
    prelude = <<~RUBY
      require "online_manager"
      class Config
        def initialize(&offline) = @offline = offline
        def timeout = 60
        def setup = nil
        def online(_) = nil

        def offline(id)
          puts "offline \#{id}"
          @offline.call(id)
        end
      end
    RUBY

    {
      "exit" => ["exit 3", { exitstatus: 3 }], "abort" => ["abort", { exitstatus: 1 }],
      "kill" => ["Thread.current.kill", { exitstatus: 0 }]
    }.each do |name, (ending, status)|
      it "sets everybody offline at exit: #{name}" do
        process = ruby(<<~RUBY, limit: 5)
          #{prelude}
          manager = OnlineManager.new(Config.new { #{ending} }, reactor: :thread)
          manager.setup
          3.times { |id| manager.seen(id) }
        RUBY

        expect(process.lines).to contain_exactly("offline 0", "offline 1", "offline 2")
        expect(process.status).to have_attributes(status)
      end
    end

    it "ends at exit at the first of them, if that is a signal" do
      process = ruby(<<~RUBY, limit: 5)
        #{prelude}
        manager = OnlineManager.new(Config.new { raise Interrupt }, reactor: :thread)
        manager.setup
        3.times { |id| manager.seen(id) }
      RUBY

      expect(process.lines.size).to eq 1
      expect(process.status.termsig).to eq Signal.list["INT"]
    end

    it "lives on where the exit is rescued" do
      process = ruby(<<~RUBY, limit: 10)
        #{prelude}
        left = Thread::Queue.new
        manager = OnlineManager.new(Config.new { |id| id == :bad ? exit : left << id }, reactor: :thread)
        manager.setup
        begin
          manager.seen(:bad, timeout: 0.01)
          sleep 5
        rescue SystemExit
          puts "rescued"
        end
        10.times { |id| manager.seen(id, timeout: 0.01) }
        10.times { left.pop }
        puts manager.stats.slice(:state, :online, :due)
      RUBY

      expect(process.lines.first(2)).to eq ["offline bad", "rescued"]
      expect(process.lines[2..-2]).to match_array(Array.new(10) { |id| "offline #{id}" })
      expect(process.lines.last).to eq({ state: :running, online: 0, due: 0 }.to_s)
      expect(process).to be_success
    end

    it "does not nest one throw in the other" do
      process = ruby(<<~RUBY, limit: 10)
        #{prelude}
        config = Config.new { throw :out, "thrown" }
        manager = OnlineManager.new(config, reactor: :thread)
        config.define_singleton_method(:setup) do
          manager.seen_all(1..3000)
          manager.leave(1)
        end
        puts(catch(:out) { manager.run })
      RUBY

      expect(process.lines.last).to eq "thrown"
      expect(process.lines.uniq.size).to eq 3001
      expect(process.stderr).to be_empty
    end

    it "calls one offline at a time, where four threads stop a manager whose reactor has ended" do
      process = ruby(<<~RUBY, limit: 10)
        #{prelude}
        #{ABANDONING_SCHEDULER}
        inside = 0
        config = Config.new do
          inside += 1
          puts "overlap" if inside > 1
          sleep 0.001
          inside -= 1
        end
        manager = OnlineManager.new(config, reactor: :fiber)
        Thread.new do
          Fiber.set_scheduler(Scheduler.new)
          Fiber.schedule { manager.setup && nil }
        end.join
        manager.seen_all(1..20)
        puts Array.new(4) { Thread.new { manager.stop } }.sum(&:value)
      RUBY

      expect(process.lines).to match_array([*1..20].map { |id| "offline #{id}" } << "0")
      expect(process).to be_success
    end

    # The first throw out of a shutdown hook of EventMachine keeps it from calling the next one.
    it "sets the users of three managers offline at exit, on EventMachine: throw" do
      process = ruby(<<~RUBY, bundled: true, limit: 5)
        #{prelude}
        require "eventmachine"
        managers = Array.new(3) { OnlineManager.new(Config.new { throw :out }, reactor: :eventmachine) }
        ready = Thread::Queue.new
        Thread.new do
          catch(:out) do
            EM.run do
              managers.each.with_index { |manager, i| manager.setup || manager.seen_all([i * 2, i * 2 + 1]) }
              ready << true
            end
          end
        end
        ready.pop
      RUBY

      expect(process.lines).to match_array(Array.new(6) { |id| "offline #{id}" })
      expect(process).to be_success
    end

    it "waits no longer where a scheduler ends without its fibers while a stop waits for them" do
      process = ruby(<<~RUBY, limit: 5)
        #{prelude}
        #{ABANDONING_SCHEDULER}
        manager = OnlineManager.new(Config.new { nil }, reactor: :fiber)
        go = Thread::Queue.new
        thread = Thread.new do
          Fiber.set_scheduler(Scheduler.new)
          Fiber.schedule { manager.setup && nil }
          Fiber.new(blocking: true) { go.pop }.resume
        end
        Thread.pass until manager.stats[:state] == :running && thread.stop?
        manager.seen(1)
        stopper = Thread.new { manager.stop }
        Thread.pass until manager.stats[:state] == :stopping && stopper.stop?
        go << true
        puts stopper.value
      RUBY

      expect(process.lines).to eq ["offline 1", "0"]
      expect(process).to be_success
    end

    it "neither waits nor overlaps where a fiber that a callback has started stops the manager, on EventMachine" do
      process = ruby(<<~RUBY, bundled: true, limit: 5)
        #{prelude}
        require "eventmachine"
        inside = false
        manager = nil
        config = Config.new do
          puts "overlap" if inside
          inside = true
          Fiber.new { manager.stop }.resume
          inside = false
        end
        manager = OnlineManager.new(config, reactor: :eventmachine)
        config.define_singleton_method(:setup) do
          manager.seen_all(1..3)
          manager.leave(2)
        end
        manager.run
        puts manager.stats[:state]
      RUBY

      expect(process.lines).to contain_exactly("offline 1", "offline 2", "offline 3", "stopped")
      expect(process).to be_success
    end

    { "a fiber" => "Fiber.new { $manager.stop }.resume",
      "an Enumerator" => "Enumerator.new { |values| values << $manager.stop }.next" }.each do |name, stop|
      it "does not overlap at exit where #{name} that a callback has started stops the manager" do
        process = ruby(<<~RUBY, limit: 5)
          #{prelude}
          inside = false
          $manager = OnlineManager.new(Config.new do
            puts "overlap" if inside
            inside = true
            #{stop}
            inside = false
          end, reactor: :thread)
          $manager.setup
          $manager.seen_all(1..3)
        RUBY

        expect(process.lines).to contain_exactly("offline 1", "offline 2", "offline 3")
        expect([process.stderr, process]).to match ["", be_success]
      end
    end

    it "does not overlap where a stop on another thread finds a callback in a method named `yield`" do
      process = ruby(<<~RUBY, limit: 10)
        #{prelude}
        # Ruby calls no other method in it.
        class Busy
          def self.yield(until_stopped) = (nil until until_stopped[0])
        end
        inside = false
        stopping = [nil]
        $manager = OnlineManager.new(Config.new do |id|
          puts "overlap" if inside
          inside = true
          Busy.yield(stopping) if id == 1
          inside = false
        end, reactor: :thread)
        $manager.setup
        $manager.seen_all(1..3)
        $manager.leave(1)
        Thread.pass until inside
        Thread.new { sleep(0.5) && (stopping[0] = true) }
        $manager.stop
      RUBY

      expect(process.lines).to contain_exactly("offline 1", "offline 2", "offline 3")
      expect([process.stderr, process]).to match ["", be_success]
    end

    it "gives up where nobody can be called, since the framework exits before each callback" do
      process = ruby(<<~RUBY, limit: 5)
        #{prelude}
        manager = OnlineManager.new(Config.new { nil }, reactor: :thread)
        manager.setup
        manager.seen(1)
        OnlineManager::Integration.current.define_singleton_method(:around_delivery) { |&_| exit 3 }
      RUBY

      expect(process.lines).to be_empty
      expect(process.status.exitstatus).to eq 3
    end
  end
end
