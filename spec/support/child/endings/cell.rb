# frozen_string_literal: true

require_relative "config"
require_relative "plain"

# The application of one cell: one or two managers with three users each. It prints each call of `offline`, and at the
# end whether each manager lives on.
class Cell
  include Plain

  # Seconds until a manager that calls nobody counts as dead.
  PROBE_LIMIT = 3
  # The user of the first manager in whose heartbeat an ending happens.
  VISITOR = 9
  # Seconds of a Timeout, which comes in the middle of an `offline`.
  TIMEOUT = 0.1

  # @param cell [Hash] of the table, see spec/support/endings.rb
  def initialize(cell)
    @place, @ending, @passes_on = cell.values_at(:place, :ending, :passes_on)
    @callback = @place[/\A(online|heartbeat) /, 1] || "offline"
    @place = @place.delete_prefix("#{@callback} ")
    @configs = [Config.new(self, [1, 2, 3]), Config.new(self, [11, 12, 13])].first(cell.fetch(:managers))
    @managers = @configs.map { |config| OnlineManager.new(config, reactor: REACTOR) }
    @has_ended = false
    @first_is_over = Thread::Queue.new
    @ready = Thread::Queue.new
    @released = Thread::Queue.new
  end

  def run
    Process.setproctitle("ending: #{@ending} #{"#{@callback} " if @callback != "offline"}#{@place}")
    return run_until_exit if @place == "at exit"

    begin
      within_timeout { catch(:out) { in_reactor { run_in_place } } }
    rescue Exception # rubocop:disable Lint/RescueException -- as a server does that lives on
      @released << true
      # Ruby would end the thread of the config's `setup`, which sets its user offline now.
      @configs.first.called?(VISITOR, PROBE_LIMIT) if @callback == "heartbeat" && REACTOR == :thread && timeout_around?
      probe
      raise
    end
    probe
  end

  # Called in `setup`, when everybody is online. Yields to send a heartbeat of somebody else.
  def ready(config, &heartbeat)
    @ready << config
    return unless @place == "in run" && config == @configs.first

    @managers.drop(1).each(&:setup)
    in_background { end_run }
    heartbeat.call if @callback == "heartbeat"
  end

  # Called in each `offline`. Yields to send a heartbeat of its user, who comes back then.
  def first_offline(&heartbeat)
    return if @has_ended || @callback == "heartbeat"

    @has_ended = true
    return end_here if @callback == "offline"

    heartbeat.call
    @comes_back = true
  end

  # Called in each `online`.
  def online(user)
    return unless @comes_back || user == VISITOR

    @comes_back = false
    end_here
  end

  private

  def end_here
    act
  ensure
    @first_is_over << true
  end

  def act
    return ENDINGS.fetch(@ending.to_sym).call unless @ending == "Timeout"

    return @released.pop if timeout_around?
    # In Ruby 3.1 a Timeout in a fiber of Async interrupts the whole scheduler, so Async has its own.
    return Async::Task.current.with_timeout(TIMEOUT) { sleep 60 } if REACTOR == :fiber

    Timeout.timeout(TIMEOUT) { sleep 60 }
  end

  def timeout_around? = @ending == "Timeout" && ["in run", "in stop"].include?(@place)

  def within_timeout(&block)
    timeout_around? ? Timeout.timeout(TIMEOUT * 2, &block) : yield
  end

  def in_reactor(&block)
    if @place == "in run"
      @managers.first.then { |manager| REACTOR == :fiber ? Async { catch(:out) { manager.run } }.wait : manager.run }
    elsif REACTOR == :thread
      yield
    elsif REACTOR == :eventmachine
      EM.run(&block)
    else
      Async(&block).wait
    end
  end

  def in_background(&block)
    Thread.new(&block).tap { |thread| thread.report_on_exception = false }
  end

  # Ends what runs in `run`, beside it.
  def end_run
    @managers.first.leave(2) unless @callback == "heartbeat"
    return if @passes_on

    @first_is_over.pop
    probe unless @ending == "return"
    @managers.first.stop
  end

  def run_in_place
    @managers.each(&:setup)
    @place == "in stop" ? stop_in_place : leave_in_place
  end

  def leave_in_place
    @callback == "heartbeat" ? @managers.first.seen(VISITOR) : @managers.first.leave(2)
    if @passes_on
      sleep 60 if REACTOR != :eventmachine
    elsif REACTOR == :eventmachine
      in_background do
        @first_is_over.pop
        probe
        EM.schedule { EM.stop }
      end
    else
      @first_is_over.pop
      probe
    end
  end

  # Four threads stop the manager, one of them the main one, on which EventMachine or Async runs, if any of them does.
  def stop_in_place
    stop = lambda do
      stoppers = Array.new(3) { in_background { @managers.first.stop } }
      @managers.first.stop
      stoppers.each(&:join)
    end
    return stop.call unless REACTOR == :eventmachine

    EM.next_tick do
      stop.call
      EM.stop
    end
  end

  # The reactor runs on another thread, if there is one, and the main thread ends.
  def run_until_exit
    if REACTOR == :thread
      @managers.each(&:setup)
    else
      in_background do
        catch(:out) do
          in_reactor do
            @managers.each(&:setup)
            sleep 60 if REACTOR == :fiber
          end
        end
      end
      @managers.size.times { @ready.pop }
    end
  end

  # Prints whether each manager still calls `offline`. Once: EventMachine's is no more once it has ended.
  def probe
    return if @is_probed

    @is_probed = true
    @managers.zip(@configs) do |manager, config|
      user = config.users.last + 1
      lives = manager.seen(user) && manager.leave(user) && config.called?(user, PROBE_LIMIT)
      puts "#{lives ? "alive" : "ended"} #{config.users.first}"
    end
  end
end
