# frozen_string_literal: true

Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

RSpec.describe OnlineManager do
  %i[thread eventmachine fiber].each do |reactor|
    context "with the reactor #{reactor.inspect}" do
      let(:reactor) { reactor }

      include_context "with a manager"

      include_examples "heartbeats"
      include_examples "ids"
      include_examples "state machine"
      include_examples "callbacks", reactor
      include_examples "errors", reactor
      include_examples "stopping"
      include_examples "queries"
      include_examples "together"
      include_examples "lifetime"
    end
  end
end
