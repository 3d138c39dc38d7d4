# frozen_string_literal: true

require "etc"

module Bench
  # The machine that was measured on, and the versions of the software.
  class Machine
    CRATES = %w[hashbrown tokio-util moka criterion].freeze
    private_constant :CRATES

    # @param results [Hash{String => Hash}] by question
    def initialize(results)
      @results = results
    end

    # @return [Hash{String => String}]
    def to_h
      { "CPU" => "#{cpu}, #{Etc.nprocessors} cores", "memory" => "#{memory} GiB",
        "system" => "#{system_name}, Linux #{Etc.uname[:release]}", "Ruby" => ruby,
        "Rust" => `rustc --version`[/\d\S+/] }.merge(servers, crates)
    end

    private

    def cpu = File.read("/proc/cpuinfo")[/^model name\s*: (.*)/, 1] || Etc.uname[:machine]

    def memory = (File.read("/proc/meminfo")[/^MemTotal: +(\d+)/, 1].to_i / 1024.0 / 1024).round

    def system_name = File.read("/etc/os-release")[/^PRETTY_NAME="?([^"\n]*)/, 1]

    def ruby = @results.values.filter_map { |result| result["ruby"] }.uniq.join("; ")

    def servers = @results.dig("heartbeat", "figures", "versions") || {}

    def crates
      lock = File.read(File.join(ROOT, "ext/tracker/benches/Cargo.lock"))
      CRATES.to_h { |crate| [crate, lock[/^name = "#{crate}"\nversion = "(.*)"/, 1]] }
    end
  end
end
