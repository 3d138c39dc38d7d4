# frozen_string_literal: true

# Aborts a hanging example with an exception that shows the backtrace of each thread.
module TimeLimit
  # No StandardError, so that no `rescue => error` on the way catches it.
  class Exceeded < Exception; end # rubocop:disable Lint/InheritException

  # @param seconds [Numeric]
  # @raise [Exceeded] in the calling thread
  def self.enforce(seconds)
    limited = Thread.current
    watchdog = Thread.new do
      sleep seconds # rubocop:disable OnlineManager/BareSleep
      limited.raise(Exceeded, "not done within #{seconds} s\n\n#{threads(except: Thread.current)}")
    end
    watchdog.name = "time limit"
    yield
  ensure
    watchdog&.kill&.join
  end

  # @return [String] every thread with its backtrace
  def self.threads(except: nil)
    (Thread.list - [except]).map { |thread| [thread.inspect, *thread.backtrace].join("\n    ") }.join("\n\n")
  end
end
