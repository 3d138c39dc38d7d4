# frozen_string_literal: true

require "tmpdir"

# `rake mutants` takes most of an hour. Here a script stands in for cargo, and ends at once.
RSpec.describe "rake mutants" do
  # @param status [Integer] cargo-mutants' exit status
  # @param survivors [String] the list that it writes
  # @return [String] what Mutants#run returned
  def outcome(status, survivors)
    Dir.mktmpdir do |folder|
      FileUtils.mkdir_p(["#{folder}/spec", "#{folder}/tmp/mutants/mutants.out"])
      File.write("#{folder}/spec/mutants.yml", "[]")
      File.write("#{folder}/cargo", <<~SH, perm: 0o755)
        #!/bin/sh
        case "$*" in
          *--version*) ;;
          *--list*) echo "[]" ;;
          *) printf "#{survivors}" > tmp/mutants/mutants.out/missed.txt; exit #{status} ;;
        esac
      SH
      ruby(<<~RUBY, bundled: true, chdir: folder, env: { "PATH" => "#{folder}:#{ENV.fetch("PATH")}" }).stdout
        require "English"
        require "fileutils"
        require "rake"
        load "#{RubyProcess::ROOT}/rakelib/mutants.rake"
        print Mutants.new(["wheel"], 1).run
      RUBY
    end
  end

  it "fails for each survivor, also when other mutants have timed out" do
    survivor = "wheel.rs:1:1: replace + with *"

    expect([outcome(0, ""), outcome(3, "")]).to eq %w[true true]
    expect([outcome(2, survivor), outcome(3, survivor)]).to eq %w[false false]
  end

  it "fails if not all mutants were tried" do
    expect(outcome(4, "")).to eq "false"
  end
end
