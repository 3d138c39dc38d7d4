# frozen_string_literal: true

# An extension that can be made to fail: ext/online_manager/src/faults.rs.
RSpec.shared_context "with a faulty extension" do
  before(:context) do
    build = command("bundle", "exec", "rake", "compile:faults", limit: 240)
    expect(build).to be_success, build.stdout + build.stderr
  end

  # The beginning of a script.
  let(:faulty) { <<~'RUBY' }
    # Before our own lib on the load path, of which Bundler has read the version.
    Object.send(:remove_const, :OnlineManager) if defined?(OnlineManager)
    $LOAD_PATH.unshift("#{Dir.pwd}/tmp/faults/lib")
    require "online_manager"
    Faults = OnlineManager::Faults
  RUBY
end
