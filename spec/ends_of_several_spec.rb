# frozen_string_literal: true

# Managers stop each other, and their threads interrupt the end of the process: everybody is set offline once, nobody
# waits for ever, and the process has one status.
RSpec.describe "The end of several managers" do
  prelude = <<~RUBY
    require "online_manager"
    $stdout.sync = true
    class Config
      def initialize(number = 0, &offline)
        @number = number
        @offline = offline
      end

      def timeout = 60
      def setup = nil
      def online(_) = nil

      def offline(id)
        puts "offline \#{id}\\n"
        @offline&.call(id, @number)
      end
    end

    def managers(count, reactor = :thread, &offline)
      Array.new(count) { |i| OnlineManager.new(Config.new(i, &offline), reactor:, namespace: i.to_s).tap(&:setup) }
    end

    def wait_until = (sleep 0.005 until yield)
  RUBY

  offline = ->(*ids) { ids.map { |id| "offline #{id}" } }

  describe "that stop each other in callbacks" do
    stops = { "stop" => "manager.stop", "stop with a timeout" => "manager.stop(timeout: 60)",
              "stop in a fiber" => "Fiber.new { manager.stop }.resume",
              "stop in an Enumerator" => "Enumerator.new { |values| values << manager.stop }.next" }

    stops.each do |name, stop|
      it "is no wait for each other: #{name}" do
        process = ruby(<<~RUBY, limit: 10)
          #{prelude}
          inside = Thread::Queue.new
          $managers = managers(2) do |_, number|
            inside << true
            wait_until { inside.size >= 2 }
            manager = $managers[1 - number]
            #{stop}
          end
          $managers.each.with_index { |manager, i| manager.seen_all([i, i + 2]) && manager.leave(i) }
          wait_until { $managers.all? { |manager| manager.stats[:state] == :stopped } }
          puts "stopped"
        RUBY

        expect(process.lines).to match_array([*offline.call(0, 1, 2, 3), "stopped"])
        expect([process.stderr, process]).to match ["", be_success]
      end
    end

    it "is no wait for each other at exit" do
      process = ruby(<<~RUBY, limit: 10)
        #{prelude}
        $managers = managers(3) { $managers.each(&:stop) }
        $managers.each.with_index { |manager, i| manager.seen_all([i, i + 3]) }
      RUBY

      expect(process.lines).to match_array(offline.call(*0..5))
      expect([process.stderr, process]).to match ["", be_success]
    end

    it "is no wait for each other on one EventMachine reactor" do
      process = ruby(<<~RUBY, bundled: true, limit: 10)
        #{prelude}
        require "eventmachine"
        EM.run do
          $managers = managers(2, :eventmachine) { $managers.each(&:stop) }
          $managers.each.with_index { |manager, i| manager.seen_all([i, i + 2]) }
          $managers[0].leave(0)
          EM.add_periodic_timer(0.01) { EM.stop if $managers.all? { |manager| manager.stats[:state] == :stopped } }
        end
      RUBY

      expect(process.lines).to match_array(offline.call(*0..3))
      expect([process.stderr, process]).to match ["", be_success]
    end

    it "is the end of a manager that no heartbeat has started, and of one that was not set up" do
      process = ruby(<<~RUBY, limit: 10)
        #{prelude}
        idle = managers(2).first
        fresh = OnlineManager.new(Config.new)
        running = managers(1) { p [idle, fresh].map(&:stop) }.first
        running.seen(7)
        running.leave(7)
        wait_until { [idle, fresh].all? { |manager| manager.stats[:state] == :stopped } }
        puts running.stats[:state]
      RUBY

      expect(process.lines).to eq ["offline 7", "[0, 0]", "running"]
      expect([process.stderr, process]).to match ["", be_success]
    end
  end

  describe "at exit" do
    %i[call line].each do |event|
      # Also at the start of the at_exit block.
      it "is not prevented by an exit of another thread as it begins: #{event}" do
        process = ruby(<<~RUBY, limit: 10)
          #{prelude}
          managers(2).each.with_index { |manager, i| manager.seen_all([i, i + 2]) }
          exited = false
          TracePoint.new(:#{event}) do |point|
            next unless point.path.end_with?("online_manager/registry.rb") && !exited

            exited = true
            Thread.new { exit 4 }.join
          end.enable
        RUBY

        expect(process.lines).to match_array(offline.call(*0..3))
        expect([process.stderr, process.status.exitstatus]).to eq ["", 4]
      end
    end

    it "goes on however often another thread raises in the main thread" do
      process = ruby(<<~RUBY, limit: 20)
        #{prelude}
        managers = managers(2) { Thread.main.raise("into main") || sleep(0.02) }
        managers.each.with_index { |manager, i| manager.seen_all((0...12).map { |j| i + (2 * j) }) }
      RUBY

      expect(process.lines).to match_array(offline.call(*0...24))
      expect(process.stderr).to include("into main (RuntimeError)")
      expect(process.status.exitstatus).to eq 1
    end

    it "is one exit, after which at_exit blocks of the application run" do
      process = ruby(<<~RUBY, limit: 20)
        #{prelude}
        4.times { |i| at_exit { sleep(0.01) && puts("at_exit \#{i}") } }
        managers = managers(3) { exit 3 }
        managers.each.with_index do |manager, i|
          ids = (0...8).map { |j| i + (3 * j) }
          manager.seen_all(ids)
          ids.each { |id| manager.leave(id) }
        end
        sleep 10
      RUBY

      expect(process.lines.last(4)).to eq ["at_exit 3", "at_exit 2", "at_exit 1", "at_exit 0"]
      expect(process.lines[..-5]).to match_array(offline.call(*0...24))
      expect([process.stderr, process.status.exitstatus]).to eq ["", 3]
    end

    it "waits for a thread that an exit has ended, which would end an at_exit block of the application" do
      process = ruby(<<~RUBY, limit: 20)
        #{prelude}
        at_exit { sleep(0.5) && puts("at_exit") }
        $managers = managers(2) do |_, number|
          next exit(3) if number == 0

          $managers[0].leave(0)
          sleep 0.1
        end
        $managers.each.with_index { |manager, i| manager.seen(i) }
        TracePoint.new(:return) { |point| sleep 0.3 if point.method_id == :deliver_in_background }.enable
      RUBY

      expect(process.lines).to eq ["offline 1", "offline 0", "at_exit"]
      expect([process.stderr, process.status.exitstatus]).to eq ["", 3]
    end

    it "sets the users of a child offline that an offline has forked then" do
      process = ruby(<<~RUBY, limit: 10)
        #{prelude}
        parent = Process.pid
        $managers = managers(2) do |id, number|
          Process.wait(fork { $managers[0].seen(77) && exit(2) }) if number == 1 && Process.pid == parent
        end
        $managers.each.with_index { |manager, i| manager.seen(i) }
        at_exit { puts "at_exit" }
      RUBY

      expect(process.lines).to contain_exactly("offline 0", "offline 1", "offline 77", "at_exit")
      expect([process.stderr, process]).to match ["", be_success]
    end
  end

  it "cuts off no offline of a `run` that has ended" do
    process = ruby(<<~RUBY, limit: 10)
      #{prelude}
      config = Config.new do |id|
        Thread.new { exit 4 } && sleep(0.02)
        puts "done \#{id}"
      end
      manager = OnlineManager.new(config, reactor: :thread)
      config.define_singleton_method(:setup) { manager.seen_all(1..4) && manager.stop }
      at_exit { puts "at_exit" }
      manager.run
    RUBY

    expect(process.lines).to match_array([*offline.call(*1..4), *(1..4).map { |id| "done #{id}" }, "at_exit"])
    expect([process.stderr, process.status.exitstatus]).to eq ["", 4]
  end
end
