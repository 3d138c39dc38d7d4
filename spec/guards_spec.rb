# frozen_string_literal: true

require "json"
require "tmpdir"
require_relative "../rakelib/guards/guard"

# `rake guards` checks that an example fails without each guard, which takes minutes.
RSpec.describe "spec/guards" do
  guards = Dir.chdir(RubyProcess::ROOT) { Guards::Guard.all }

  guards.each do |guard|
    it "has the line of this guard once: #{guard.name}" do
      expect(guard.fault(RubyProcess::ROOT)).to be_nil
    end
  end

  # A guard whose example was renamed would only be noticed by `rake guards`.
  it "names examples of RSpec that exist in their files", limit: 60 do
    examples = Dir.mktmpdir do |folder|
      json = "#{folder}/examples.json"
      argv = %w[bundle exec rspec --dry-run --format json --out] << json
      expect(command(*argv, limit: 60)).to be_success
      JSON.parse(File.read(json)).fetch("examples").map do |example|
        [example.fetch("id")[%r{\A\./(.+)\[}, 1], example.fetch("full_description")]
      end
    end

    expect(guards.reject(&:cargo?).map { |guard| [guard.spec, guard.example] } - examples).to be_empty
  end

  it "names tests of cargo that exist" do
    missing = guards.select(&:cargo?).reject do |guard|
      File.read(File.join(RubyProcess::ROOT, guard.spec)).match?(/\b#{guard.example[/\w+\z/]}\b/)
    end

    expect(missing.map(&:example)).to be_empty
  end
end
