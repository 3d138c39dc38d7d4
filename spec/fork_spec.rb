# frozen_string_literal: true

# Forks, in real processes: the child starts with nobody online, works, and exits without touching its parent's users;
# the parent goes on as if nothing had happened.
#
# Over 400 lines: one kind of fork after the other, each with the whole script of its processes.
RSpec.describe "A fork" do
  # @param script [String] may call what support/child/forking.rb defines
  def application(script, reactor, *args, **options, &block)
    ruby("require \"./spec/support/child/forking\"\n#{script}", reactor.to_s, *args, bundled: true, **options, &block)
  end

  def lines(process, pattern) = process.lines.grep(pattern)

  # The output of a child that calls `run_child_users`.
  def self.life = ["child finds []", "child online 7", "child offline 7", "child online 8", "child offline 8"]
  def life = self.class.life

  # @param script [String]
  # @param offline [Array] the users who are offline before the parent goes on
  # @param children [Integer]
  # @param child [Array<String>] the output of each child
  def self.it_isolates(name, script, reactor, offline: [], children: 1, child: life)
    it "separates parent and child: #{name}" do
      process = application(script, reactor)

      expect(lines(process, /^child/)).to match_array(child * children)
      expect(lines(process, /^ended|^goes/)).to eq [*["ended 5"] * children, "goes on with #{[1, 2, 3] - offline}"]
      expect(lines(process, /^(online|offline)/))
        .to contain_exactly(*[1, 2, 3, 9].flat_map { |user| ["online #{user}", "offline #{user}"] })
      expect([process.stderr, process.success?]).to eq ["", true]
    end
  end

  %i[thread eventmachine fiber].each do |reactor|
    context "with the reactor #{reactor}" do
      it_isolates "before the first heartbeat", <<~RUBY, reactor
        Application.setup(users: []) do |manager|
          beside_reactor do
            fork_and_reap
            manager.seen_all([1, 2, 3])
            check_parent
          end
        end
      RUBY

      {
        "setup" => "Application.setup(%s) { beside_reactor { check_parent } }",
        "run" => "Application.run(%s, ready: -> { Thread.new { check_parent } })"
      }.each do |way, script|
        it_isolates "in online (#{way})", format(script, "online: ->(user) { fork_and_reap if user == 3 }"), reactor
      end

      {
        "setup" => "Application.setup(%s) { |manager| beside_reactor { %s } }",
        "run" => "Application.run(%s, ready: -> { manager = OnlineManager.current and Thread.new { %s } })"
      }.each do |way, script|
        it_isolates "after heartbeats (#{way})", format(script, "users: 1..3", "fork_and_reap; check_parent"), reactor

        left = "manager.stats.values_at(:online, :departing) == [2, 0]"
        leave = "manager.leave(2); sleep 0.01 until #{left}; check_parent"
        it_isolates "in offline (#{way})",
                    format(script, "offline: ->(user) { fork_and_reap if user == 2 }", leave),
                    reactor, offline: [2]

        it_isolates "in offline, which the child leaves by exit (#{way})", <<~RUBY, reactor,
          def fork_and_leave
            return unless Process.pid == FIRST_PROCESS

            pid = fork and return reap(pid)
            Fiber.new(blocking: true) do
              OnlineManager.current.seen(8)
              OnlineManager.current.leave(8)
              sleep 0.01 while OnlineManager.current.online?(8)
            end.resume
            exit 5
          end

          # At the time of the fork, the child's thread is inside this call.
          def stay
            sleep 0.3
            Application.say "gone"
          end

          #{format(script, "offline: ->(user) { user == 2 ? fork_and_leave : (stay if user == 8) }", leave)}
        RUBY
                    offline: [2], child: ["child online 8", "child offline 8", "child gone"]
      end

      it_isolates "from several threads at once", <<~RUBY, reactor, children: 8
        Application.setup do
          beside_reactor do
            threads = Array.new(8) { Thread.new { fork_and_reap } }
            threads.each(&:join)
            check_parent
          end
        end
      RUBY

      it_isolates "from a child", <<~RUBY, reactor, children: 2
        Application.setup do |manager|
          beside_reactor do
            reap(fork do
              reap(fork_child)
              run_child_users(manager)
              exit 5
            end)
            check_parent
          end
        end
      RUBY

      it_isolates "while another thread is inside online", <<~RUBY, reactor,
        inside = Thread::Queue.new
        go = Thread::Queue.new
        wait = ->(user) { inside << true and go.pop if user == 3 && Process.pid == FIRST_PROCESS }

        Application.setup(users: [1, 2], online: wait) do |manager|
          beside_reactor do
            sender = Thread.new { manager.seen(3) }
            inside.pop
            reap(fork do
              Application.say "finds \#{manager.online_users.inspect}"
              manager.seen(3) # a user like any other in the parent
              exit 5
            end)
            go << true
            sender.join
            check_parent
          end
        end
      RUBY
                  child: ["child finds []", "child online 3", "child offline 3"]
    end
  end

  describe "when something is wrong with the timer thread" do
    include_context "with a faulty extension"

    fault = <<~'RUBY'
      require "./spec/support/child/forking"

      # Makes the fault strike when the timer thread wakes for a user's deadline. The reactor must have had its first
      # step before: it would wait for the lock, and nobody else could run.
      def fault(name, manager)
        sleep 0.001 until (Thread.list - [Thread.current]).all?(&:stop?)
        Faults.public_send(name)
        manager.seen(4, timeout: 0.001)
      end
    RUBY

    define_method(:application) do |script, reactor|
      ruby("#{faulty}\n#{fault}\n#{script}", reactor.to_s, bundled: true)
    end

    %i[thread eventmachine fiber].each do |reactor|
      it "separates parent and child: while the timer thread holds the lock (#{reactor})" do
        process = application(<<~RUBY, reactor)
          Application.setup do |manager|
            beside_reactor do
              # If the timer thread woke before that, it releases the lock after a second.
              until Faults.confirm_hold
                fault(:hold_lock, manager) if Faults.none?
                sleep 0.001
              end
              fork_and_reap
              puts "lock released \#{Faults.release_lock}"
              sleep 0.001 while manager.online?(4)
              check_parent
            end
          end
        RUBY

        expect(lines(process, /^child/)).to eq life
        expect(lines(process, /^ended|^goes|^lock/))
          .to eq ["ended 5", "lock released true", "goes on with [1, 2, 3]"]
        expect_nobody_lost(process)
        expect(process.stderr).to be_empty
      end

      it "separates parent and child: after the timer thread has panicked (#{reactor})" do
        process = application(<<~RUBY, reactor)
          Application.setup do |manager|
            beside_reactor do
              fault(:panic, manager)
              sleep 0.001 until Faults.none?
              fork_and_reap
              sleep 0.001 while manager.online?(4)
              puts "internal errors \#{manager.stats[:internal_errors]}"
              check_parent
            end
          end
        RUBY

        expect(lines(process, /^child/)).to eq life
        expect(lines(process, /^ended|^goes|^internal/))
          .to eq ["ended 5", "internal errors 1", "goes on with [1, 2, 3]"]
        expect_nobody_lost(process)
        expect(process.stderr.scan("the fault that was asked for").size).to eq 1
      end
    end

    def expect_nobody_lost(process)
      calls = lines(process, /^(online|offline)/)
      # The fault may be requested more than once, if it did not strike at once.
      calls = calls.uniq if calls.count("online 4") == calls.count("offline 4")
      expect(calls).to match_array([1, 2, 3, 4, 9].flat_map { |user| ["online #{user}", "offline #{user}"] })
      expect(process).to be_success
    end
  end

  %i[thread eventmachine].each do |reactor|
    it "lets the child run its own manager (#{reactor})" do
      process = application(<<~RUBY, reactor)
        Application.setup do |manager|
          beside_reactor do
            reap(fork do
              own = Application.run(users: [7], timeout: 0.1, offline: ->(_) { OnlineManager.current.stop })
              Application.say own.stats[:state]
              exit 5
            end)
            check_parent
          end
        end
      RUBY

      expect(lines(process, /^child/))
        .to eq ["child online 7", "child ready", "child offline 7", "child stopped"]
      expect(lines(process, /^ended|^goes/)).to eq ["ended 5", "goes on with [1, 2, 3]"]
      expect(process.stderr).to be_empty
    end
  end

  it "lets a child that continues after `run` be stopped like any other process" do
    process = application(<<~RUBY, :thread)
      is_child = false
      manager = Application.run(
        ready: -> { OnlineManager.current.leave(2) },
        offline: lambda do |user|
          next unless user == 2

          if (pid = fork)
            Thread.new { reap(pid) || check_parent }
          else
            is_child = true
            Thread.new do
              run_child_users(OnlineManager.current)
              OnlineManager.current.stop
            end
          end
        end
      )
      # In the child. The parent exits from `run` in `check_parent`.
      Application.say manager.stats[:state]
      exit 5
    RUBY

    expect(lines(process, /^child/)).to eq [*life, "child stopped"]
    expect(lines(process, /^ended|^goes/)).to eq ["ended 5", "goes on with [1, 3]"]
    expect(process.stderr).to be_empty
  end

  it "blocks no heartbeat while it waits for a full stdout pipe" do
    process = application(<<~RUBY, :thread)
      reader, writer = IO.pipe
      Application.out = out = $stdout.dup
      out.sync = true

      Application.setup do |manager|
        $stdout.reopen(writer)
        writer.close
        $stdout.sync = false
        nil while $stdout.write_nonblock("." * 4096, exception: false).is_a?(Integer)
        $stdout.write("still in Ruby's buffer")

        pid = nil
        forker = Thread.new { pid = fork_child }
        sleep 0.01 until forker.status == "sleep"
        5.times do |i|
          manager.seen(20 + i, timeout: 0.01)
          sleep 0.001 while manager.online?(20 + i)
        end
        out.puts "fork waits" if pid.nil?

        Thread.new { IO.copy_stream(reader, File::NULL) }
        forker.join
        $stdout.reopen(out)
        reap(pid)
        check_parent
      end
    RUBY

    expect(lines(process, /^child/)).to eq life
    expect(lines(process, /^(online|offline) 2\d/).size).to eq 10
    expect(lines(process, /^fork|^ended|^goes/)).to eq ["fork waits", "ended 5", "goes on with [1, 2, 3]"]
    expect(process.stderr).to be_empty
  end

  describe "by Process.daemon" do
    {
      "before the first heartbeat" => ["[]", []],
      "after it, where the users stay online as after `exit!`," => ["1..3", ["online 1", "online 2", "online 3"]]
    }.each do |time, (users, parent)|
      it "#{time} leaves a daemon that starts empty and works" do
        process = application(<<~RUBY, :thread)
          Application.setup(users: #{users}) do |manager|
            Process.daemon(true, true)
            Thread.new { sleep 10 and exit! }
            run_child_users(manager)
          end
        RUBY

        expect(process.lines - ["ready"]).to eq [*parent, *life]
        expect(process).to be_success
      end
    end
  end

  describe "that execs at once" do
    it "leaves descriptors and threads unchanged" do
      skip "there is no /proc" unless File.exist?("/proc/self/task")

      process = application(<<~RUBY, :thread)
        def descriptors = `ls /proc/self/fd`
        # Without Ruby's own threads, which have the process' name: Ruby 3.3 ends its timer thread before a fork and
        # starts another.
        RUBYS = File.read("/proc/self/comm")
        def tasks = Dir["/proc/self/task/*/comm"].to_h { |path| [path, File.read(path)] }.reject { |_, name| name == RUBYS }

        inherited = descriptors
        Application.setup do |manager|
          manager.seen(4, timeout: 0.01)
          sleep 0.01 while manager.online?(4)
          before = tasks

          system("true") or abort
          puts `echo backticks`
          Process.wait(spawn("echo spawn"))
          IO.popen(["echo", "popen"]) { |io| puts io.read }
          Process.wait(fork { exec("echo", "exec") })

          puts "inherits \#{descriptors.lines - inherited.lines}"
          puts "other threads: \#{tasks.to_a - before.to_a}, \#{before.to_a - tasks.to_a}"
          check_parent
        end
      RUBY

      expect(process.lines - ["ready"]).to eq [
        "online 1", "online 2", "online 3", "online 4", "offline 4", "backticks", "spawn", "popen", "exec",
        "inherits []", "other threads: [], []", "goes on with [1, 2, 3]", "online 9", "offline 9",
        *lines(process, /^offline [123]/)
      ]
      expect(lines(process, /^offline [123]/).size).to eq 3
      expect(process.stderr).to be_empty
    end
  end

  # FORKS=2000 is the size in `rake soak`.
  forks = Integer(ENV.fetch("FORKS", 200))

  it "does not hang under load: #{forks} forks", limit: 60 + (forks / 5) do
    process = application(<<~RUBY, :thread, forks.to_s, limit: 30 + (forks / 5))
      require "./spec/support/progress"

      # The transitions of each user, in order.
      calls = Hash.new { |hash, user| hash[user] = +"" }
      Application.out = File.open(File::NULL, "w") # the output would be too long
      note = ->(letter) { ->(user) { calls[user] << letter if Process.pid == FIRST_PROCESS } }

      Application.setup(users: [], timeout: 0.02, online: note["+"], offline: note["-"]) do |manager|
        forks = Thread::Queue.new
        total = Integer(ARGV[1])
        total.times { |number| forks << number }
        forks.close

        senders = Array.new(3) do |number|
          random = Random.new(number)
          Thread.new do
            until forks.empty?
              20.times { manager.seen(random.rand(2000)) }
              manager.seen_all(Array.new(20) { [random.rand(2000), :array] })
              sleep 0.001
            end
          end
        end

        forkers = Array.new(4) do
          Thread.new do
            while (number = forks.pop)
              Progress.at(number, total)
              pid = fork do
                manager.seen(number, timeout: 0.001)
                manager.seen([number, "x"])
                sleep 0.001 while number.even? && manager.online?(number)
                number % 3 == 0 ? exit!(5) : exit(5)
              end
              deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 20
              until (_, status = Process.wait2(pid, Process::WNOHANG))
                if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
                  puts "fork \#{number} hangs"
                  Process.kill(:KILL, pid)
                end
                sleep 0.002
              end
              puts "fork \#{number} ended with \#{status.inspect}" unless status.exitstatus == 5
            end
          end
        end
        [*forkers, *senders].each(&:join)

        manager.stop
        wrong = calls.reject { |_, letters| letters.match?(/\\A(\\+-)+\\z/) }
        puts "users \#{calls.size}", "wrong \#{wrong}"
      end
    RUBY

    expect(process.lines).to match [/\Ausers \d{4}\z/, "wrong {}"]
    expect(process.stderr).to be_empty
    expect(process).to be_success
  end
end
