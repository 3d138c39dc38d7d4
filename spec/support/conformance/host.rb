# frozen_string_literal: true

require "async"
require "eventmachine"
require_relative "background"

module Conformance
  # What a manager runs in: nothing in particular, an EventMachine reactor, or a fiber scheduler. These two have a
  # thread of their own, so that a spec can beat from outside.
  class Host
    # @param reactor [Symbol]
    def self.for(reactor)
      { thread: Plain, eventmachine: EventMachineReactor, fiber: AsyncReactor }.fetch(reactor).new
    end

    # The thread that has called `run`.
    #
    # @return [Background, nil]
    attr_reader :runner

    # Calls the block in the reactor, which is started if need be.
    #
    # @return what it returned
    # @raise what it raised
    def call(&block)
      @thread ||= start
      answers = Thread::Queue.new
      enqueue { answers << Outcome.of(&block) }
      answers.pop.value
    end

    # Has the block, which calls `run`, start a reactor on a thread of its own.
    def run(&block)
      @runner = Background.new(&block)
    end

    # The thread that the reactor runs on.
    def thread = (@runner || @thread)&.thread

    # Whether a call was made where the reactor makes those of `offline`.
    def delivers?(call) = call.thread.equal?(thread)

    # The reactor has ended, and how is known.
    def forget = @thread = nil

    # Ends the reactor in the way of its own, if it runs, and waits for that.
    def stop
      end_reactor if @thread&.alive?
      @thread&.value
    end
  end

  # No reactor at all: a manager has to see to itself.
  class Plain < Host
    def call = yield

    def delivers?(call)
      runner ? super : call.thread.name == "online_manager" && !call.thread.equal?(Thread.current)
    end
  end

  # EventMachine's.
  class EventMachineReactor < Host
    def delivers?(call) = super && EM.reactor_thread.equal?(call.thread)

    private

    def start
      ready = Thread::Queue.new
      thread = Background.new { EM.run { ready << true } }
      ready.pop
      thread
    end

    def enqueue(&block) = EM.schedule(&block)
    def end_reactor = EM.schedule { EM.stop }
  end

  # Async's.
  class AsyncReactor < Host
    # The present thread becomes one with a scheduler, if it is not one yet.
    def run(&block) = super { in_reactor(&block) }

    def delivers?(call) = super && call.scheduler

    private

    # What a block raises is not for Async, which would log it.
    def in_reactor(&block)
      outcome = nil
      Async { outcome = Outcome.of(&block) }
      outcome&.value
    end

    def start
      @jobs = Thread::Queue.new
      Background.new do
        Async do |task|
          while (job = @jobs.pop)
            task.async(&job)
          end
        end
      end
    end

    def enqueue(&block) = @jobs << block
    def end_reactor = @jobs.close
  end
end
