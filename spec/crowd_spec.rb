# frozen_string_literal: true

require "socket"

# What the clients of an EventMachine application notice when thousands of users leave at once.
RSpec.describe "A crowd that leaves at once" do
  users = 100_000

  # CROWD=100000 is the size in `rake soak`. The first `slow` callbacks take 1 ms each, the others return at once. (Some
  # are not called, since their users send a heartbeat.)
  slow = Integer(ENV.fetch("CROWD", 3_000)).clamp(1, users - 100)

  # The child: a reactor with its own server. A request is a line, and so is the answer: the number of `offline` calls
  # so far. The request "heartbeat" sends a heartbeat, on the reactor, of a user who is due.
  script = <<~'RUBY'
    require "eventmachine"
    require "online_manager"
    require "set"
    require "./spec/support/progress"

    USERS, SLOW = ARGV.map(&:to_i)

    class Crowd
      attr_reader :calls

      def initialize = @calls = []
      def timeout = 600
      def setup(&) = nil
      def online(_) = nil

      def offline(user)
        @calls << user
        return if @calls.size > SLOW

        sleep 0.001
        Progress.at(@calls.size, SLOW) if (@calls.size % 1_000).zero?
      end
    end

    class Server < EM::Connection
      include EM::Protocols::LineText2

      # @return [Array<Integer>] the number of calls at each heartbeat
      CALLED_BEFORE = []
      REJOINED = Set.new

      def initialize(manager, crowd)
        super()
        @manager = manager
        @crowd = crowd
      end

      def receive_line(line)
        line == "heartbeat" ? rejoin : send_data("#{@crowd.calls.size}\n")
      end

      private

      # Takes users from both ends of the queue, since their order is unknown. Nobody is claimed meanwhile.
      def rejoin
        CALLED_BEFORE << @crowd.calls.size
        gone = @crowd.calls.to_set
        waiting = (1..USERS).reject { |user| gone.include?(user) || REJOINED.include?(user) }
        [waiting.first, waiting.last].compact.each do |user|
          REJOINED << user if @manager.online?(user) && @manager.seen(user)
        end
        send_data("rejoined #{REJOINED.size}\n")
      end
    end

    crowd = Crowd.new
    manager = OnlineManager.new(crowd, reactor: :eventmachine)
    EM.run do
      manager.setup
      manager.seen_all(1..USERS)
      port = Socket.unpack_sockaddr_in(EM.get_sockname(EM.start_server("127.0.0.1", 0, Server, manager, crowd))).first
      puts "port #{port}"

      Thread.new do
        $stdin.gets
        # Nobody is called before everybody is due.
        EM.schedule do
          manager.seen_all(1..USERS, timeout: 0.001)
          sleep 0.01 until manager.stats[:due] == USERS
        end
        sleep 0.01 until crowd.calls.any? && manager.stats.values_at(:due, :departing) == [0, 0]
        left = crowd.calls.dup
        puts "heartbeats after #{Server::CALLED_BEFORE}"
        puts "called twice #{left.tally.select { |_, times| times > 1 }.keys}"
        puts "called though rejoined #{left & Server::REJOINED.to_a}"
        puts "not called #{((1..USERS).to_a - left - Server::REJOINED.to_a).size}"
        puts "online though not rejoined #{manager.online_users - Server::REJOINED.to_a}"

        EM.schedule { EM.stop }
      end
    end
    puts "called at the end #{crowd.calls.sort == (1..USERS).to_a}", "left #{manager.size}"
  RUBY

  # Sends requests one after the other, as long as there are slow callbacks; some of them send a heartbeat, though not
  # before the first call: by then everybody is due.
  #
  # @return [Array<Integer>] the number of calls at each answer
  define_method(:ask) do |socket|
    heartbeats = 0
    answers = []
    until (answers.last || 0) >= slow
      socket.puts "count"
      answers << Integer(socket.gets)
      next unless answers.last.between?([1, heartbeats * slow / 10.0].max, slow - 1)

      heartbeats += 1
      socket.puts "heartbeat"
      socket.gets
    end
    answers
  end

  it "lets the reactor serve sockets, and heartbeats keep users online: #{slow} × 1 ms", limit: 60 + (slow / 200) do
    answers = nil
    process = ruby(script, users.to_s, slow.to_s, bundled: true, limit: 60) do |child|
      port = Integer(child.wait_for(/\Aport (\d+)/)[1])
      TCPSocket.open("127.0.0.1", port) do |socket|
        child.puts "go"
        answers = ask(socket)
      end
    end

    # The reactor makes 5 calls in a row, and then serves its sockets. However late the client is at times, it gets
    # answers throughout: in every hundredth of the queue, or the tenth of a short queue.
    part = [slow / 100, 300].max
    expect((0...slow).each_slice(part).map { |range| answers.count { |answer| range.include?(answer) } }).to all be > 3
    moments = process.lines.grep(/\Aheartbeats/).first.scan(/\d+/).map(&:to_i)
    expect(moments.size).to be_between(5, 10)
    expect(moments.each_cons(2)).to all(satisfy { |earlier, later| earlier < later })
    expect(process.lines.drop(2)).to eq [
      "called twice []", "called though rejoined []", "not called 0", "online though not rejoined []",
      "called at the end true", "left 0"
    ]
    expect([process.stderr, process.success?]).to eq ["", true]
  end
end
