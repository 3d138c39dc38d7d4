# frozen_string_literal: true

# The demo: a real WebSocket server here, three real clients in another process, and a judge. bin/demo starts it.

require "online_manager"
require "timeout"
require_relative "cast"
require_relative "client_process"
require_relative "journal"
require_relative "judge"
require_relative "narrator"
require_relative "online_config"

module WebSocketDemo
  # Runs the server and the clients, prints what happens, and ends when all clients but the one that never stops are
  # offline. It receives the events of its OnlineConfig, so all methods but #call run on the reactor thread.
  class Demo
    TIMEOUT = 2
    # How long the demo watches on at the end, in seconds: a doubled transition could come one timeout later.
    OBSERVATION_TIME = TIMEOUT + 0.75
    # A transition that has not come after this many seconds is missing.
    TRANSITION_TIMEOUT = 18
    # The demo fails if the manager has not ended after this many seconds. More than TRANSITION_TIMEOUT, and less than
    # the half minute that the README promises.
    STOP_TIMEOUT = 24

    def initialize
      @journal = Journal.new
      @narrator = Narrator.new(@journal, timeout: TIMEOUT)
      @expected = CAST.to_h { |actor| [actor.name, actor.ending == :keeps_on ? :shutdown : :timeout] }
      @clients = ClientProcess.new
      @clients.on_action { |user, action| @narrator.action(user, action) }
      @clients.on_failure { |reason| fail_with("the clients' process ended by itself: #{reason}") }
    end

    # @return [Integer] the exit status
    def call
      run
      @failure ? failed(@failure) : verdict
    rescue SignalException => e
      warn("\nbin/demo: ended by #{e.is_a?(Interrupt) ? "Ctrl-C" : e.message} while #{@step}")
      128 + e.signo
    rescue StandardError, LoadError => e
      failed("#{e.message} (#{e.class})", e.backtrace)
    ensure
      @clients.stop
    end

    def listening(port)
      @step = "starting the clients"
      pid = @clients.start(port)
      @narrator.opening(port, pid)
      EM.add_timer(TRANSITION_TIMEOUT) { finish("some transition did not come within #{TRANSITION_TIMEOUT} s") }
    end

    def connected(user, _socket)
      @narrator.connected(user)
      @step = "watching the transitions"
    end

    def disconnected(user, _socket) = @narrator.disconnected(user)

    def heartbeat(user) = @journal.heartbeat(user)
    def online(user) = transition(user, :online)

    def offline(user)
      transition(user, :offline)
      EM.add_timer(OBSERVATION_TIME) { finish("that was all: the demo stops the manager") } if complete?
    end

    private

    def run
      @step = "starting the server"
      config = OnlineConfig.new(self, timeout: TIMEOUT)
      Timeout.timeout(STOP_TIMEOUT, Timeout::Error, "it did not end within #{STOP_TIMEOUT} s") do
        OnlineManager.run(config, reactor: :eventmachine)
      end
    end

    def transition(user, state)
      @narrator.transition(@journal.transition(user, state))
    end

    # Whether every client that goes offline by the timeout has done so.
    def complete?
      return false if @journal.shutdown_at

      gone = @journal.transitions.select { |transition| transition.state == :offline }.map(&:user)
      (@expected.select { |_, cause| cause == :timeout }.keys - gone).empty?
    end

    def finish(reason)
      return if @journal.shutdown_at

      @step = "stopping the manager"
      @narrator.note(reason)
      @journal.shutdown
      OnlineManager.current.stop
    end

    def fail_with(reason)
      return if @journal.shutdown_at

      @failure = reason
      @failed_step = @step
      finish("a failure: the demo stops the manager")
    end

    def failed(reason, backtrace = [])
      warn("\nbin/demo: failed while #{@failed_step || @step}: #{reason}", *backtrace.first(5))
      1
    end

    def verdict
      faults = Judge.new(@journal, expected: @expected, timeout: TIMEOUT).faults
      @narrator.verdict(faults)
      faults.empty? ? 0 : 1
    end
  end
end

exit(WebSocketDemo::Demo.new.call) if $PROGRAM_NAME == __FILE__
