# frozen_string_literal: true

# Reports to `rake soak` the progress of a long example. Also loaded into child processes.
module Progress
  FILE = ENV.fetch("PROGRESS", nil)

  # @param done [Numeric]
  # @param total [Numeric]
  def self.at(done, total)
    write(FILE, done.fdiv(total)) if FILE
  end

  # Reports the number of finished examples.
  def self.count_examples(config)
    done = 0
    config.after do
      Progress.write("#{FILE}.examples", "#{done += 1}/#{RSpec.world.example_count}")
      Progress.at(0, 1)
    end
  end

  # Replaces the file as a whole: somebody may be about to read it.
  def self.write(path, text)
    part = [path, Process.pid, Thread.current.object_id].join(".")
    File.write(part, text)
    File.rename(part, path)
  end
end
