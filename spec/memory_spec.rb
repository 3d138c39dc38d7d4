# frozen_string_literal: true

# Rule 16 of docs/state_machine.md, through Ruby: memory is bounded by who is here now. What the tracker keeps is in
# ext/tracker/tests/memory.rs.
RSpec.describe "Memory" do
  # Users come and leave on the main thread; `settle` waits until everyone who left is offline.
  manager = <<~RUBY
    require "online_manager"

    CONFIG = Class.new do
      def timeout = 60
      def setup = nil
      def online(_user) = nil
      def offline(_user) = nil
    end.new

    OnlineManager.setup(CONFIG, reactor: :thread)
    MANAGER = OnlineManager.current

    def settle(size)
      sleep 0.001 until MANAGER.size == size && MANAGER.stats[:departing].zero?
    end
  RUBY

  describe "for ids that are objects" do
    it "is given back when their users leave, and the others are still known by their ids" do
      process = ruby(manager + <<~RUBY)
        COUNT = 20_000

        MANAGER.seen_all(Array.new(COUNT) { |number| [number] })
        native = ObjectSpace.each_object(OnlineManager::NativeTracker).first
        places = -> { ObjectSpace.reachable_objects_from(native).grep(Array).map(&:size).max }
        require "objspace"
        puts places.call == COUNT

        stay, leave = (0...COUNT).partition { |number| number % 1_000 == 999 }
        leave.each { |number| MANAGER.leave([number]) }
        settle(stay.size)
        puts places.call

        puts stay.all? { |number| MANAGER.online?([number]) }, leave.none? { |number| MANAGER.online?([number]) }
        puts MANAGER.online_users.sort == stay.map { |number| [number] }
        stay.each { |number| MANAGER.leave([number]) }
        settle(0)
        puts places.call
      RUBY

      expect([process.stderr, process.lines]).to eq ["", %w[true 20 true true true 0]]
    end
  end

  describe "of forks of forks" do
    forks = <<~RUBY
      reader, writer = IO.pipe
      count = -> { writer.puts Dir.children("/dev/fd").size }
      MANAGER.seen(0)
      settle(1)
      count.call
      generation = 0
      # Each generation ends when its child begins, so the number of processes stays small.
      while generation < 150
        if fork
          exit!(0) unless generation.zero?
          writer.close
          puts reader.readlines
          break
        end
        generation += 1
        MANAGER.seen(generation)
        MANAGER.leave(generation)
        settle(0)
        count.call if (generation % 50).zero?
      end
      exit!(0)
    RUBY

    it "is no more descriptors in the last than in the first" do
      process = ruby("Process.setrlimit(:NOFILE, 64)\n#{manager}#{forks.gsub("exit!(0)", "($stdout.flush; exit!(0))")}")

      counts = process.lines.map(&:to_i)
      expect([process.stderr, counts.size]).to eq ["", 4]
      expect(counts.max).to be <= counts.first + 1
    end
  end
end
