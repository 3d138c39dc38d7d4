# frozen_string_literal: true

require "socket"

module Stores
  # Stands between a process and a server, on a port of its own, and is as bad a network as an example wants.
  #
  #   proxy = Stores::Proxy.new(server.port)
  #   proxy.delay = 2                        # seconds, for each part of an answer
  #   proxy.spoil(:drop, at: "EVALSHA")      # the answer to the next one
  class Proxy
    # One connection: both ends, and how the next part of an answer is to be spoilt.
    Connection = Struct.new(:client, :server, :spoiling) do
      def close = [client, server].each(&:close)
    end

    attr_reader :port

    # Seconds by which answers come later.
    attr_writer :delay

    # @param target [Integer] the port of a server on 127.0.0.1
    # @param rewriting [Hash{String => String}] what takes which place in answers; both of the same length
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

    # Has the answer to a request spoilt. The server has got the request then, and has done what it asks for.
    #
    # @param how [Symbol] :drop closes the connection instead of answering, :halve passes the first half of the answer
    # @param at [String] what is in the request
    # @param times [Integer] for so many of them
    def spoil(how, at:, times: 1)
      @mutex.synchronize { times.times { @faults << [how, at] } }
    end

    # @return [Integer] how many answers have been spoilt
    def spoilt = @mutex.synchronize { @spoilt }

    # Cuts all connections.
    def cut = @mutex.synchronize { @connections.dup }.each { |connection| finish(connection) }

    # From now on it stands before another server.
    def lead_to(target)
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
      nil # stopped
    end

    def serve(client)
      connection = Connection.new(client, TCPSocket.new("127.0.0.1", @target))
      @mutex.synchronize { @connections << connection }
      @threads += [in_thread { pass_requests(connection) }, in_thread { pass_answers(connection) }]
    rescue SystemCallError
      client.close # nobody is there
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

    # On two threads, so that an answer may come while others are on their way.
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
        sleep [due - Wait.monotonic, 0].max # rubocop:disable OnlineManager/BareSleep -- that is what it is for
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
