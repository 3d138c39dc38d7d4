# frozen_string_literal: true

Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

# The garbage collector may run and move objects at any time, and can free what is no longer used.
RSpec.describe "The garbage collector" do
  # GC_STRESS=1 is set by `rake soak`: a larger selection, and all three reactors.
  is_long = ENV["GC_STRESS"] == "1"
  reactors = %i[thread eventmachine fiber]

  # @param roughly [String] see support/child/exercise.rb
  def exercise(reactor, memory_stress, limit:)
    process = if reactor == :thread
                # Without gems, a collection has to mark only a third of the objects.
                command(RbConfig.ruby, "--disable-gems", "-w", "-Ilib", "spec/support/child/exercise.rb",
                        reactor.to_s, memory_stress, limit:)
              else
                ruby("require \"./spec/support/child/exercise\"", reactor.to_s, memory_stress, bundled: true, limit:)
              end
    expect(process.stderr).to be_empty
    expect(process).to be_success
    expect(process.lines.last).to eq "done"
  end

  reactors.each do |reactor|
    if is_long || reactor == :thread
      it "may collect at each allocation, with the reactor #{reactor.inspect}", limit: 330 do
        exercise(reactor, "stress", limit: 300)
      end
    end

    if is_long
      it "may collect and move at each allocation, with the reactor #{reactor.inspect}", limit: 630 do
        exercise(reactor, "move", limit: 600)
      end
    end

    it "may move objects between any two steps, with the reactor #{reactor.inspect}", limit: 70 do
      exercise(reactor, "compact", limit: 60)
    end
  end

  # Runs the calls that an example makes to the extension with a garbage collection at each allocation: a minor one,
  # which frees new objects without references at once. The config's methods run without, since many examples depend on
  # how long they take.
  stress_class = Class.new do
    callbacks = %i[online offline online_all offline_all on_error]

    def initialize = @depth = 0

    define_method(:in_extension) do |native|
      native.extend(change(1, native.class.instance_methods(false)))
    end

    define_method(:not_in_config) do |config|
      config.singleton_class.prepend(change(-1, callbacks.select { |name| config.respond_to?(name) }))
    end

    private

    def change(by, methods)
      stress = self
      Module.new do
        methods.each do |method|
          define_method(method) { |*args| stress.send(:during, by) { super(*args) } }
        end
      end
    end

    # Several threads may be inside calls at once.
    def during(change)
      set(@depth + change)
      yield
    ensure
      set(@depth - change)
    end

    def set(depth)
      GC.stress = (1 if depth.positive?)
      @depth = depth
    end
  end

  reactors.each do |reactor|
    it "frees managers that have ended, with the reactor #{reactor.inspect}" do
      skip "there is no /proc" unless File.exist?("/proc/self/task")

      process = ruby(<<~RUBY, reactor.to_s, bundled: true)
        require "./spec/support/child/application"

        def run_manager
          manager = nil
          Application.setup(users: [7, "seven", [7]]) do |its|
            manager = its
            manager.leave(7)
            Application.end_reactor
          end
          manager.stop
        end

        def counts
          GC.start
          objects = [OnlineManager, OnlineManager::NativeTracker, Application].map { |type| ObjectSpace.each_object(type).count }
          [*objects, Thread.list.size, *%w[task fd].map { |what| Dir.children("/proc/self/\#{what}").size }]
        end

        3.times { run_manager }
        before = counts
        60.times { run_manager }
        Array.new(1_000) { [rand] }
        # Ruby keeps an ended thread for a few seconds for reuse.
        100.times do
          left = counts.zip(before).map { |now, then_| now - then_ }
          puts "left: \#{left.join(" ")}"
          break if left.all? { |count| count < 6 }

          sleep 0.1
        end
      RUBY

      expect(process.stderr).to be_empty
      # A reference may remain on the machine stack by accident.
      expect(process.lines.last[/(?<=left: ).*/].split.map(&:to_i)).to all be < 6
    end
  end

  # HEARTBEATS=50000000 and USERS=100000 are the sizes in `rake soak`.
  heartbeats = Integer(ENV.fetch("HEARTBEATS", 2_000_000))
  users = Integer(ENV.fetch("USERS", 20_000))
  limit = 60 + (heartbeats / 100_000)

  it "lets no memory grow: #{heartbeats} heartbeats of #{users} changing users", limit: limit + 10 do
    skip "there is no /proc" unless File.exist?("/proc/self/status")

    # With one malloc arena, memory that one thread freed is reused by the others.
    process = ruby("require \"./spec/support/child/moving_set\"", heartbeats.to_s, users.to_s,
                   env: { "MALLOC_ARENA_MAX" => "1" }, limit:)
    expect(process.stderr).to be_empty
    early, late = process.lines.map(&:to_i)

    expect(late).to be < early * 1.05
  end

  # Only in the long run, in a process without other specs: each collection marks everything in memory.
  (is_long ? reactors : []).each do |reactor|
    context "which collects at each allocation in the extension, with the reactor #{reactor.inspect}" do
      let(:reactor) { reactor }

      include_context "with a manager"

      before do
        stress = stress_class.new
        allow(OnlineManager::NativeTracker).to receive(:new).and_wrap_original do |new, host|
          new.call(host).tap { |native| stress.in_extension(native) }
        end
        allow(OnlineManager::Config).to receive(:new).and_wrap_original do |new, config|
          stress.not_in_config(config)
          new.call(config)
        end
      end

      it "collects garbage" do
        manager = start
        before = GC.count
        manager.seen([7])
        expect(GC.count - before).to be > 10
      end

      include_examples "heartbeats"
      include_examples "ids"
      include_examples "together"
      include_examples "state machine"
    end
  end
end
