# frozen_string_literal: true

class OnlineManager
  VERSION = "1.0.0"
end
