# frozen_string_literal: true

# Fails the example that leaves a manager set up. Otherwise the examples after it would fail, in some orders.
module LeftManagers
  # Yields, stops the managers that are still set up afterwards, and names them.
  #
  # @raise [RuntimeError] if there are any
  def self.forbid
    yield
    managers = OnlineManager::Registry.instance_variable_get(:@managers)
    return if managers.empty?

    left = managers.map(&:inspect)
    managers.each { |manager| manager.stop(timeout: 0) }
    managers.each { |manager| manager.lifecycle.finish }
    raise "the example has not stopped #{left.join(", ")}"
  end
end
