# frozen_string_literal: true

Encoding.default_external = Encoding::UTF_8 # whatever the locale

require_relative "support/warnings" # before our code is loaded
require "online_manager"
Dir[File.join(__dir__, "support/*.rb")].each { |file| require file }

RSpec.configure do |config|
  config.disable_monkey_patching!
  config.expect_with(:rspec) { |expectations| expectations.syntax = :expect }
  config.mock_with(:rspec) { |mocks| mocks.verify_partial_doubles = true }
  config.raise_errors_for_deprecations!
  config.warnings = true
  config.filter_run_when_matching :focus

  config.order = :random
  Kernel.srand config.seed

  Progress.count_examples(config) if Progress::FILE

  # Long enough for a busy machine. Longer examples set their own limit: `it "…", limit: 120`.
  config.around { |example| TimeLimit.enforce(example.metadata.fetch(:limit, 30)) { example.run } }

  config.around { |example| LeftManagers.forbid { example.run } }
end
