# frozen_string_literal: true

require "socket"

module Stores
  # A proxy between a process and a server, on its own port. It behaves like a bad network.
  #
  #   proxy = Stores::Proxy.new(server.port)
  #   proxy.delay = 2                        # seconds, for each part of an answer
  #   proxy.spoil(:drop, at: "EVALSHA")      # the answer to the next such request
  class Proxy
    # One connection: both ends, and how the next part of an answer is spoilt.
    Connection = Struct.new(:client, :server, :spoiling) do
      def close = [client, server].each(&:close)
    end

    attr_reader :port

    # Seconds by which answers are delayed.
    attr_writer :delay

    # @param target [Integer] the port of a server on 127.0.0.1
    # @param rewriting [Hash{String => String}] replacements in answers; of the same length as what they replace
    def initialize(target, rewriting: {})
      @target = target
      @rewriting = rewriting
      @delay = 0
      @mutex = Mutex.new
      @connections = []
      @faults = []
      @spoilt = 0
      @listener = TCPServer.new("127.0.0.1", 0)
      @port = @listener.local_address.ip_port
      @threads = [in_thread { accept }]
    end

    # Spoils the answer to a request. The server has received and executed the request by then.
    #
    # @param how [Symbol] :drop closes the connection instead of answering, :halve passes the first half of the answer
    # @param at [String] a part of the request
    # @param times [Integer] how many answers to spoil
    def spoil(how, at:, times: 1)
      @mutex.synchronize { times.times { @faults << [how, at] } }
    end

    # @return [Integer] the number of answers spoilt so far
    def spoilt = @mutex.synchronize { @spoilt }

    # Closes all connections.
    def cut = @mutex.synchronize { @connections.dup }.each { |connection| finish(connection) }

    # Connects to another server from now on.
    def redirect_to(target)
      @target = target
      cut
    end

    def stop
      @listener.close
      cut
      @threads.each(&:kill).each(&:join)
    end

    private

    def accept
      loop { serve(@listener.accept) }
    rescue IOError
      nil # the proxy was stopped
    end

    def serve(client)
      connection = Connection.new(client, TCPSocket.new("127.0.0.1", @target))
      @mutex.synchronize { @connections << connection }
      @threads += [in_thread { pass_requests(connection) }, in_thread { pass_answers(connection) }]
    rescue SystemCallError
      client.close # no server listens
    end

    def pass_requests(connection)
      loop do
        bytes = connection.client.readpartial(65_536)
        @mutex.synchronize do
          fault = @faults.index { |_, text| bytes.include?(text) }
          connection.spoiling = @faults.delete_at(fault).first if fault && connection.spoiling.nil?
        end
        connection.server.write(bytes)
      end
    rescue IOError, SystemCallError
      finish(connection)
    end

    # Uses two threads, so that an answer may arrive while earlier ones are delayed.
    def pass_answers(connection)
      on_the_way = Thread::Queue.new
      @threads += [in_thread { pass_on(connection, on_the_way) }]
      loop { on_the_way << [Wait.monotonic + @delay, connection.server.readpartial(65_536)] }
    rescue IOError, SystemCallError
      on_the_way << [Wait.monotonic, nil]
    end

    def pass_on(connection, on_the_way)
      loop do
        due, bytes = on_the_way.pop
        sleep [due - Wait.monotonic, 0].max # rubocop:disable OnlineManager/BareSleep -- the delay is the purpose
        raise EOFError if bytes.nil?

        bytes = @rewriting.reduce(bytes) { |text, (old, new)| text.gsub(old.b, new.b) }
        connection.spoiling ? spoil_answer(connection, bytes) : connection.client.write(bytes)
      end
    rescue IOError, SystemCallError
      finish(connection)
    end

    def spoil_answer(connection, bytes)
      connection.client.write(bytes[0, bytes.bytesize / 2]) if connection.spoiling == :halve
      @mutex.synchronize { @spoilt += 1 }
      raise EOFError
    end

    def finish(connection)
      @mutex.synchronize { @connections.delete(connection) }
      connection.close
    end

    def in_thread(&body)
      Thread.new(&body).tap { |thread| thread.abort_on_exception = true }
    end
  end
end
