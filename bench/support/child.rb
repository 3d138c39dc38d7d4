# frozen_string_literal: true

require "socket"

module Bench
  # An object in a process of its own: what one contender leaves in its heap is no burden to the next,
  # and its memory is given back. It sleeps while the others have their turns.
  #
  #   child = Child.new { Contender.new }
  #   child.call(:time, ids)
  #   child.close
  class Child
    # Our ends of all children's sockets.
    OPEN = [] # rubocop:disable Style/MutableConstant
    private_constant :OPEN

    # Makes one for the duration of a block.
    #
    # @param object [Proc] makes what is to be called, in the child
    def self.open(object)
      child = new(&object)
      yield child
    ensure
      child&.close
    end

    # @yieldreturn [Object] what is to be called; made in the child
    def initialize(&object)
      @socket, other = UNIXSocket.pair
      OPEN << @socket
      @pid = fork do
        # Its elder siblings' too, or closing them would not be noticed.
        OPEN.each(&:close)
        serve(other, &object)
      end
      other.close
    end

    # @return [Object] what the object's method has answered
    # @raise [RuntimeError] if it has raised
    def call(method, *arguments)
      Marshal.dump([method, arguments], @socket)
      outcome, answer = Marshal.load(@socket) # rubocop:disable Security/MarshalLoad -- from our own child
      raise answer if outcome == :raised

      answer
    rescue EOFError
      raise "the process that measured #{method} has ended"
    end

    # Has the object close what it holds, and ends the process.
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

    # Until the other end is closed, also by the parent's death. `exit!` because what the parent means
    # to do on its way out is not for the child.
    def serve(socket)
      object = yield
      loop do
        method, arguments = Marshal.load(socket) # rubocop:disable Security/MarshalLoad -- from our own parent
        Marshal.dump(answer(object, method, arguments), socket)
      end
    rescue EOFError
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- told to the parent, whatever it is
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
