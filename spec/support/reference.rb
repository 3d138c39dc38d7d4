# frozen_string_literal: true

# What OnlineManager 0.0.3 does, in our words: the measure of what an old config may count on. A timer of EventMachine's
# for each heartbeat; the one of the last heartbeat sets the user offline.
class Reference
  # @param config [Object] with `timeout`, `setup`, `online` and `offline`
  def initialize(config)
    @config = config
    @latest = {} # the number of each online user's last heartbeat
    @heartbeats = 0
  end

  # Starts a reactor, and blocks.
  def run = EventMachine.run { setup }

  # Joins the reactor that runs.
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
