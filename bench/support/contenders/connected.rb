# frozen_string_literal: true

require_relative "../contender"

module Bench
  # A contender that uses a server or a file, with one connection per thread.
  class Connected < Contender
    THREADS = 4

    # @yieldreturn [Object] a connection
    def initialize(&connect)
      super()
      @connections = Thread::Queue.new(Array.new(THREADS) { connect.call })
    end

    private

    def now = Process.clock_gettime(Process::CLOCK_REALTIME)

    def with_connection
      connection = @connections.pop
      yield connection
    ensure
      @connections << connection
    end
  end
end
