# frozen_string_literal: true

require "tempfile"

# Random ids and arguments for the whole public API: see support/child/fuzz.rb. ext/tracker/tests/model.rs does it for
# the tracker.
RSpec.describe "The public API" do
  # FUZZ_CASES=1000000 is the size in `rake soak`. FUZZ_SEED repeats the cases of an earlier run.
  cases = Integer(ENV.fetch("FUZZ_CASES", 20_000))
  seed = Integer(ENV.fetch("FUZZ_SEED") { Random.new_seed % (2**32) })
  limit = 60 + (cases / 500)

  it "survives #{cases} random cases (FUZZ_SEED=#{seed} FUZZ_CASES=#{cases})", limit: limit + 10 do
    at = Tempfile.new("fuzz")
    env = { "FUZZ_SEED" => seed.to_s, "FUZZ_CASES" => cases.to_s, "FUZZ_AT" => at.path }
    process = ruby('require "./spec/support/child/fuzz"; Fuzz.run', bundled: true, env:, limit:)

    # Ruby warns about 1e400, Ruby 3.4 about blocks for methods without one, and a manager about a stop that timed out
    # at once.
    expect(process.stderr.lines.grep_v(/Float .*out of range|out of Float range|user has not been set offline/)
                               .grep_v(/users have not been set offline|the last offline has not returned yet/)
                               .grep_v(/worker\.rb:\d+: warning: the block passed to .* may be ignored/))
      .to be_empty
    expect(process.lines).to match [/\A\d+ cases, \d+ exceptions\z/]
    expect(process).to be_success
  ensure
    warn "The threads were at the cases #{at.read.split.join(", ")} (FUZZ_SEED=#{seed})" unless process&.success?
    at.close!
  end
end
