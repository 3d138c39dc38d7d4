# frozen_string_literal: true

require "fileutils"
require "open3"
require "tmpdir"

module Stores
  # A SQLite file in an empty folder. The specs read it with the `sqlite3` command, which shares no code with the gem.
  class Sqlite
    # One process at a time delivers.
    PARTITIONS = 1

    # The columns that hold times, in nanoseconds since the machine's start.
    TIMES = {
      namespaces: %w[swept hold leave_hold silent_until longest_until leased_until], members: %w[expires_at],
      users: %w[seen deadline left left_until sweep_at], events: %w[due seen], notices: %w[noted_at]
    }.freeze

    def self.to_s = "SQLite"

    attr_reader :folder, :path

    # @param folder [String, nil] the folder; nil makes a temporary one
    def initialize(folder = nil)
      @is_ours = folder.nil?
      @folder = folder || Dir.mktmpdir("online_manager_sqlite")
      @path = "#{@folder}/presence.sqlite3"
    end

    # @return [String]
    def url = "sqlite:#{@path}"

    # @return [Hash{Symbol => String}] the manager's options
    def options = { store: url, namespace: "spec" }

    # Checks the integrity of the file.
    def check
      answer = execute("PRAGMA integrity_check")
      answer == "ok" or RSpec::Expectations.fail_with("integrity_check says: #{answer}")
    end

    # Copies the data, as they would be if an hour had passed since.
    #
    # @return [String] the path of the copy
    def back_up
      execute(".backup '#{copy = "#{@folder}/copy"}'")
      # The machine may have been started less than an hour ago.
      hour = [3_600, Process.clock_gettime(Process::CLOCK_BOOTTIME) / 2].min * 1_000_000_000
      shifts = TIMES.map do |table, columns|
        "UPDATE #{table} SET #{columns.map { |name| "#{name} = max(#{name} - #{hour.to_i}, 0)" }.join(", ")};"
      end
      execute(shifts.join, path: copy)
      copy
    end

    # Puts a copy in the place of the file, while processes use it.
    #
    # @yield before that
    def restore(copy)
      yield
      FileUtils.rm_f(files - [@path, copy])
      File.rename(copy, @path)
    end

    # @return [String] the output of the `sqlite3` command
    def execute(sql, path: @path)
      output, status = Open3.capture2e("sqlite3", "-cmd", ".timeout 10000", path, sql)
      status.success? or RSpec::Expectations.fail_with("sqlite3 says: #{output}")
      output.chomp
    end

    # Whether no process is in a transaction. A process that is paused in one would block the others.
    def free?
      _, status = Open3.capture2e("sqlite3", @path, "BEGIN IMMEDIATE; ROLLBACK")
      status.success?
    end

    # Whether a process holds the lease. Which one, the process itself reports.
    def shared_by?(count)
      count == 1 && execute("SELECT count(lease) FROM namespaces WHERE name = 'spec'") == "1"
    end

    # @return [Array<String>] the file, and the files that SQLite keeps beside it
    def files = Dir["#{@path}*"]

    def delete = FileUtils.rm_f(files)

    def remove
      FileUtils.remove_entry(@folder) if @is_ours
    end
  end
end
