# frozen_string_literal: true

# Helpers for applications that fork, for child processes.

require_relative "application"

# Forks a child that finds nobody online, brings two users of its own online, one of them until its end, and exits.
#
# @param status [Integer] its exit status
# @return [Integer] its pid
def fork_child(status: 5)
  fork do
    # In a child, no fiber scheduler runs.
    Fiber.new(blocking: true) { run_child_users(OnlineManager.current) }.resume
    exit status
  end
end

# @param manager [OnlineManager]
def run_child_users(manager)
  Application.say "finds #{manager.online_users.inspect}"
  manager.seen(7, timeout: 0.1)
  # Waits for the end of `offline`: the user is no longer online when `offline` begins, before it has printed.
  sleep 0.01 until manager.stats.values_at(:online, :departing) == [0, 0]
  manager.seen(8)
end

# Waits for a child's end and prints its exit status.
def reap(pid)
  _, status = Process.wait2(pid)
  puts "ended #{status.exitstatus || status.inspect}"
end

# Forks a child and waits for its end. Does nothing in a child.
def fork_and_reap
  reap(fork_child) if Process.pid == FIRST_PROCESS
end

# Shows that the parent works as if nothing had happened, and ends it.
def check_parent(manager = OnlineManager.current)
  puts "goes on with #{manager.online_users.sort.inspect}"
  manager.seen(9, timeout: 0.1)
  sleep 0.01 while manager.online?(9)
  exit
end

# Runs the block on a thread beside the reactor.
def beside_reactor(&block)
  Thread.new(&block).report_on_exception = true
  Application.idle
end
