# frozen_string_literal: true

module Conformance
  # Blocks a callback until the spec opens the gate. An open gate stays open.
  class Gate
    def initialize
      @queue = Thread::Queue.new
      @waiting = 0
    end

    # Waits until the gate is open. In a fiber, the other fibers of its scheduler run meanwhile.
    def pass
      @waiting += 1
      @queue.pop
    end

    # Whether a callback waits at the gate.
    def reached? = @waiting.positive?

    def open = @queue.close
  end
end
