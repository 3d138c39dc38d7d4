# frozen_string_literal: true

require "eventmachine"
require "rbconfig"

module WebSocketDemo
  # The clients' process, as the server sees it: starts it, reads its output, and ends it by its id.
  class ClientProcess
    SCRIPT = File.join(__dir__, "clients.rb")

    # Reads the clients' output in the server's reactor.
    class Listener < EM::Connection
      # Not LineProtocol, which may yield a line twice.
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

    # @yieldparam reason [String] why the process ended although it was not stopped
    def on_failure(&block) = @on_failure = block

    # To be called in the reactor.
    # @return [Integer] the process id
    def start(port)
      @errors = []
      reader, writer = IO.pipe
      # Its own process group: Ctrl-C in the terminal reaches only the server, and the server stops the clients.
      pid = Process.spawn(RbConfig.ruby, SCRIPT, port.to_s, in: File::NULL, out: writer, err: writer, pgroup: true)
      @waiter = Process.detach(pid)
      writer.close
      EM.attach(reader, Listener, self)
      pid
    end

    # May be called at any time and more than once. Returns when the process has ended.
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

    # @api private The pipe is closed: the process has ended. If the reactor ends instead, this timer never fires.
    def silent
      EM.add_timer(0.05) do
        @on_failure.call([@waiter.value, *@errors.first(5)].join("\n  ")) unless @stopping
      end
    end

    private

    def kill(signal)
      Process.kill(signal, @waiter.pid) if @waiter.alive?
    rescue Errno::ESRCH
      # The process ended in this very moment.
    end
  end
end
