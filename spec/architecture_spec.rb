# frozen_string_literal: true

# docs/architecture.md has a section with a table for each folder, which must list exactly the folder's files.
RSpec.describe "docs/architecture.md" do
  root = RubyProcess::ROOT
  text = File.read("#{root}/docs/architecture.md")
  sections = text.split(/^(?=##)/)

  # @return [Array<Array<String>>] the cells of each row of a section's table
  def rows(section) = section.scan(/^\| `(.*)` \| (.*) \|$/)

  # @return [Array<String>] the top-level names that git ignores
  define_method(:ignored) { File.readlines("#{root}/.gitignore").filter_map { |line| line[%r{\A/([\w.]+)/$}, 1] } }

  described = sections.grep(%r{\A### `(.*)/`}).to_h { |section| [section[/`(.*)`/, 1], section] }

  it "describes every top-level folder and no other" do
    folders = Dir.glob("*/", File::FNM_DOTMATCH, base: root).map { |path| path.chomp("/") }

    expect(rows(sections.grep(/\A## The folders/).first).map(&:first))
      .to match_array(folders - %w[. .. .git] - ignored)
  end

  it "describes every file of lib/, of the crates, of rakelib/ and of bench/ and no other" do
    files = Dir["lib/**/*.{rb,js}", "ext/*/src/**/*.{rs,lua}", "rakelib/*.{rake,rb}", "bench/*.rb", base: root]
    rows = described.flat_map { |folder, section| rows(section).map { |name, _| "#{folder}#{name}" } }

    expect(rows.grep_v(%r{/\z})).to match_array(files)
  end

  it "describes every folder within the crates, rakelib/ and bench/ and no other" do
    folders = Dir["ext/*/src/**/*/", base: root]
    rows = described.flat_map { |folder, section| rows(section).map { |name, _| "#{folder}#{name}" } }

    expect(rows.grep(%r{/\z})).to match_array(folders + Dir["{rakelib,bench}/*/", base: root])
    expect(described.keys.grep(%r{\Aext/})).to match_array(folders + Dir["ext/*/src/", base: root])
  end

  it "has a text for each of them" do
    expect(sections.flat_map { |section| rows(section).map(&:last) }).to all match(/\w/)
  end

  # The quoted words include file names without a folder, and methods of the native classes.
  it "names files and methods that exist" do
    names = text.scan(/`([^`\n]+)`/).flatten
    files = names.grep(%r{\A(?:lib|ext|spec)/[\w/.]+\w\z})
    basenames = Dir["{bench,ext,lib,rakelib}/**/*.{rb,rs,lua}", base: root].map { |path| File.basename(path) }
    rust = names.grep(/\A(?:NativeTracker|NativeMember)::/)
    ruby = names.grep(/\A[A-Z]\w+#\w+\z/)

    expect(files.reject { |path| File.exist?("#{root}/#{path}") }).to be_empty
    expect(names.grep(/\A\w+\.(?:rb|rs|lua)\z/) - basenames).to be_empty
    expect(rust.reject { |name| rust?(name) }).to be_empty
    expect(ruby.reject { |name| ruby?(*name.split("#")) }).to be_empty
    expect([files, rust, ruby].map(&:size)).to all be > 2
  end

  define_method(:rust?) do |name|
    type, function = name.split("::")
    file = type.gsub(/(?<=[a-z])(?=[A-Z])/, "_").downcase
    sources = Dir["#{root}/ext/online_manager/src/#{file}{.rs,/*.rs}"]
    sources.any? { |source| File.read(source).match?(/fn #{function}\(/) }
  end

  def ruby?(type, method)
    owner = type == "OnlineManager" ? OnlineManager : OnlineManager.const_get(type)
    owner.method_defined?(method)
  end

  it "has links that lead to existing files" do
    links = text.scan(/\]\(([^)#]+)\)/).flatten

    expect(links).not_to be_empty
    expect(links.reject { |link| File.exist?(File.expand_path(link, "#{root}/docs")) }).to be_empty
  end
end
