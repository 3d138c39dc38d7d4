# frozen_string_literal: true

# A child that is forked in a callback returns from it with its parent's state on the stack: users and their ids, which
# in the child belong to others. fork_spec.rb has the other kinds of forks.
RSpec.describe "A fork in a callback" do
  # @param script [String] may call what support/child/forking.rb defines
  def application(script)
    process = ruby("require \"./spec/support/child/forking\"\n#{script}", "thread", bundled: true)
    expect(process.stderr).to be_empty
    expect(process.lines.grep(/^ended/)).to eq ["ended 5"]
    process.lines.grep(/^(child|parent)/)
  end

  # The first id that is an object is number 0, in the child too.
  it "leaves the child's ids alone when it goes on after offline" do
    said = application(<<~RUBY)
      go_on_in_child = lambda do |manager|
        manager.seen([:child])
        callback = Thread.current
        Thread.new do
          sleep 0.01 while OnlineManager::Callbacks.any_on?(callback) || !callback.stop?
          Application.say "finds \#{manager.online_users.inspect}"
          manager.seen([:child])
          exit!(5)
        end
      end
      fork_once = lambda do |user|
        next unless user == [:parent]

        manager = OnlineManager.current
        pid = fork and next reap(pid)
        go_on_in_child.call(manager)
      end

      Application.setup(users: [[:parent]], offline: fork_once) do |manager|
        beside_reactor do
          manager.leave([:parent])
          sleep 0.01 until manager.stats.values_at(:online, :departing) == [0, 0]
          check_parent
        end
      end
    RUBY

    expect(said).to eq ["child online [:child]", "child finds [[:child]]"]
  end

  it "leaves the child's ids alone when it goes on after an online that raises" do
    said = application(<<~RUBY)
      fork_once = lambda do |user|
        next unless user == [:parent]

        manager = OnlineManager.current
        pid = fork and next reap(pid)
        manager.seen([:child])
        raise "child"
      end

      Application.setup(users: [], online: fork_once) do |manager|
        begin
          manager.seen([:parent])
        rescue RuntimeError
          Application.say "finds \#{manager.online_users.inspect}"
          manager.seen([:child])
          exit!(5)
        end
        beside_reactor { check_parent }
      end
    RUBY

    expect(said).to eq ["child online [:child]", "child finds [[:child]]"]
  end

  it "does not keep the parent's ids alive in the child" do
    said = application(<<~RUBY)
      Id = Class.new
      # A few ids may still be on the stack.
      def ids
        GC.start
        ObjectSpace.each_object(Id).count > 50 ? "all" : "none"
      end
      Application.out = File.open(File::NULL, "w") # the output would be too long

      fork_once = lambda do |user|
        next unless user == 2

        pid = fork and next reap(pid)
        OnlineManager.current.seen(3)
        puts "child keeps \#{ids}"
        exit!(5)
      end
      Application.setup(users: [], online: fork_once) do |manager|
        500.times { manager.seen(Id.new) }
        manager.seen(2)
        puts "parent keeps \#{ids}"
      end
    RUBY

    expect(said).to eq ["child keeps none", "parent keeps all"]
  end

  it "names a slow callback in the child too" do
    said = application(<<~RUBY)
      OnlineManager::Watchdog.send(:remove_const, :WARN_AFTER)
      OnlineManager::Watchdog::WARN_AFTER = 0.1
      is_named = false
      Warning.define_singleton_method(:warn) do |message, **|
        is_named = true
        Application.say message[/\\w+#offline/]
      end

      fork_once = lambda do |user|
        if user == 7
          sleep 0.01 until is_named
        end
        next unless user == 2

        # The watchdog is already watching this callback.
        sleep 0.01 until is_named
        pid = fork and next reap(pid)
        is_named = false
        manager = OnlineManager.current
        manager.seen(7)
        manager.leave(7)
        sleep 0.01 while manager.online?(7) || manager.stats[:departing].positive?
        exit!(5)
      end

      Application.setup(offline: fork_once) do |manager|
        beside_reactor do
          manager.leave(2)
          sleep 0.01 until manager.stats.values_at(:online, :departing) == [2, 0]
          check_parent
        end
      end
    RUBY

    expect(said).to eq ["child online 7", "child offline 7", "child Application#offline"]
  end

  # In the child of a callback of `run` nothing delivers, and nobody is left to set offline.
  {
    "ends `run` in the child too" => ["run", "manager.stop"],
    "lets a child that goes on be stopped" => %w[signal nil]
  }.each do |what, (way, stop)|
    it "in the drain of `run`, #{what} (#{way})" do
      process = ruby(<<~RUBY, limit: 20)
        require "online_manager"

        class Config
          def timeout = 60
          def setup(&heartbeat) = 2.times(&heartbeat) && leave
          def online(_) = nil

          def leave
            MANAGER.leave(0)
            #{stop.sub("manager", "MANAGER")}
          end

          def offline(_)
            return if @has_forked || Process.pid != PARENT

            @has_forked = true
            if (pid = fork)
              Process.kill(:TERM, pid) if #{way == "signal"} && sleep(0.5)
              puts "child \#{Process.wait2(pid).last.then { |status| status.exitstatus || status.termsig }}"
              MANAGER.stop
            else
              sleep 0.05 # longer than a slice of deliveries
            end
          end
        end

        PARENT = Process.pid
        $stdout.sync = true
        MANAGER = OnlineManager.new(Config.new, reactor: :thread)
        MANAGER.run
        puts "\#{Process.pid == PARENT ? "parent" : "child"} \#{MANAGER.stats[:state]}"
      RUBY

      expect(process.stderr).to eq ""
      ends = way == "run" ? ["child stopped", "child 0"] : ["child 15"]
      expect(process.lines).to eq [*ends, "parent stopped"]
    end
  end
end

# A trap handler may lock no Mutex, and a child that is forked there ends in it.
RSpec.describe "A fork in a trap handler" do
  { "that does nothing" => "", "with users" => "manager.seen(7)" }.each do |what, code|
    it "leaves a child #{what} that ends as without the gem" do
      process = ruby(<<~RUBY, limit: 20)
        require "online_manager"

        class Config
          def timeout = 60
          def setup = nil
          def online(id) = say("online", id)
          def offline(id) = say("offline", id)
          def say(*words) = puts([Process.pid == PARENT ? "parent" : "child", *words].join(" "))
        end

        PARENT = Process.pid
        $stdout.sync = true
        manager = OnlineManager.new(Config.new, reactor: :thread)
        manager.setup
        manager.seen(1)
        trap(:USR2) do
          Process.wait(fork { #{code} })
          $status = $?.exitstatus
        end
        Process.kill(:USR2, PARENT)
        sleep 0.01 until $status
        puts "status \#{$status}"
      RUBY

      expect(process.stderr).to eq ""
      in_child = code.empty? ? [] : ["child online 7", "child offline 7"]
      expect(process.lines).to eq ["parent online 1", *in_child, "status 0", "parent offline 1"]
    end
  end
end
