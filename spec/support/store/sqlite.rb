# frozen_string_literal: true

require "fileutils"
require "open3"
require "tmpdir"

module Stores
  # A file of its own in an empty folder. Looked at with SQLite's own command, a program as foreign as can be.
  class Sqlite
    # One process delivers.
    PARTITIONS = 1

    def self.to_s = "SQLite"

    attr_reader :folder, :path

    # @param folder [String, nil] where it is to be
    def initialize(folder = nil)
      @is_ours = folder.nil?
      @folder = folder || Dir.mktmpdir("online_manager_sqlite")
      @path = "#{@folder}/presence.sqlite3"
    end

    # @return [String]
    def url = "sqlite:#{@path}"

    # @return [Hash{Symbol => String}] what the manager is given
    def options = { store: url, namespace: "spec" }

    # Makes sure that it is whole.
    def check
      answer = execute("PRAGMA integrity_check")
      answer == "ok" or RSpec::Expectations.fail_with("integrity_check says: #{answer}")
    end

    # @return [String] what the `sqlite3` command answers
    def execute(sql)
      output, status = Open3.capture2e("sqlite3", "-cmd", ".timeout 10000", @path, sql)
      status.success? or RSpec::Expectations.fail_with("sqlite3 says: #{output}")
      output.chomp
    end

    # Whether nobody is in the middle of a transaction. Who is stopped there would keep the others out.
    def free?
      _, status = Open3.capture2e("sqlite3", @path, "BEGIN IMMEDIATE; ROLLBACK")
      status.success?
    end

    # Whether the lease is somebody's. Who has it, that process says itself.
    def shared_by?(count)
      count == 1 && execute("SELECT count(lease) FROM namespaces WHERE name = 'spec'") == "1"
    end

    # @return [Array<String>] the file, and what SQLite keeps beside it
    def files = Dir["#{@path}*"]

    def delete = FileUtils.rm_f(files)

    def remove
      FileUtils.remove_entry(@folder) if @is_ours
    end
  end
end
