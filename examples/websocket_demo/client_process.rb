# frozen_string_literal: true

require "eventmachine"
require "rbconfig"

module WebSocketDemo
  # The process of the clients, seen from the server's: starts it, listens to it, and ends it by its id.
  class ClientProcess
    SCRIPT = File.join(__dir__, "clients.rb")

    # Reads what the clients say, in the server's reactor.
    class Listener < EM::Connection
      # Not LineProtocol, which may hand out a line twice.
      include EM::Protocols::LineText2

      def initialize(process)
        super
        @process = process
      end

      def receive_line(line) = @process.heard(line)
      def unbind = @process.silent
    end

    # @yieldparam user [String]
    # @yieldparam action [String] what the user's client does now
    def on_action(&block) = @on_action = block

    # @yieldparam reason [String] why the process ended without being stopped
    def on_failure(&block) = @on_failure = block

    # To be called in the reactor.
    # @return [Integer] the process id
    def start(port)
      @errors = []
      reader, writer = IO.pipe
      # A process group of its own: Ctrl-C in the terminal reaches the server alone, and the server stops the clients.
      pid = Process.spawn(RbConfig.ruby, SCRIPT, port.to_s, in: File::NULL, out: writer, err: writer, pgroup: true)
      @waiter = Process.detach(pid)
      writer.close
      EM.attach(reader, Listener, self)
      pid
    end

    # Safe at any time and more than once. Returns when the process is gone.
    def stop
      return unless @waiter

      @stopping = true
      kill("TERM")
      kill("KILL") unless @waiter.join(2)
      @waiter.join
    end

    # @api private
    def heard(line)
      user, action = line.match(/\A(\w+)\t(.+)/)&.captures
      user ? @on_action.call(user, action) : @errors << line
    end

    # @api private The pipe is closed: the process has ended. Or the reactor ends, and then this timer never fires.
    def silent
      EM.add_timer(0.05) do
        @on_failure.call([@waiter.value, *@errors.first(5)].join("\n  ")) unless @stopping
      end
    end

    private

    def kill(signal)
      Process.kill(signal, @waiter.pid) if @waiter.alive?
    rescue Errno::ESRCH
      # It ended in this very moment.
    end
  end
end
