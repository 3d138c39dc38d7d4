# frozen_string_literal: true

require_relative "../support/rails/example_app"

RSpec.describe "The store :memory in Puma" do
  # The line that the warning says to add.
  line = 'store: "sqlite:storage/presence_#{Rails.env}.sqlite3"' # rubocop:disable Lint/InterpolationCheck

  before { @app = ExampleApp.new(store: "memory", timeout: 60) }

  after { @app.remove }

  # Sends heartbeats to every process.
  def send_heartbeats_everywhere(server)
    visitors = server.visitors_everywhere("user")
    visitors.flat_map(&:cables).each(&:heartbeat)
    eventually(limit: 15) { expect(@app.online).to eq visitors.map(&:name).sort }
    visitors
  end

  def warnings = @app.log.lines.grep(/WARN.*OnlineManager/)

  [true, false].each do |preload|
    it "causes one warning in a cluster #{preload ? "with" : "without"} preload_app!, with what to add", limit: 120 do
      server = @app.boot(workers: 2, preload:)
      expect(warnings).to eq [] # not before several processes get heartbeats
      send_heartbeats_everywhere(server).each(&:heartbeat)

      expect(warnings).to match [include(line)]
      expect(warnings.first.scan(/process \(?(\d+)/).flatten.map(&:to_i)).to match_array(server.pids)
    end
  end

  it "causes no warning in a single process, nor in one that replaces it", limit: 120 do
    server = @app.boot
    send_heartbeats_everywhere(server)
    server.signal(:TERM)
    server.finish
    send_heartbeats_everywhere(@app.boot)

    expect(warnings).to eq []
  end
end
