# frozen_string_literal: true

class Cell
  # What the first `offline` of the process does.
  ENDINGS = {
    return: -> {},
    raise: -> { raise "oops" },
    throw: -> { throw :out },
    exit: -> { exit 3 },
    abort: -> { abort "enough" },
    "kill self": -> { Thread.current.kill },
    Interrupt: -> { raise Interrupt },
    SignalException: -> { raise SignalException, "TERM" },
    "killed from outside": lambda {
      mine = Thread.current
      Thread.new { mine.kill }
      sleep 60
    }
  }.freeze

  # A config whose users come online in `setup`.
  class Config
    attr_reader :users

    def initialize(cell, users)
      @cell = cell
      @users = users
      @inside = 0
      @calls = Thread::Queue.new
    end

    def timeout = 60

    def setup(&heartbeat)
      @heartbeat = heartbeat
      @users.each(&heartbeat)
      @cell.ready(self) { heartbeat.call(VISITOR) }
    end

    def online(user) = @cell.online(user)

    def offline(user)
      puts "offline #{user}"
      @inside += 1
      puts "overlap" if @inside > 1
      sleep 0 # so that another thread could call `offline` too
      @cell.first_offline { @heartbeat.call(user) }
    ensure
      @inside -= 1
      @calls << user
    end

    # Waits for a user's `offline`.
    def called?(user, limit)
      Timeout.timeout(limit) { nil until @calls.pop == user }
      true
    rescue Timeout::Error
      false
    end
  end
end
