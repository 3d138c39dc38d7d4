# frozen_string_literal: true

module WebSocketDemo
  # Prints the demo's events, one line each: seconds since the start, the user, the event and its reason.
  class Narrator
    def initialize(journal, timeout:, out: $stdout)
      @journal = journal
      @timeout = timeout
      @out = out
      @out.sync = true
      @start = journal.now
      @open = Hash.new(false)
    end

    def opening(port, pid)
      @out.puts(<<~TEXT)
        A WebSocket server on 127.0.0.1:#{port}, and three clients in another process (#{pid}), which send a heartbeat
        every #{HEARTBEAT_INTERVAL} s. A user without heartbeats for #{@timeout} s is offline. Heartbeats go in, only
        transitions come out:

      TEXT
    end

    def connected(user) = @open[user] = true
    def disconnected(user) = @open[user] = false

    def action(user, action) = line(user, "...", action)
    def note(text) = line("", "...", text)

    def transition(transition)
      reason = transition.state == :online ? why_online(transition) : why_offline(transition)
      line(transition.user, transition.state, reason)
    end

    # @param faults [Array<String>] the judge's findings
    def verdict(faults)
      counts = "#{@journal.heartbeat_count} heartbeats in, #{@journal.transitions.size} transitions out"
      if faults.empty?
        @out.puts("\n#{counts}: each came once, and none early.")
      else
        @out.puts("\n#{counts}, and that is wrong:", faults.map { |fault| "  #{fault}" })
      end
    end

    private

    def line(user, what, why)
      time = format("%6.2f", @journal.now - @start)
      @out.puts("#{time} s  #{user.ljust(4)}  #{what.to_s.ljust(7)}  #{why}")
    end

    def why_online(transition)
      heartbeats = @journal.heartbeats(transition.user).size
      heartbeats == 1 ? "the first heartbeat" : "heartbeat #{heartbeats}"
    end

    def why_offline(transition)
      last = @journal.last_heartbeat(transition.user, before: transition.at)
      return "without any heartbeat" unless last

      silence = format("%.2f s", transition.at - last)
      return "last heartbeat #{silence} ago: set offline by the shutdown" if @journal.by_shutdown?(transition)
      return "only #{silence} after the last heartbeat" if transition.at - last < @timeout

      "no heartbeat for #{silence}, and its connection is #{@open[transition.user] ? "still open" : "closed"}"
    end
  end
end
