# frozen_string_literal: true

require "socket"

module Bench
  # An object in its own process. What one contender leaves in its heap does not slow down the next one, and its memory
  # is returned to the system. The process sleeps while the others are measured.
  #
  #   child = Child.new { Contender.new }
  #   child.call(:time, ids)
  #   child.close
  class Child
    # This process' ends of the sockets of all children.
    OPEN = [] # rubocop:disable Style/MutableConstant
    private_constant :OPEN

    # Makes a child for the duration of a block.
    #
    # @param object [Proc] makes the object, in the child
    def self.open(object)
      child = new(&object)
      yield child
    ensure
      child&.close
    end

    # @yieldreturn [Object] the object; the block runs in the child
    def initialize(&object)
      @socket, other = UNIXSocket.pair
      OPEN << @socket
      @pid = fork do
        # Closes the sockets of earlier children too: while a copy is open, they would not notice that we close ours.
        OPEN.each(&:close)
        serve(other, &object)
      end
      other.close
    end

    # @return [Object] what the object's method returned
    # @raise [RuntimeError] if it raised
    def call(method, *arguments)
      Marshal.dump([method, arguments], @socket)
      outcome, answer = Marshal.load(@socket) # rubocop:disable Security/MarshalLoad -- from our own child
      raise answer if outcome == :raised

      answer
    rescue EOFError
      raise "the process that measured #{method} has ended"
    end

    # Calls the object's `close`, and ends the process.
    def retire
      call(:close)
      close
    end

    # Ends the process.
    def close
      OPEN.delete(@socket).close
      Process.wait(@pid)
    end

    private

    # Runs until the other end is closed, also by the parent's death. Uses `exit!`, because the parent's at_exit blocks
    # are not for the child.
    def serve(socket)
      object = yield
      loop do
        method, arguments = Marshal.load(socket) # rubocop:disable Security/MarshalLoad -- from our own parent
        Marshal.dump(answer(object, method, arguments), socket)
      end
    rescue EOFError
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- reported to the parent, whatever it is
      Marshal.dump([:raised, e.full_message(highlight: false)], socket)
      exit!(1)
    end

    def answer(object, method, arguments)
      [:answered, object.public_send(method, *arguments)]
    rescue StandardError => e
      [:raised, e.full_message(highlight: false)]
    end
  end
end
