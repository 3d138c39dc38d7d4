# frozen_string_literal: true

require_relative "../rakelib/guards/guard"

# Whether a guard is missed is for `rake guards` to show, which takes minutes.
RSpec.describe "spec/guards" do
  Dir.chdir(RubyProcess::ROOT) { Guards::Guard.all }.each do |guard|
    it "knows where this guard is: #{guard.name}" do
      expect(guard.fault(RubyProcess::ROOT)).to be_nil
    end
  end
end
