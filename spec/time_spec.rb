# frozen_string_literal: true

require "tmpdir"

# A wall clock that is stepped, and a process that is stopped for a while: only real time counts, and a user whose
# heartbeat comes before the claim is not set offline.
RSpec.describe "Time" do
  def application(script, reactor, **options, &block)
    ruby("require \"./spec/support/child/application\"\n#{script}", reactor.to_s, **options, bundled: true, &block)
  end

  describe "on a wall clock that is stepped" do
    libfaketime = Dir["/usr/lib/{*/,}faketime/libfaketimeMT.so.1"].first

    # Makes the wall clock follow a file; the monotonic clocks, and waits that use them, stay real.
    def faked(libfaketime)
      Dir.mktmpdir do |folder|
        clock = File.join(folder, "clock")
        File.write(clock, "+0")
        yield "LD_PRELOAD" => libfaketime, "FAKETIME_DONT_FAKE_MONOTONIC" => "1", "FAKETIME_NO_CACHE" => "1",
              "FAKETIME_TIMESTAMP_FILE" => clock
      end
    end

    %i[thread eventmachine fiber].each do |reactor|
      it "sets nobody offline early, keeps nobody online, and moves last_seen with the clock (#{reactor})" do
        skip "libfaketime is not installed" unless libfaketime

        process = faked(libfaketime) do |env|
          application(<<~RUBY, reactor, env:)
            CLOCK = ENV.fetch("FAKETIME_TIMESTAMP_FILE")
            CLOCKS = [Process::CLOCK_REALTIME, Process::CLOCK_MONOTONIC, Process::CLOCK_MONOTONIC_COARSE]

            def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

            # Sets the wall clock to a number of hours from the real time. Prints by how many hours each clock has
            # moved.
            def step(hours)
              before = [Time.now, *CLOCKS.map { |clock| Process.clock_gettime(clock) }]
              File.write("\#{CLOCK}.new", format("%+dh", hours))
              File.rename("\#{CLOCK}.new", CLOCK)
              after = [Time.now, *CLOCKS.map { |clock| Process.clock_gettime(clock) }]
              Application.say "steps \#{after.zip(before).map { |later, earlier| ((later - earlier) / 3600).round }}"
            end

            Application.setup(users: []) do |manager|
              Thread.new do
                manager.seen("stays", timeout: 600)
                heartbeat = now
                [5, -5, 0].each do |hours|
                  began = now
                  manager.seen("leaves", timeout: 0.2)
                  step(hours)
                  sleep 0.01 until manager.stats.values_at(:online, :departing) == [1, 0]
                  passed = now - began
                  Application.say "early after \#{passed} s" if passed < 0.2
                  Application.say "late after \#{passed} s" if passed > 60

                  age = Time.now - manager.last_seen("stays")
                  Application.say "seen \#{age} s ago and not \#{now - heartbeat}" if (now - heartbeat - age).abs > 60
                  Application.say "online: \#{manager.online_users}"
                end
                exit
              end
              Application.idle
            end
          RUBY
        end

        leaves = ["online leaves", "offline leaves", 'online: ["stays"]']
        expect(process.lines.grep_v(/^ready|^steps/)).to eq ["online stays", *leaves * 3, "offline stays"]
        expect(process.lines.grep(/^steps/))
          .to eq ["steps [5, 5, 0, 0]", "steps [-10, -10, 0, 0]", "steps [5, 5, 0, 0]"]
        expect([process.stderr, process.success?]).to eq ["", true]
      end
    end
  end

  describe "that a process is stopped for" do
    timeout = 0.2

    # Stops the process for longer than the timeout, and resumes it.
    define_method(:stop_for_a_while) do |process|
      process.signal(:STOP)
      wait_until { state_of(process) == "T" }
      throughout(timeout * 2) { expect(state_of(process)).to eq "T" }
      process.signal(:CONT)
    end

    # Runs a script, stops the process when it prints "waits", and writes to its stdin after it has resumed.
    def stopped_application(script, reactor)
      application(script, reactor) do |child|
        child.wait_for("waits")
        stop_for_a_while(child)
        child.puts "go"
      end
    end

    def state_of(process) = File.read("/proc/#{process.pid}/stat")[/\) (\w)/, 1]

    before { skip "there is no /proc" unless File.exist?("/proc/self/stat") }

    %i[thread eventmachine fiber].each do |reactor|
      { "on the reactor" => "commands << heartbeat", "on another thread" => "heartbeat.call; commands << -> {}" }
        .each do |where, send_and_resume|
        it "expires the silent user and not the user with a heartbeat #{where} before the claim (#{reactor})" do
          process = stopped_application(<<~RUBY, reactor)
            commands = Thread::Queue.new
            occupy = lambda do |user|
              next unless user == "occupant"

              Application.say "occupied"
              commands.pop.call
            end

            Application.setup(users: [], offline: occupy) do |manager|
              Thread.new do
                # The reactor is in this user's `offline` from before the stop until after the heartbeat.
                manager.seen("occupant")
                manager.leave("occupant")
                sleep 0.01 until manager.stats[:delivering]
                manager.seen_all(%w[silent present], timeout: #{timeout})
                Application.say "waits"

                $stdin.gets
                sleep 0.01 until manager.stats[:due] == 2
                heartbeat = -> { Application.say "heartbeat: \#{manager.seen("present", timeout: 600)}" }
                #{send_and_resume}

                sleep 0.01 until manager.stats.values_at(:online, :departing) == [1, 0]
                manager.seen("last")
                manager.leave("last") # due after everybody else
                sleep 0.01 until manager.stats.values_at(:online, :departing) == [1, 0]
                Application.say "online: \#{manager.online_users}"
                exit
              end
              Application.idle
            end
          RUBY

          expect(process.lines - ["ready", "occupied", "online occupant", "offline occupant"]).to eq [
            "online silent", "online present", "waits", "heartbeat: true", "offline silent",
            "online last", "offline last", 'online: ["present"]', "offline present"
          ]
          expect([process.stderr, process.success?]).to eq ["", true]
        end
      end

      it "expires the silent user when the reactor was waiting, and reports later heartbeats correctly (#{reactor})" do
        process = stopped_application(<<~RUBY, reactor)
          Application.setup(users: []) do |manager|
            Thread.new do
              manager.seen_all(%w[silent present], timeout: #{timeout})
              Application.say "waits"
              $stdin.gets
              manager.seen("present", timeout: 600)
              sleep 0.01 until manager.stats.values_at(:online, :departing) == [1, 0]
              Application.say "online: \#{manager.online_users}"
              exit
            end
            Application.idle
          end
        RUBY

        lines = process.lines - %w[ready waits]
        expect(lines.grep(/silent/)).to eq ["online silent", "offline silent"]
        # The heartbeat may arrive before the claim or after it.
        present = lines.grep(/line present/)
        expect(present).to eq(["online present", "offline present"] * (present.size / 2))
        expect(lines.last(2)).to eq ['online: ["present"]', "offline present"]
        expect([process.stderr, process.success?]).to eq ["", true]
      end
    end
  end
end
