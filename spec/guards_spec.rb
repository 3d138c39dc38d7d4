# frozen_string_literal: true

require_relative "../rakelib/guards/guard"

# `rake guards` checks that an example fails without each guard, which takes minutes.
RSpec.describe "spec/guards" do
  Dir.chdir(RubyProcess::ROOT) { Guards::Guard.all }.each do |guard|
    it "has the line of this guard once: #{guard.name}" do
      expect(guard.fault(RubyProcess::ROOT)).to be_nil
    end
  end
end
