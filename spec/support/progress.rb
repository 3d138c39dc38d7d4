# frozen_string_literal: true

# Tells `rake soak` how far a long example has come. Also loaded into child processes.
module Progress
  FILE = ENV.fetch("PROGRESS", nil)

  # @param done [Numeric]
  # @param total [Numeric]
  def self.at(done, total)
    File.write(FILE, done.fdiv(total)) if FILE
  end
end
