# frozen_string_literal: true

# A long file is one that somebody has to read as a whole. Where that is better than two short ones, it says why.
RSpec.describe "A file of code" do
  limit = 400
  code = %w[.rs .rb .lua .js .html]
  # Of the checkout, without what is built; the gem's files alone would be without specs.
  files = Dir.chdir(RubyProcess::ROOT) do
    Dir["{bench,examples,exe,ext,lib,rakelib,rubocop,spec}/**/*"].select { |path| code.include?(File.extname(path)) }
  end
  long = files.reject { |path| path.include?("/target/") }.select do |path|
    File.foreach(File.join(RubyProcess::ROOT, path)).count > limit
  end

  it "is found" do
    expect(files).to include("lib/online_manager.rb", "ext/tracker/src/presence.rs", "ext/store/src/redis/tell.lua")
    expect(long).to include("ext/tracker/src/presence.rs")
  end

  long.each do |path|
    it "that is longer than #{limit} lines gives its reason at its top: #{path}" do
      top = File.foreach(File.join(RubyProcess::ROOT, path)).first(15).join

      expect(top).to match(%r{^(?://!|//|#|--) Over #{limit} lines: \w})
    end
  end
end
