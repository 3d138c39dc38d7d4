# frozen_string_literal: true

require "json"

# In a child process: RuboCop extends Ruby's core classes, which must not affect other specs.
RSpec.describe "RuboCop's cop OnlineManager/BareSleep" do
  # @return [Array<Integer>] the lines of the offenses
  def offenses(source, path:)
    process = ruby('require "rubocop"; exit RuboCop::CLI.new.run(ARGV)', "--only", "OnlineManager/BareSleep",
                   "--format", "json", "--cache", "false", "--stdin", path, bundled: true) do |rubocop|
      rubocop.puts(source)
      rubocop.close
    end
    offenses = JSON.parse(process.stdout).fetch("files").flat_map { |file| file.fetch("offenses") }
    offenses.map { |offense| offense.dig("location", "line") }
  end

  it "reports each way to sleep in a spec" do
    expect(offenses(<<~RUBY, path: "spec/some_spec.rb")).to eq [1, 2, 3, 4, 5]
      sleep
      sleep 0.1
      Kernel.sleep(1)
      ::Kernel.sleep(1)
      self.sleep(1)
      task.sleep(1)
      wait_until { true }
    RUBY
  end

  it "leaves other code alone" do
    expect(offenses("sleep 0.1", path: "examples/some.rb")).to be_empty
  end
end
