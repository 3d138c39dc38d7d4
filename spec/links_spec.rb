# frozen_string_literal: true

RSpec.describe "The links of a document" do
  root = RubyProcess::ROOT
  # Excludes the documents of downloaded and built files.
  documents = Dir["*.md", "{bench,docs,examples,ext,lib,spec}/**/*.md", base: root]

  documents.each do |document|
    it "lead somewhere: #{document}" do
      text = File.read("#{root}/#{document}").gsub(/^```.*?^```/m, "")
      targets = text.scan(/\]\(([^)\s]+)\)/).flatten.grep_v(/\A(https?:|#)/).map { |target| target[/[^#]+/] }

      expect(targets.reject { |target| File.exist?(File.expand_path(target, File.dirname("#{root}/#{document}"))) })
        .to be_empty
    end
  end
end
