# frozen_string_literal: true

# Long files are hard to read. A file above the limit states at its top why it is not split.
RSpec.describe "A file of code" do
  limit = 400
  code = %w[.rs .rb .rake .lua .js .html]
  # The files of the checkout, without build output; the gem's file list would lack the specs.
  files = Dir.chdir(RubyProcess::ROOT) do
    Dir["{bench,examples,exe,ext,lib,rakelib,rubocop,spec}/**/*"].select { |path| code.include?(File.extname(path)) }
  end
  reason = %r{^(?://!|//|#|--) Over #{limit} lines: \w}
  long, short = files.reject { |path| path.include?("/target/") }.partition do |path|
    File.foreach(File.join(RubyProcess::ROOT, path)).count > limit
  end

  def top(path) = File.foreach(File.join(RubyProcess::ROOT, path)).first(15).join

  it "is found by the patterns" do
    expect(files).to include("lib/online_manager.rb", "ext/tracker/src/presence.rs", "ext/store/src/redis/write.lua")
  end

  it "is longer than #{limit} lines only where it is listed here" do
    expect(long).to contain_exactly(
      "ext/store/src/against_model.rs", "ext/store/src/log.rs", "ext/store/src/member/state.rs",
      "ext/store/src/member/state/tests.rs",
      "ext/store/src/model.rs", "ext/store/src/simulator/world.rs", "ext/store/src/sqlite.rs",
      "ext/store/src/store.rs", "ext/store/tests/redis.rs", "ext/store/tests/rules.rs", "ext/store/tests/sqlite.rs",
      "ext/tracker/tests/exhaustive.rs", "ext/tracker/tests/interleavings.rs", "ext/tracker/tests/model.rs",
      "ext/tracker/tests/rules/sessions.rs", "lib/online_manager.rb",
      "spec/fork_spec.rb", "spec/messages_spec.rb", "spec/store/conformance_spec.rb"
    )
  end

  it "that is shorter gives no reason for its length" do
    expect(short.select { |path| top(path).match?(reason) }).to be_empty
  end

  long.each do |path|
    it "that is longer than #{limit} lines gives its reason at its top: #{path}" do
      expect(top(path)).to match(reason)
    end
  end
end
