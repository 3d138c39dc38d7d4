# frozen_string_literal: true

require "fileutils"

class OnlineManager
  module Rails
    # Finds out whether another process of the same application also keeps for itself who is online. Whatever the server
    # and however it starts its workers, they have the folder `tmp` in common: the first of them locks a file there, as
    # long as it lives.
    #
    # @private
    class WorkerLock
      # Whoever has just taken the lock may not have written yet who it is: so often this is looked for, and so many
      # seconds apart.
      READ_ATTEMPTS = 20
      READ_RETRY_DELAY = 0.01

      def initialize
        @files = {}
      end

      # @param namespace [String, nil] of the manager that begins to get heartbeats
      # @return [Integer, nil] the process that was there before, if there is one
      def acquire(namespace)
        close_inherited_files
        file = @files[namespace] = open_file(namespace)
        return lock(file) if file.flock(File::LOCK_EX | File::LOCK_NB)

        other_pid = holder_pid(file)
        file.close
        other_pid unless other_pid == Process.pid
      rescue SystemCallError => e
        # A folder that may not be written is no reason to keep a user from coming online.
        ::Rails.logger&.debug("OnlineManager: cannot tell whether there are several workers: #{e.message}")
        nil
      end

      private

      def open_file(namespace)
        folder = ::Rails.root.join("tmp")
        FileUtils.mkdir_p(folder)
        name = ["online_manager", *namespace&.gsub(/\W/) { |character| format("%%%02x", character.ord) }].join("-")
        File.open(folder.join("#{name}.pid"), File::RDWR | File::CREAT, 0o644)
      end

      def lock(file)
        file.truncate(0)
        file.write(Process.pid)
        file.flush
        nil
      end

      # @return [Integer, nil] whose lock it is, if that is to be found out
      def holder_pid(file)
        READ_ATTEMPTS.times do
          other_pid = file.tap(&:rewind).read.to_i
          return other_pid if other_pid.positive? && alive?(other_pid)

          sleep READ_RETRY_DELAY
        end
        nil
      end

      # A lock is shared with children; what this process was forked from has its own copy.
      def close_inherited_files
        return if @owner == Process.pid

        @owner = Process.pid
        @files.each_value { |file| file.close unless file.closed? }
        @files = {}
      end

      def alive?(pid)
        Process.kill(0, pid) == 1
      rescue Errno::EPERM
        true
      rescue Errno::ESRCH
        false
      end
    end
  end
end
