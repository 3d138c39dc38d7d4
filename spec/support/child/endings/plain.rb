# frozen_string_literal: true

class Cell
  # The same cell without the gem, for its status.
  module Plain
    # Does what the callback does where the gem would call it.
    def run_plain
      if @place == "at exit"
        # EventMachine's thread has a `catch`.
        return at_exit { REACTOR == :eventmachine ? catch(:out) { act } : act }
      end

      within_timeout { catch(:out) { in_plain_reactor { act } } }
    end

    private

    def in_plain_reactor(&block)
      case REACTOR
      when :thread then on_plain_thread(&block)
      when :eventmachine then EM.run { yield.then { EM.stop } }
      when :fiber then @place == "in run" ? in_plain_run(&block) : Async(&block).wait
      end
    end

    # Within `run` the config's `setup` has a fiber of its own.
    def in_plain_run(&block)
      Async { catch(:out) { @callback == "heartbeat" ? Async(&block).wait : yield } }.wait
    end

    # Within `run` the config's `setup` has a thread, whose exceptions `run` raises. After it the callbacks have one.
    def on_plain_thread(&block)
      if @place == "in run" && @callback == "heartbeat"
        in_background(&block).join
      elsif @place == "in setup's reactor" && @callback != "heartbeat"
        thread = Thread.new(&block)
        Thread.pass while thread.alive?
      else
        yield
      end
    end
  end
end
