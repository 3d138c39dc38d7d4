# frozen_string_literal: true

class OnlineManager
  # What this gem raises itself, besides ArgumentError and TypeError for wrong arguments: a manager
  # that runs already or no more, a reactor that is not there, a timer thread that the operating
  # system does not give.
  class Error < StandardError; end

  # What is wrong with a shared store: `setup` raises it if the store cannot be used at all, and `on_error` is
  # told of it when the store fails later.
  class StoreError < Error; end

  # The code of a config that is given by name cannot be loaded, or is in the way of the application's being loaded. The
  # cause says why.
  class Unloadable < Error; end
end
