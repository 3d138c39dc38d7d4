# frozen_string_literal: true

desc "Lint the Ruby code"
task :rubocop do
  sh "rubocop"
end
