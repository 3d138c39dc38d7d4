# frozen_string_literal: true

Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# Where Valkey is installed, conformance_spec.rb and last_seen_spec.rb use a server of it too. Debian 12 has no package.
Stores::Valkey.if_installed.each do |store|
  RSpec.describe store do
    include_context "with applications on a store", described_class

    it "is the server that the specs of all stores use, by a URL of its scheme" do
      store = described_class.new

      expect(store.url).to start_with "valkey://"
      expect(store.server.cli("INFO", "server")).to match(/^valkey_version:/)
    end

    it "is also reached by a socket" do
      server = Stores::ValkeyServer.common
      application = deploy(described_class.new(server, url: server.socket_url), timeout: 2)
      application.start
      application.crowd.come(users(10))
      application.expect_all(users(10), :online)

      expect(application.store.count_on(server)).to eq 10
      expect_good_end(application)
    end
  end
end
