# frozen_string_literal: true

class OnlineManager
  # Base class of the gem's errors: a manager that is used before it is set up, set up twice or after a stop; a reactor
  # that is not available; a thread or a pipe that the operating system refuses. Wrong arguments raise ArgumentError or
  # TypeError instead.
  class Error < StandardError; end

  # A shared store cannot be used. `setup` and `run` raise it for permanent errors (a path that is a folder, a wrong
  # password); a question such as `online?` raises it when the store cannot be read within 5 s; `on_error` gets it, with
  # the user id nil, when a store that worked fails.
  class StoreError < Error; end

  # The code of a config that is given by name, or of the whole Rails application, cannot be loaded. The cause is the
  # exception of the code.
  class Unloadable < Error; end
end
