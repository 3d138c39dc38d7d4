# frozen_string_literal: true

# The source of a scheduler for fibers that closes without its fibers, which Async does not do.
ABANDONING_SCHEDULER = <<~RUBY
  class Scheduler
    def fiber(&block) = Fiber.new(blocking: false, &block).tap(&:resume)
    def io_wait(*) = Fiber.yield
    def kernel_sleep(*) = Fiber.yield
    def block(*) = Fiber.yield
    def unblock(*) = nil
    def close = nil
  end
RUBY
