# frozen_string_literal: true

# One process of an application with a shared store. Executes the commands on stdin (see support/store/worker.rb), and
# logs its callbacks. Its argument is JSON:
#
# - `store`, `namespace` and `timeout`: the manager's options;
# - `log`: a path (see support/store/log.rb); `folder`: a folder for files that scripts share;
# - `start`: false for a process that participates only from its first heartbeat on;
# - `together`: true for the `_all` callbacks;
# - `hook`: Ruby code that the callbacks run. See Stores::Config.

require "json"
require "online_manager"
require_relative "../store/log"

SETTINGS = JSON.parse(ARGV.fetch(0), symbolize_names: true)
FIRST_PROCESS = Process.pid

module Stores
  # A config that logs each transition, and calls a hook before, during and after the write.
  class Config
    # @return [Proc, nil] called with :first, :middle or :last, the method and the user
    attr_accessor :hook

    # @return [Proc]
    attr_reader :heartbeat

    attr_reader :timeout, :log

    def initialize(log)
      @log = log
      @timeout = SETTINGS.fetch(:timeout)
      extend(Together) if SETTINGS[:together]
    end

    def setup(&heartbeat) = @heartbeat = heartbeat
    def online(user_id, version:) = transition(:online, user_id, version)
    def offline(user_id, version:) = transition(:offline, user_id, version)

    def on_error(exception, user_id)
      @log.append(:error, user_id && Log.token(user_id), detail: "#{exception.class}: #{exception.message}")
    end

    private

    def transition(method, user_id, version)
      @hook&.call(:first, method, user_id)
      @log.append(method, Log.token(user_id), version:) { @hook&.call(:middle, method, user_id) }
      @hook&.call(:last, method, user_id)
    end
  end

  # The `_all` callbacks.
  module Together
    def online_all(user_ids, version:) = all(:online, user_ids, version)
    def offline_all(user_ids, version:) = all(:offline, user_ids, version)

    private

    def all(method, user_ids, versions)
      raise "#{user_ids.size} users, #{versions.size} versions" unless user_ids.size == versions.size

      user_ids.zip(versions) { |user_id, version| transition(method, user_id, version) }
    end
  end

  # The methods that the code on stdin can call.
  class Commands
    attr_reader :log, :config, :manager, :folder

    def initialize
      @log = Log.new(SETTINGS.fetch(:log))
      @folder = SETTINGS.fetch(:folder)
      @config = Config.new(@log)
      hook(&eval(SETTINGS[:hook])) if SETTINGS[:hook] # rubocop:disable Security/Eval
      @manager = OnlineManager.new(@config, reactor: :thread, **SETTINGS.slice(:store, :namespace))
      @manager.setup
      @manager.start unless SETTINGS[:start] == false
    end

    # Executes the commands on stdin until it is closed.
    def serve
      puts "ready"
      $stdin.each_line do |line|
        request = JSON.parse(line, symbolize_names: true)
        request.key?(:heartbeats) ? @manager.seen_all(request[:heartbeats]) : answer(**request)
      end
    end

    # Replaces the hook of the callbacks.
    def hook(&block) = @config.hook = block

    # Kills the process in a callback.
    #
    # @param point [Symbol] :first, :middle or :last, a line of the callback; or :returned, between the callback and the
    #   commit
    # @param after [Integer] the number of callbacks before that one
    def die_at(point, after)
      hook do |at, _, user|
        next unless at == (point == :returned ? :last : point)
        next after -= 1 if after.positive?

        point == :returned ? die_on_return(user) : die(point, user)
      end
    end

    # @param user [Object] the user of the callback
    def die(point, user)
      @log.append(:killed, Log.token(user), detail: point)
      Process.kill(:KILL, Process.pid)
      sleep
    end

    # Blocks a user's callback in its first line while a file exists.
    def block_callback(user, file)
      hook do |at, method, id|
        next unless at == :first && id == user

        @log.append(:held, Log.token(id), detail: method)
        sleep 0.01 while File.exist?(file)
      end
    end

    # Forks children one after the other, each with its own user, `child NUMBER`. One half exits right after the
    # heartbeat; the other half after its user's callback was logged, by `exit!`, so that no cleanup runs.
    #
    # @param numbers [Enumerable<Integer>]
    def fork_children(numbers)
      numbers.each do |number|
        pid = fork { run_child("child #{number}", abruptly: number.odd?) }
        status = reap(pid, 30)
        puts "child #{number} ended with #{status.inspect}" unless status&.exitstatus == 5
      end
    end

    # Forks a child that sends heartbeats of a user until it is ended.
    #
    # @return [Integer] its pid
    def fork_heartbeat_child(user)
      fork do
        loop do
          @manager.seen(user)
          sleep @config.timeout / 10.0
        end
      end
    end

    # Sends heartbeats on several threads, until {#stop_heartbeats}.
    #
    # @param users [Array]
    def start_heartbeats(users)
      @is_sending = true
      @senders = Array.new(3) do |number|
        Thread.new do
          random = Random.new(number)
          while @is_sending
            20.times { @manager.seen(users.sample(random:)) or abort "a heartbeat answered false" }
            @manager.seen_all(users)
            sleep 0.001
          end
        end
      end
    end

    def stop_heartbeats
      @is_sending = false
      @senders.each(&:join)
    end

    # Waits for a condition, up to a number of seconds.
    def wait(limit = 15)
      deadline = now + limit
      until (result = yield)
        raise "waited #{limit} s in vain" if now > deadline

        sleep 0.005
      end
      result
    end

    private

    def answer(number:, code:, args:)
      args = Marshal.load(args.unpack1("m0")) # rubocop:disable Security/MarshalLoad -- from our own parent
      say("answers", number, eval(code, binding)) # rubocop:disable Security/Eval
    rescue StandardError, ScriptError => e
      say("raises", number, "#{e.class}: #{e.message}")
    end

    # Prints in one write, so that lines of several processes do not mix.
    def say(what, number, value)
      $stdout.write("#{what} #{number} #{pack(value)}\n")
    end

    def pack(value)
      [Marshal.dump(value)].pack("m0")
    rescue TypeError
      pack(nil) # a value that cannot be marshalled, such as a thread; the spec does not use it
    end

    def die_on_return(user)
      ours = [__FILE__, Log.instance_method(:append).source_location.first]
      TracePoint.new(:line, :return, :b_return, :c_call) do |event|
        die(:returned, user) unless ours.include?(event.path)
      end.enable(target_thread: Thread.current)
    end

    def run_child(user, abruptly:)
      @manager.seen(user)
      exit 5 unless abruptly

      wait { @log.states.key?(Log.token(user)) }
      @log.append(:killed, detail: "exit!")
      exit!(5)
    end

    # @return [Process::Status, nil] nil if it had to be killed
    def reap(pid, limit)
      wait(limit) { Process.wait2(pid, Process::WNOHANG) }.last
    rescue RuntimeError
      Process.kill(:KILL, pid)
      Process.wait(pid)
      nil
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end

Stores::Commands.new.serve if $PROGRAM_NAME == __FILE__
