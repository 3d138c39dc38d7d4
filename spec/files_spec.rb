# frozen_string_literal: true

# A long file is one that somebody has to read as a whole. Where that is better than two short ones, it says why.
RSpec.describe "A file of code" do
  limit = 400
  code = %w[.rs .rb .rake .lua .js .html]
  # Of the checkout, without what is built; the gem's files alone would be without specs.
  files = Dir.chdir(RubyProcess::ROOT) do
    Dir["{bench,examples,exe,ext,lib,rakelib,rubocop,spec}/**/*"].select { |path| code.include?(File.extname(path)) }
  end
  reason = %r{^(?://!|//|#|--) Over #{limit} lines: \w}
  long, short = files.reject { |path| path.include?("/target/") }.partition do |path|
    File.foreach(File.join(RubyProcess::ROOT, path)).count > limit
  end

  def top(path) = File.foreach(File.join(RubyProcess::ROOT, path)).first(15).join

  it "is found" do
    expect(files).to include("lib/online_manager.rb", "ext/tracker/src/presence.rs", "ext/store/src/redis/write.lua")
  end

  it "is longer than #{limit} lines here and nowhere else" do
    expect(long).to contain_exactly(
      "ext/store/src/coalescer.rs", "ext/store/src/log.rs", "ext/store/src/member.rs", "ext/store/src/member/thread.rs",
      "ext/store/src/redis.rs", "ext/store/src/sqlite.rs", "ext/tracker/tests/interleavings.rs",
      "ext/tracker/tests/model.rs", "lib/online_manager.rb", "spec/fork_spec.rb", "spec/messages_spec.rb",
      "spec/store/conformance_spec.rb"
    )
  end

  it "that is not gives no reason for it" do
    expect(short.select { |path| top(path).match?(reason) }).to be_empty
  end

  long.each do |path|
    it "that is longer than #{limit} lines gives its reason at its top: #{path}" do
      expect(top(path)).to match(reason)
    end
  end
end
