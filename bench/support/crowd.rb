# frozen_string_literal: true

require "timeout"

require_relative "silent_config"

module Bench
  # Users who all expire at the same moment. First `gather`, then `expire`.
  #
  # Subclasses have `gather`, after which everybody is online and `deadline` is set, and `heartbeat`, a Proc that sends
  # a heartbeat of any user. They call `departed` when users are set offline.
  class Crowd
    # The maximum length of the expiry, in seconds.
    LIMIT = 2

    # @return [Integer] nanoseconds on the monotonic clock: when everybody is due, when the first user was set offline
    #   and when the last one was
    attr_reader :deadline, :first, :last

    # @param users [Integer] how many
    def initialize(users)
      @ids = (1..users).to_a
      @left = users
      @is_over = Thread::Queue.new
    end

    # Waits until everybody is offline, or until LIMIT has passed; by then the rate is known.
    def expire
      raise "the crowd was not there in time for its deadline" if Bench.now > deadline

      Timeout.timeout(deadline_in + LIMIT) { @is_over.pop }
    rescue Timeout::Error
      @is_cut_off = true
    end

    # @return [Boolean] whether LIMIT passed before the last user was offline
    def cut_off? = @is_cut_off

    # @return [Integer] how many users have been set offline
    def departures = @ids.size - @left

    # Counts users who have been set offline.
    def departed(number = 1)
      @first ||= Bench.now
      @left -= number
      @last = Bench.now
      @is_over << true if @left.zero?
    end

    private

    # @param seconds [Numeric] from now to the deadline
    def due_in(seconds)
      @deadline = Bench.now + (seconds * 1_000_000_000).to_i
    end

    def deadline_in = (deadline - Bench.now) / 1e9
  end

  # The gem with `offline`.
  class OurCrowd < Crowd
    # Seconds. Everybody has to send two heartbeats within it.
    TIMEOUT = 2

    # Counts in the crowd who was set offline.
    class Config < SilentConfig
      def initialize(timeout, crowd)
        super(timeout)
        @crowd = crowd
      end

      # Faster than `online` for each.
      def online_all(_user_ids); end

      def offline(_user_id) = @crowd.departed
    end

    def gather
      @manager = OnlineManager.new(config(TIMEOUT), reactor: :thread)
      @heartbeat = @manager.setup
      @manager.seen_all(@ids)
      # A user's first deadline counts from the return of `online`. The second heartbeat makes all deadlines equal.
      due_in(TIMEOUT)
      @manager.seen_all(@ids)
    end

    attr_reader :heartbeat

    private

    def config(timeout) = Config.new(timeout, self)
  end

  # The gem with `offline_all`.
  class TogetherCrowd < OurCrowd
    # Counts in the crowd who was set offline.
    class Config < OurCrowd::Config
      def offline_all(user_ids) = @crowd.departed(user_ids.size)
    end

    private

    def config(timeout) = Config.new(timeout, self)
  end

  # A Hash of timestamps that a thread sweeps each second.
  class SweptCrowd < Crowd
    TIMEOUT = 2

    def gather
      @users = @ids.to_h { |id| [id, Bench.now] }
      due_in(TIMEOUT)
      @mutex = Mutex.new
      Thread.new { sweep }
    end

    def heartbeat
      proc { |id| @mutex.synchronize { @users[id] = Bench.now } }
    end

    private

    def sweep
      loop do
        sleep 1
        limit = Bench.now - (TIMEOUT * 1_000_000_000).to_i
        expired = nil
        @mutex.synchronize do
          expired = @users.select { |_, seen| seen < limit }.keys
          expired.each { |id| @users.delete(id) }
        end
        expired.each { departed }
      end
    end
  end

  # One EventMachine timer per user.
  class TimerCrowd < Crowd
    TIMEOUT = 2

    def gather
      EM.set_max_timers(Timers::TIMERS)
      due_in(TIMEOUT)
      gathered = Thread::Queue.new
      Thread.new do
        EM.run do
          @ids.each { EM.add_timer(deadline_in) { departed } }
          gathered << true
        end
      end
      gathered.pop
    end

    # Called on another thread than the reactor's.
    def heartbeat
      proc { |_id| EM.schedule { EM.add_timer(3_600) {} } } # rubocop:disable Lint/EmptyBlock -- never called
    end
  end
end
