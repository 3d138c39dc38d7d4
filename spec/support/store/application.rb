# frozen_string_literal: true

require "fileutils"
require "json"
require "open3"
require "tmpdir"

module Stores
  # An application of several processes that share a store, with the log of its callbacks and the judge of that log.
  class Application
    include Wait

    # See {Judge#report}.
    Report = Struct.new(:faults, :transitions, :repeats, :repeats_of, :kills, keyword_init: true)

    JUDGE = File.join(__dir__, "judge.rb")

    attr_reader :store, :timeout, :log, :workers

    # @return [WallClock, nil]
    attr_reader :wall_clock

    # @param store [Object] such as {Sqlite}
    # @param timeout [Numeric] seconds
    # @param own_clock [Boolean] whether it has its own wall clock
    # @param env [Hash{String => String}] the environment of its processes
    # @param settings [Hash] see support/child/store.rb
    def initialize(store, timeout: 1, own_clock: false, env: {}, **settings)
      @store = store
      @timeout = timeout
      @folder = Dir.mktmpdir("online_manager_store")
      @wall_clock = WallClock.new("#{@folder}/clock") if own_clock
      @env = env.merge(@wall_clock&.env || {})
      @log = Log.new("#{@folder}/log")
      @settings = { **store.options, timeout:, log: @log.path, folder: @folder, **settings }
      @workers = []
    end

    # Starts a process, which participates at once.
    #
    # @param settings [Hash] see support/child/store.rb
    # @return [Worker]
    def start(**settings)
      worker = Worker.new(@settings.merge(settings), env: @env)
      @workers += [worker]
      worker.wait_for("ready")
      worker
    end

    # Starts several processes.
    #
    # @return [Array<Worker>]
    def start_all(count, **settings)
      threads = Array.new(count) { Thread.new { start(**settings) } }
      threads.each { |thread| thread.report_on_exception = false }.map(&:value)
    end

    # @return [Crowd] the users of this application
    def crowd = @crowd ||= Crowd.new(self)

    # @return [Array<Worker>] the processes that get heartbeats
    def serving = @workers.select(&:serving?)

    # Waits until a process that gets heartbeats holds a lease.
    #
    # @return [Worker]
    def lease_holder(limit: 20)
      wait_until(limit:) { serving.find { |worker| lease_holder?(worker) } }
    end

    # Waits until the processes that get heartbeats hold all leases: each of them some, if there are enough.
    #
    # @return [Array<Worker>] the lease holders
    def lease_holders(limit: 20)
      wait_until(limit:) do
        count = [@store.class::PARTITIONS, serving.size].min
        holders = serving.select { |worker| lease_holder?(worker) }
        holders if holders.size == count && @store.shared_by?(count)
      end
    end

    # Kills a process, and logs that.
    def kill(worker)
      @log.append(:killed, pid: worker.pid, detail: "outside")
      worker.kill
    end

    # Pauses a process, and logs that. Never in the middle of a transaction, which would block the others. The process
    # gets no heartbeats for half a timeout before: a heartbeat that it has not written yet would still be valid when it
    # resumes, and bring back a user who was set offline meanwhile.
    def pause(worker)
      worker.stop_serving
      throughout(@timeout / 2.0) { worker.ask("nil") }
      @log.append(:stopped, pid: worker.pid)
      wait_until do
        worker.pause
        @store.free? || worker.resume(serving: false)
      end
    end

    # @return [Array<Log::Line>] the store errors that `on_error` got
    def store_errors = @log.lines(:error).select { |line| line.id.nil? }

    # @return [Array<Log::Line>] the transitions, of the given user if there is one
    def transitions(*user, repeats: false)
      lines = @log.lines(:online, :offline)
      lines.select! { |line| line.id == Log.token(user.first) } unless user.empty?
      repeats ? lines : lines.uniq { |line| [line.id, line.version] }
    end

    # Waits until the store has committed every delivery.
    #
    # @param online [Integer] the number of users who are then online
    def expect_committed(online)
      eventually { RSpec::Expectations.fail_with("not committed") unless lease_holder.ask(<<~RUBY) == [online, 0] }
        [manager.size, manager.stats[:waiting]]
      RUBY
    end

    # Waits until the latest transition of these users is the given one.
    #
    # @param state [Symbol] :online or :offline
    def expect_all(users, state, limit: 30)
      tokens = users.map { |user| Log.token(user) }
      eventually(limit:) do
        states = @log.states
        others = tokens.reject { |token| states[token] == state }
        others.empty? or
          RSpec::Expectations.fail_with("#{others.size} of #{tokens.size} users are not #{state}, #{others.first(5)}")
      end
    end

    # Lets the judge read the log. Output on a process' standard error is a fault too, but for an expected warning.
    #
    # @param sessions [Hash{Object => Integer}] the number of sessions of each user
    # @param online [Array] the users who are online at the end
    # @param repeats [String] see {Judge}
    # @param warning [Regexp, nil] the whole of what each process has to print on standard error
    # @return [Report]
    def judge(sessions, online: [], repeats: "at kills", warning: nil)
      script = "#{@folder}/script"
      File.write(script, JSON.generate(sessions: sessions.transform_keys { |user| Log.token(user) },
                                       online: online.map { |user| Log.token(user) }, repeats:))
      output, status = Open3.capture2e(RbConfig.ruby, JUDGE, @log.path, script)
      status.success? or RSpec::Expectations.fail_with("the judge failed:\n#{output}")
      report = Report.new(**JSON.parse(output).transform_keys(&:to_sym))
      report.faults.concat(complaints(warning))
      report
    end

    # @return [String] the path of a file that hooks of the processes wait for
    def flag(name) = "#{@folder}/#{name}"

    # Ends all processes.
    def close
      @crowd&.stop
      @workers.each(&:kill)
      FileUtils.remove_entry(@folder)
      @store.remove
    end

    private

    # @return [Array<String>] the processes' output on standard error
    def complaints(warning)
      said = @workers.to_h { |worker| [worker.pid, worker.process.stderr] }
      said.filter_map { |pid, text| "process #{pid} said #{text}" unless warning ? text.match?(warning) : text.empty? }
    end

    # A process that dies at this moment holds none.
    def lease_holder?(worker)
      worker.lease_holder?
    rescue Errno::EPIPE, IOError, RSpec::Expectations::ExpectationNotMetError
      raise if worker.process.status.nil?
    end
  end
end
