# frozen_string_literal: true

require_relative "support/api/documentation"

# Objects that are `@private` may be documented less.
RSpec.describe "The documentation of lib/" do
  root = RubyProcess::ROOT

  documentation = nil
  before(:context) { documentation = TimeLimit.enforce(60) { Documentation.new("#{root}/lib") } }

  # @param method [YARD::CodeObjects::MethodObject]
  # @return [Array<String>] the names of its parameters
  def parameters_of(method) = method.parameters.map { |name, _| name.delete("*&:") }

  # @return [Array<String>] the names in its tags
  def named_by(method, tag) = method.tags(tag).map(&:name)

  it "covers every public constant" do
    expect(documentation.undocumented).to be_empty
    expect(documentation.complaints).to be_empty
    # The check could find something.
    expect(documentation.methods.size).to be > 30
  end

  it "is complete by YARD's own count and parses without a warning", limit: 60 do
    process = ruby(<<~RUBY, bundled: true, limit: 60)
      require "yard"

      YARD::CLI::Stats.run("--list-undoc", "--no-cache", "--no-save", "--fail-on-warning")
    RUBY

    expect(process).to be_success, process.stdout + process.stderr
    expect(process.stdout).to include("100.00% documented")
    expect(process.stdout).not_to include("Undocumented Objects")
  end

  it "has a tag for each parameter under its name" do
    expect(documentation.methods.to_h { |method| [method.path, named_by(method, :param)] })
      .to eq(documentation.methods.to_h { |method| [method.path, parameters_of(method)] })
  end

  it "has a tag for each option" do
    with_options = documentation.methods.select { |method| parameters_of(method).include?("options") }

    expect(with_options.map(&:path)).to contain_exactly("OnlineManager.run", "OnlineManager.setup",
                                                        "OnlineManager#initialize")
    expect(with_options.map { |method| method.tags(:option).map { |tag| tag.pair.name.delete(":").to_sym }.sort })
      .to all eq(OnlineManager::Options::NAMES.sort)
  end

  it "has a tag for what each method returns" do
    silent = documentation.methods.reject do |method|
      method.constructor? || method.tags(:return).any? { |tag| tag.types&.any? }
    end

    expect(silent.map(&:path)).to be_empty
  end

  it "hides no method that the README lists" do
    listed = File.read("#{root}/README.md")[/^## API\n.*?(?=^\| option)/m].scan(/^\| (.*?) \|/).flatten
    names = listed.flat_map { |cell| cell.scan(/`(.*?)(?:\(.*?\))?`/).flatten }
    paths = names.map { |name| name.start_with?("OnlineManager.") ? name : "OnlineManager##{name}" }
    paths.map! { |path| path.sub(/\.new\z/, "#initialize") }

    expect(paths.size).to be > 10
    expect(documentation.methods.map(&:path)).to include(*paths)
  end
end
