# frozen_string_literal: true

# A reactor ends while callbacks run or users are online: the online users are set offline exactly once, here too. Other
# ends are in process_spec.rb.
RSpec.describe "The end of a reactor" do
  include_context "with ways out"

  context "with callbacks that end it" do
    { "" => :thread, ", on EventMachine" => :eventmachine }.each do |where, reactor|
      it_ends_well "throw out of offline#{where}", <<~RUBY, reactor, prints: "thrown", exitstatus: 0
        puts(catch(:out) do
          Application.run(
            ready: -> { OnlineManager.current.leave(2) },
            offline: ->(user) { throw :out, "thrown" if user == 2 }
          )
        end)
      RUBY
    end
    it_ends_well "Timeout in the middle of an offline", <<~RUBY, :thread, prints: "execution expired", exitstatus: 0
      require "timeout"
      begin
        Timeout.timeout(0.3) do
          Application.run(
            ready: -> { OnlineManager.current.leave(2) },
            offline: ->(user) { sleep 10 if user == 2 }
          )
        end
      rescue Timeout::Error => e
        puts e.message
      end
    RUBY
    # As later versions of Timeout do it. In Ruby 3.1 it throws.
    it_ends_well "the exception of Timeout in offline", <<~RUBY, :thread, prints: "expired", exitstatus: 0
      require "timeout"
      Timeout.const_set(:ExitException, Class.new(Exception)) unless defined?(Timeout::ExitException)
      begin
        Application.run(
          ready: -> { OnlineManager.current.leave(2) },
          offline: ->(user) { raise Timeout::ExitException if user == 2 }
        )
      rescue Timeout::ExitException
        puts "expired"
      end
    RUBY
    it_ends_well "EM.stop in setup", "Application.run(ready: -> { EM.stop })", :eventmachine, exitstatus: 0
    it_ends_well "EM.stop later", <<~RUBY, :eventmachine, prints: "stopped", exitstatus: 0
      puts Application.run(ready: -> { EM.add_timer(0.05) { EM.stop } }).stats[:state]
    RUBY
    it_ends_well "EM.stop in another thread", <<~RUBY, :eventmachine, prints: "stopped", exitstatus: 0
      puts Application.run(ready: -> { Thread.new { EM.stop } }).stats[:state]
    RUBY

    # As 0.0.3 did: it called `offline` in a timer.
    %w[run setup].each do |way|
      it_ends_well "an exception in offline (#{way})", <<~RUBY, :eventmachine, says: /oops/, exitstatus: 1
        Application.#{way}(
          ready: -> { OnlineManager.current.leave(2) },
          offline: ->(user) { raise "oops" if user == 2 }
        )
      RUBY
    end
    it_ends_well "an exception in offline, which EM.error_handler survives", <<~RUBY, :eventmachine,
      EM.error_handler { |_| OnlineManager.current.stop }
      Application.run(
        ready: -> { OnlineManager.current.leave(2) },
        offline: ->(user) { raise "oops" if user == 2 }
      )
      puts "handled"
    RUBY
                 prints: "handled", exitstatus: 0
  end

  context "when it ends by itself" do
    it_ends_well "while its API still works, in EventMachine", <<~RUBY, :eventmachine, prints: "after", exitstatus: 0
      Application.setup(offline: ->(_) { EM.add_timer(60) { nil } }) { Application.end_reactor }
      puts "after"
    RUBY
    it_ends_well "while its API still works, in Async", <<~RUBY, :fiber, prints: "after", exitstatus: 0
      Application.setup(offline: ->(_) { Async::Task.current })
      puts "after"
    RUBY

    it_ends_well "and leaves its fibers behind", <<~RUBY, :fiber, prints: "after", exitstatus: 0, offline: []
      #{ABANDONING_SCHEDULER}

      # Collected, and printed at the very end.
      gone = []
      at_exit { puts "after" if gone.sort == [1, 2, 3] }
      config = Application.new
      config.define_singleton_method(:offline) { |user| gone << user }
      Thread.new do
        Fiber.set_scheduler(Scheduler.new)
        Fiber.schedule { OnlineManager.setup(config, reactor: :fiber) }
      end.join
    RUBY
  end

  context "with one of EventMachine's on another thread" do
    {
      "the end of the script" => ["", {}],
      "Ctrl-C" => ["sleep", { signal: :INT, says: /Interrupt/, exitstatus: nil, termsig: Signal.list["INT"] }],
      "exit" => ["exit 3", { exitstatus: 3 }],
      "the end of that reactor" => ["EM.stop; reactor.join", {}],
      "an exit in offline" => ["OnlineManager.current.leave(2); sleep", { exitstatus: 3 }]
    }.each do |name, (ending, outcome)|
      it_ends_well name, <<~RUBY, :eventmachine, exitstatus: 0, **outcome
        reactor = Thread.new { EM.run }
        reactor.report_on_exception = false
        sleep 0.01 until EM.reactor_running?
        OnlineManager.setup(Application.new(offline: ->(user) { exit 3 if #{name.include?("in offline")} && user == 2 }))
        #{ending}
      RUBY
    end
  end

  context "when Async stops the task" do
    it_ends_well "in the middle of an offline", <<~RUBY, :fiber, signal: :INT, says: /Interrupt/, termsig: 2
      Application.run(
        ready: -> { OnlineManager.current.leave(2) },
        offline: ->(user) { sleep 0.3 if user == 2 }
      )
    RUBY
  end
end
