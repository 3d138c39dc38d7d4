# frozen_string_literal: true

require "io/wait"
require_relative "host"

module Conformance
  # A minimal fiber scheduler: IO, waiting with and without a timeout, and new fibers.
  class Scheduler
    def initialize
      @waiting = {} # fibers by IO
      @blocked = {} # fibers, and the times at which they wake
      @ready = []
      @mutex = Thread::Mutex.new
      @wakeup, @waker = IO.pipe
    end

    # Runs until no fiber is left. Ruby calls it at the end of the thread.
    def run
      until @waiting.empty? && @blocked.empty? && @ready.empty?
        readable, = IO.select([@wakeup, *@waiting.values], nil, nil, wait_timeout)
        resume(readable || [])
      end
    end
    alias close run

    def io_wait(io, events, _timeout)
      @waiting[Fiber.current] = io
      Fiber.yield
      events
    end

    def kernel_sleep(seconds = nil) = block(:sleep, seconds)

    def block(_blocker, timeout = nil)
      @blocked[Fiber.current] = timeout ? Wait.monotonic + timeout : Float::INFINITY
      Fiber.yield
    end

    # May be called on any thread.
    def unblock(_blocker, fiber)
      @mutex.synchronize { @ready << fiber }
      @waker.write(".")
    end

    def fiber(&block) = Fiber.new(blocking: false, &block).tap(&:resume)

    private

    # How long the scheduler may wait for IO, in seconds. nil means without a limit.
    def wait_timeout
      return 0 if @ready.any?

      soonest = @blocked.values.min
      [soonest - Wait.monotonic, 0].max if soonest&.finite?
    end

    def resume(readable)
      @wakeup.read_nonblock(1_000) if readable.include?(@wakeup)
      ready = @mutex.synchronize { @ready.slice!(0..) }
      overdue = @blocked.select { |_, moment| moment <= Wait.monotonic }.keys
      (ready | overdue).each { |fiber| fiber.resume if @blocked.delete(fiber) }
      @waiting.select { |_, io| readable.include?(io) }.each_key { |fiber| fiber.resume if @waiting.delete(fiber) }
    end
  end

  # The host for this scheduler.
  class SchedulerReactor < AsyncReactor
    private

    def in_reactor(&block)
      outcome = nil
      Fiber.set_scheduler(Scheduler.new)
      Fiber.schedule { outcome = Outcome.of(&block) }
      Fiber.scheduler.run
      outcome.value
    end

    def start
      @jobs = Thread::Queue.new
      Background.new do
        Fiber.set_scheduler(Scheduler.new)
        Fiber.schedule do
          while (job = @jobs.pop)
            Fiber.schedule(&job)
          end
        end
      end
    end
  end
end
