# frozen_string_literal: true

class OnlineManager
  # What this gem raises itself, besides ArgumentError and TypeError for wrong arguments: a manager
  # that runs already or no more, a reactor that is not there, a timer thread that the operating
  # system does not give.
  class Error < StandardError; end
end
