# frozen_string_literal: true

module Conformance
  # Holds up a callback for as long as a spec likes. Once open, it stays so.
  class Gate
    def initialize
      @queue = Thread::Queue.new
      @waiting = 0
    end

    # Waits until it is open; a fiber lets the others of its scheduler run meanwhile.
    def pass
      @waiting += 1
      @queue.pop
    end

    # Whether somebody has come to it.
    def reached? = @waiting.positive?

    def open = @queue.close
  end
end
