# frozen_string_literal: true

# A framework integration that records its calls.
class IntegrationSpy < OnlineManager::Integration
  attr_writer :unloadable, :is_booted, :is_boot_thread, :takes_part, :uses_fibers, :before_delivery
  attr_accessor :root

  # @param calls [Queue] receives the names of surrounded calls
  # @param log [Queue] receives the arguments of the other methods
  def initialize(calls, log)
    super()
    @calls = calls
    @log = log
    @is_booted = @takes_part = @uses_fibers = true
  end

  def around_heartbeat(&) = surround(:heartbeat, &)

  def around_delivery(&)
    raise OnlineManager::Unloadable, "syntax error" if @unloadable

    @before_delivery&.call
    surround(:delivery, &)
  end

  def booted? = @is_booted
  def booting? = !@is_booted
  def boot_thread? = !!@is_boot_thread
  def uses_fibers? = @uses_fibers
  def after_boot(&block) = @log << block
  def participates? = @takes_part
  def warn_if_not_alone(namespace) = @log << [:alone, namespace]
  def notify?(_transition) = true

  def notify(transition, payloads)
    @log << [transition, *payloads]
    yield
  end

  def report(error, message, user_id) = @log << [message, error.message, user_id]
  def warn(message) = @log << message

  private

  def surround(what)
    @calls << what
    yield.tap { @calls << :end }
  end
end
