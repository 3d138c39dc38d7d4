# frozen_string_literal: true

require "fileutils"

class OnlineManager
  module Rails
    # Finds out whether another process of the same application also keeps presence in its own memory. Works with every
    # server, since all its workers share the folder `tmp`: the first of them holds a lock on a file there until it
    # ends.
    #
    # @private
    class WorkerLock
      # How many times, and how many seconds apart, to read the holder's process id: it may have locked the file without
      # having written the id yet.
      READ_ATTEMPTS = 20
      READ_RETRY_DELAY = 0.01

      def initialize
        @files = {}
      end

      # Acquires the lock for this process, if it is free.
      #
      # @param namespace [String, nil] the namespace of a manager that has got its first heartbeat
      # @return [Integer, nil] the id of another process, if that holds the lock
      def acquire(namespace)
        close_inherited_files
        file = @files[namespace] = open_file(namespace)
        return lock(file) if file.flock(File::LOCK_EX | File::LOCK_NB)

        other_pid = holder_pid(file)
        file.close
        other_pid unless other_pid == Process.pid
      rescue SystemCallError => e
        # A folder that is not writable must not keep a user from coming online.
        ::Rails.logger&.debug("OnlineManager: cannot check whether other workers use the store :memory: #{e.message}")
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

      # @return [Integer, nil] the id of the process that holds the lock; nil if it cannot be read
      def holder_pid(file)
        READ_ATTEMPTS.times do
          other_pid = file.tap(&:rewind).read.to_i
          return other_pid if other_pid.positive? && alive?(other_pid)

          sleep READ_RETRY_DELAY
        end
        nil
      end

      # A forked child shares its parent's locks by the open files. Closing its copies leaves the parent's lock alone.
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
