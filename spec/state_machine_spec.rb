# frozen_string_literal: true

# docs/state_machine.md names tests of each rule. Without this spec, a renamed test would leave its old name behind.
RSpec.describe "docs/state_machine.md" do
  named = File.read("#{RubyProcess::ROOT}/docs/state_machine.md").scan(/`(rule_\d+_\w+)`/).flatten

  it "names a test of each rule" do
    expect(named.map { |test| test[/\d+/].to_i }.uniq).to eq [*1..14, 16]
  end

  it "names tests that exist" do
    tests = Dir["#{RubyProcess::ROOT}/ext/tracker/tests/{rules/*,tracker,memory}.rs"].flat_map do |path|
      File.read(path).scan(/fn (rule_\d+_\w+)\(/).flatten
    end

    expect(named - tests).to be_empty
  end
end
