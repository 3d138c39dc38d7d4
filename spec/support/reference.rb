# frozen_string_literal: true

# Reimplements OnlineManager 0.0.3, to compare what old configs may rely on: one EventMachine timer per heartbeat; the
# timer of the last heartbeat sets the user offline.
class Reference
  # @param config [Object] with `timeout`, `setup`, `online` and `offline`
  def initialize(config)
    @config = config
    @latest = {} # online users, and the number of each one's last heartbeat
    @heartbeats = 0
  end

  # Starts a reactor, and blocks.
  def run = EventMachine.run { setup }

  # Sets up in the running reactor.
  #
  # @return what the config's `setup` returned
  def setup = @config.setup(&method(:heartbeat))

  private

  def heartbeat(id)
    @config.online(id) unless @latest.key?(id)
    number = @latest[id] = (@heartbeats += 1)
    EventMachine.add_timer(@config.timeout) { expire(id) if @latest[id] == number }
  end

  def expire(id)
    @latest.delete(id)
    @config.offline(id)
  end
end
