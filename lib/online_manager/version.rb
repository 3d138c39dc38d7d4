# frozen_string_literal: true

class OnlineManager
  # Of the gem.
  VERSION = "1.0.0"
end
