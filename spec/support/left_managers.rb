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
    managers.each do |manager|
      manager.stop(timeout: 0)
      manager.lifecycle.finish
    end
    raise "the example has not stopped #{left.join(", ")}"
  end
end
