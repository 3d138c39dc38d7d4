# frozen_string_literal: true

module Bench
  # The memory of a process, as the kernel counts it.
  module Memory
    # @param pid [Integer, String]
    # @return [Integer] bytes of resident memory, exact (the number in /proc/PID/status is not)
    def self.resident(pid = "self")
      File.read("/proc/#{pid}/smaps_rollup")[/^Rss: +(\d+) kB/, 1].to_i * 1024
    end
  end
end
