# frozen_string_literal: true

# Every way in which a process ends, in real processes: the online users are set offline exactly once, and the process
# ends as it would without this gem, within two seconds.
RSpec.describe "The way out of a process" do
  include_context "with ways out"

  %i[thread eventmachine fiber].each do |reactor|
    context "with `run` (#{reactor})" do
      {
        "Ctrl-C" => { signal: :INT, says: /Interrupt/, termsig: Signal.list["INT"] },
        "SIGTERM" => { signal: :TERM, termsig: Signal.list["TERM"] },
        "SIGHUP" => { signal: :HUP, termsig: Signal.list["HUP"] }
      }.each do |name, outcome|
        it_ends_well name, "Application.run", reactor, **outcome
      end

      it_ends_well "an exception in setup", 'Application.run(ready: -> { raise "oops" })', reactor,
                   says: /oops \(RuntimeError\)/, exitstatus: 1
      it_ends_well "an exception in setup that is no StandardError", <<~RUBY, reactor, termsig: Signal.list["TERM"]
        Application.run(ready: -> { raise SignalException, "TERM" })
      RUBY
      it_ends_well "a signal in setup", <<~RUBY, reactor, termsig: Signal.list["TERM"]
        Application.run(ready: -> { Process.kill(:TERM, Process.pid) and sleep })
      RUBY
      it_ends_well "a signal in a setup that has waited", <<~RUBY, reactor, termsig: Signal.list["TERM"]
        Application.run(ready: -> { sleep 0.02 and Process.kill(:TERM, Process.pid) and sleep })
      RUBY
      it_ends_well "an exception in the main thread", <<~RUBY, reactor, says: /oops \(RuntimeError\)/, exitstatus: 1
        Application.run(ready: -> { Thread.new { Thread.main.raise("oops") } })
      RUBY
      it_ends_well "an exception in online", <<~RUBY, reactor, offline: [1, 2], says: /oops/, exitstatus: 1
        Application.run(online: ->(user) { raise "oops" if user == 3 })
      RUBY

      it_ends_well "exit in setup", "Application.run(ready: -> { exit 3 })", reactor, exitstatus: 3
      it_ends_well "exit in online", <<~RUBY, reactor, offline: [1, 2], exitstatus: 3
        Application.run(online: ->(user) { exit 3 if user == 3 })
      RUBY
      it_ends_well "exit in offline", <<~RUBY, reactor, exitstatus: 3
        Application.run(ready: -> { OnlineManager.current.leave(2) }, offline: ->(user) { exit 3 if user == 2 })
      RUBY
      it_ends_well "exit in the offline that the way out calls", <<~RUBY, reactor, signal: :INT, exitstatus: 3
        Application.run(offline: ->(user) { exit 3 if user == 2 })
      RUBY
      it_ends_well "exit in another thread", "Application.run(ready: -> { Thread.new { exit 3 } })", reactor,
                   exitstatus: 3
      it_ends_well "abort in setup", 'Application.run(ready: -> { abort "enough" })', reactor,
                   says: /\Aenough\Z/, exitstatus: 1
      it_ends_well "abort in another thread", 'Application.run(ready: -> { Thread.new { abort "enough" } })', reactor,
                   says: /\Aenough\Z/, exitstatus: 1

      it_ends_well "Thread#kill of the thread in run", <<~RUBY, reactor, prints: "back", exitstatus: 0
        thread = Thread.new { Application.run(ready: -> { Thread.new { thread.kill } }) }
        thread.join
        puts "back"
      RUBY
      it_ends_well "Timeout", <<~RUBY, reactor, prints: "execution expired", exitstatus: 0
        require "timeout"
        begin
          Timeout.timeout(0.3) { Application.run }
        rescue Timeout::Error => e
          puts e.message
        end
      RUBY

      on_another_thread = <<~RUBY
        ready = Thread::Queue.new
        Thread.new { Application.run(ready: -> { ready << true }) }
        ready.pop
      RUBY
      it_ends_well "the end of the script, with run on another thread", on_another_thread, reactor, exitstatus: 0
      it_ends_well "exit, with run on another thread", "#{on_another_thread}exit 3", reactor, exitstatus: 3
      it_ends_well "SIGTERM, with run on another thread", "#{on_another_thread}sleep", reactor,
                   signal: :TERM, termsig: Signal.list["TERM"]

      it_ends_well "stop in another thread", <<~RUBY, reactor, prints: "stopped", exitstatus: 0
        puts Application.run(ready: -> { Thread.new { OnlineManager.current.stop } }).stats[:state]
      RUBY
      it_ends_well "stop in a trap handler", <<~RUBY, reactor, signal: :USR1, prints: "stopped", exitstatus: 0
        trap(:USR1) { OnlineManager.current.stop }
        puts Application.run.stats[:state]
      RUBY
      it_ends_well "stop in online", <<~RUBY, reactor, prints: "stopped", exitstatus: 0
        puts Application.run(online: ->(user) { OnlineManager.current.stop if user == 3 }).stats[:state]
      RUBY
      it_ends_well "stop in offline", <<~RUBY, reactor, prints: "stopped", exitstatus: 0
        manager = Application.run(
          ready: -> { OnlineManager.current.leave(2) },
          offline: ->(user) { OnlineManager.current.stop if user == 2 }
        )
        puts manager.stats[:state]
      RUBY
    end

    context "with `setup` (#{reactor})" do
      it_ends_well "the end of the script", <<~RUBY, reactor, exitstatus: 0
        Application.setup { Application.end_reactor }
      RUBY
      {
        "Ctrl-C" => { signal: :INT, says: /Interrupt/, termsig: Signal.list["INT"] },
        "SIGTERM" => { signal: :TERM, termsig: Signal.list["TERM"] },
        "SIGHUP" => { signal: :HUP, termsig: Signal.list["HUP"] }
      }.each do |name, outcome|
        it_ends_well name, "Application.setup { Application.idle }", reactor, **outcome
      end

      it_ends_well "exit", "Application.setup { exit 3 }", reactor, exitstatus: 3
      it_ends_well "exit in another thread", <<~RUBY, reactor, exitstatus: 3
        Application.setup { Thread.new { exit 3 } and Application.idle }
      RUBY
      it_ends_well "exit in setup", "Application.setup(ready: -> { exit 3 })", reactor, exitstatus: 3
      it_ends_well "exit in online", <<~RUBY, reactor, offline: [1, 2], exitstatus: 3
        Application.setup(online: ->(user) { exit 3 if user == 3 })
      RUBY
      it_ends_well "exit in offline", <<~RUBY, reactor, exitstatus: 3
        Application.setup(offline: ->(user) { exit 3 if user == 2 }) do |manager|
          manager.leave(2)
          Application.idle
        end
      RUBY
      it_ends_well "abort", 'Application.setup { abort "enough" }', reactor, says: /\Aenough\Z/, exitstatus: 1
      it_ends_well "an exception", 'Application.setup { raise "oops" }', reactor, says: /oops/, exitstatus: 1
      it_ends_well "an exception in setup", 'Application.setup(ready: -> { raise "oops" })', reactor,
                   says: /oops/, exitstatus: 1
      it_ends_well "a signal in setup", <<~RUBY, reactor, termsig: Signal.list["TERM"]
        Application.setup(ready: -> { Process.kill(:TERM, Process.pid) and sleep })
      RUBY
      it_ends_well "an exception in the main thread", <<~RUBY, reactor, says: /oops/, exitstatus: 1
        Application.setup { Thread.new { Thread.main.raise("oops") } and Application.idle }
      RUBY
      it_ends_well "Thread#kill of the main thread", <<~RUBY, reactor, exitstatus: 0
        Application.setup { Thread.new { Thread.main.kill } and Application.idle }
      RUBY
      it_ends_well "stop in another thread, then exit", <<~RUBY, reactor, prints: "stopped", exitstatus: 0
        Application.setup do |manager|
          Thread.new do
            manager.stop
            puts manager.stats[:state]
            exit
          end
          Application.idle
        end
      RUBY
    end

    context "with a slow shutdown (#{reactor})" do
      # Another thread prints the line when the callback sleeps: see `signalled`. The line does not mean that `setup`
      # has ended: the first Ctrl-C may have come at its last instruction.
      slow = 'offline: ->(user) { Application.say_when_idle("slow #{user}"); sleep 30 }' # rubocop:disable Lint/InterpolationCheck

      def interrupt_slow(child)
        child.wait_for(/slow/)
        child.signal(:INT)
      end

      def expect_end_at_once(process)
        expect(transitions(process, "offline").size).to eq 1
        expect(process.status.termsig).to eq Signal.list["INT"]
      end

      { "run" => "Application.run(%s)", "setup" => "Application.setup(%s) { Application.idle }" }.each do |way, script|
        it "ends at once at a second Ctrl-C (#{way})" do
          process = signalled(:INT, format(script, slow), reactor, limit: 5) { |child| interrupt_slow(child) }
          expect_end_at_once(process)
        end

        it "ends at once at a second Ctrl-C, where the first one came within setup (#{way})" do
          hooks = "ready: -> { raise Interrupt }, #{slow}"
          process = application(format(script, hooks), reactor, limit: 5) { |child| interrupt_slow(child) }
          expect_end_at_once(process)
        end
      end

      # Also on the reactor, which then calls what it waits for.
      {
        "in another thread" => "Application.setup(%s) { |m| Thread.new { stop(m) } and Application.idle }",
        "on the reactor" => "Application.setup(%s) { |m| stop(m) and Application.idle }"
      }.each do |where, script|
        it "waits no longer than `stop(timeout:)` says and returns how many users are left (#{where})" do
          process = application(<<~RUBY, reactor, limit: 5) { |child| child.wait_for("ready") }
            def stop(manager)
              start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
              puts "left \#{manager.stop(timeout: 0.2)}", "size \#{manager.size}"
              puts "in time" if Process.clock_gettime(Process::CLOCK_MONOTONIC) - start < 1
              exit!
            end

            #{format(script, "users: 1..50, offline: ->(_) { sleep 0.15 }")}
          RUBY

          left = Integer(process.stdout[/^left (\d+)/, 1])
          expect(left).to be_between(40, 49)
          expect(process.lines.last(2)).to eq ["size #{left}", "in time"]
          expect(transitions(process, "offline").size).to eq 50 - left
          expect(process.stderr).to eq "OnlineManager: after 0.2 s, the timeout of stop, #{left} users have not been " \
                                       "set offline yet: that goes on in the background; pass a longer timeout to " \
                                       "wait for it\n"
        end
      end
    end

    it "ends at once on exit! and leaves everybody online (#{reactor})" do
      ["exit!(3)", 'exec("exit 3")'].each do |exit|
        process = application("Application.run(ready: -> { #{exit} })", reactor, limit: 5) do |child|
          child.wait_for("ready")
        end

        expect(process.lines).to eq ["online 1", "online 2", "online 3", "ready"]
        expect_end(process, exitstatus: 3)
      end
    end

    it "loses nobody and calls nobody twice when it is interrupted at any point (#{reactor})" do
      process = application(<<~RUBY, reactor, limit: 30)
        class Crowd
          attr_reader :calls

          def initialize(alarm)
            @alarm = alarm
            @calls = Hash.new(0)
          end

          def timeout = 1e-9

          def setup
            OnlineManager.current.seen_all(1..3000)
            @alarm.write(".")
          end

          def online(user) = @calls[user] += 1
          def offline(user) = @calls[user] += 1_000
        end

        # In its own process, so that the signal comes at any point and not only where Ruby switches threads.
        run, alarm = IO.pipe
        main = Process.pid
        ringer = fork do
          alarm.close
          while run.read(1)
            sleep rand * 0.06
            Process.kill(:USR1, main)
          end
        end
        run.close

        Alarm = Class.new(Interrupt)
        rung = false
        trap(:USR1) { rung = true and raise Alarm }

        rounds = 0
        in_delivery = false
        until in_delivery && rounds >= 40
          rounds += 1
          config = Crowd.new(alarm)
          rung = false
          begin
            manager = OnlineManager.new(config, reactor: REACTOR)
            REACTOR == :fiber ? Async { manager.run }.wait : manager.run
          rescue Alarm
            in_delivery = true if $!.backtrace.grep(/delivery/).any?
          rescue ThreadError # from nio4r, see `signalled`
            raise unless REACTOR == :fiber && $!.cause.is_a?(Alarm)
          end
          sleep 0.001 until rung
          wrong = config.calls.reject { |_, calls| calls == 1_001 }
          puts "wrong: \#{wrong.inspect}" if wrong.any?
        end
        alarm.close
        Process.wait(ringer)
      RUBY
      expect(process.stdout).to be_empty
      expect(process).to be_success, -> { process.stderr }
    end
  end
  # Like the tests of minitest and RSpec, which can start in an at_exit that runs after ours.
  it "sets everybody offline who comes online in an at_exit" do
    process = application(<<~RUBY, :thread)
      at_exit do
        Application.setup(users: [4, 5])
        at_exit { puts "last" }
      end
      at_exit { Application.setup(users: [6]) }
      Application.setup
    RUBY

    # Users who leave at the same time do so in any order.
    lines = process.lines.chunk_while { |*both| both.all?(/^offline/) }.flat_map(&:sort)
    expect(lines).to eq [
      "online 1", "online 2", "online 3", "ready", "offline 1", "offline 2", "offline 3",
      "online 6", "ready", "offline 6",
      "online 4", "online 5", "ready", "last", "offline 4", "offline 5"
    ]
    expect(process).to be_success
  end

  it "restarts its thread in an at_exit too and lets it end with the process" do
    process = application(<<~RUBY, :thread)
      at_exit do
        Application.setup(users: [4])
        sleep 0.01 until (thread = Thread.list.find { |other| other.name == "online_manager" })
        thread.kill.join
        OnlineManager.current.seen(5, timeout: 0.01)
        sleep 0.01 while OnlineManager.current.online?(5)
      end
      Application.setup(users: [])
    RUBY

    expect(process.lines - ["ready"]).to eq ["online 4", "online 5", "offline 5", "offline 4"]
    expect(process.stderr.lines.size).to eq 1
    expect(process.stderr).to include "has been restarted"
  end
end
