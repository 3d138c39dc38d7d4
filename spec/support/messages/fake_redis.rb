# frozen_string_literal: true

require "socket"

module Messages
  # A server that answers as a Redis does, and says of itself what a spec wants.
  class FakeRedis
    # What a good one says of itself.
    INFO = {
      redis_version: "7.0.0", loading: 0, cluster_enabled: 0, role: "master", maxmemory_policy: "noeviction"
    }.freeze

    # @param answer [String, nil] its answer to everything, instead
    # @param denying [Hash{String => String}] the commands that its user may not run, and what it says of them
    # @param info [Hash] what differs from INFO
    def initialize(answer: nil, denying: {}, **info)
      @answer = answer
      @denying = denying
      @info = INFO.merge(info).compact.map { |name, value| "#{name}:#{value}\r\n" }.join
      @server = TCPServer.new("127.0.0.1", 0)
      @url = "redis://127.0.0.1:#{@server.addr[1]}"
      @thread = Thread.new { loop { serve(@server.accept) } }
      @thread.report_on_exception = false
    end

    attr_reader :url

    def stop
      @thread.kill.join
      @server.close
    end

    private

    def answer_to(name)
      return "-NOPERM #{@denying.fetch(name)}\r\n" if @denying.key?(name)

      name == "INFO" ? "$#{@info.bytesize}\r\n#{@info}\r\n" : "+OK\r\n"
    end

    # One client after the other: a check opens one connection.
    def serve(client)
      while (size = client.gets)
        words = Array.new(size[1..].to_i) { client.gets and client.gets(chomp: true) }
        client.write(@answer || answer_to(words.first))
      end
    rescue SystemCallError
      nil # the client has seen enough
    ensure
      client.close
    end
  end
end
