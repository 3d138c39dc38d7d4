# frozen_string_literal: true

require "async"
require "eventmachine"
require_relative "background"

module Conformance
  # The environment that a manager runs in: nothing, an EventMachine reactor, or a fiber scheduler. The latter two have
  # their own thread, so that a spec can send heartbeats from outside.
  class Host
    # @param reactor [Symbol]
    def self.for(reactor)
      { thread: Plain, eventmachine: EventMachineReactor, fiber: AsyncReactor }.fetch(reactor).new
    end

    # The thread that called `run`.
    #
    # @return [Background, nil]
    attr_reader :runner

    # Runs the block in the reactor, and starts the reactor if necessary.
    #
    # @return what it returned
    # @raise what it raised
    def call(&block)
      @thread ||= start
      answers = Thread::Queue.new
      enqueue { answers << Outcome.of(&block) }
      answers.pop.value
    end

    # Runs the block, which calls `run`, on its own thread, where `run` starts a reactor.
    def run(&block)
      @runner = Background.new(&block)
    end

    # The thread of the reactor.
    def thread = (@runner || @thread)&.thread

    # Whether a call ran where the reactor calls `offline`.
    def delivers?(call) = call.thread.equal?(thread)

    # Forgets the reactor, which has ended.
    def forget = @thread = nil

    # Ends the reactor in its own way, if it runs, and waits for the end.
    def stop
      end_reactor if @thread&.alive?
      @thread&.value
    end
  end

  # No reactor: the manager starts its own thread.
  class Plain < Host
    def call = yield

    def delivers?(call)
      runner ? super : call.thread.name == "online_manager" && !call.thread.equal?(Thread.current)
    end
  end

  # EventMachine's reactor.
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

  # Async's reactor.
  class AsyncReactor < Host
    # Makes a thread with a scheduler of the current one, unless it has one.
    def run(&block) = super { in_reactor(&block) }

    def delivers?(call) = super && call.scheduler

    private

    # Passes an error of the block on, since Async would log it. Waits: inside a reactor, async 2 may return before the
    # block has ended.
    def in_reactor(&block)
      outcome = nil
      Async { outcome = Outcome.of(&block) }.wait
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
