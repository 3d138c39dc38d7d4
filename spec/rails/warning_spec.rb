# frozen_string_literal: true

require_relative "../support/rails/example_app"

RSpec.describe "The store :memory in Puma" do
  # The line that mends it.
  line = 'store: "sqlite:storage/presence_#{Rails.env}.sqlite3"' # rubocop:disable Lint/InterpolationCheck

  before { @app = ExampleApp.new(store: "memory", timeout: 60) }

  after { @app.remove }

  # Has every process get heartbeats.
  def send_heartbeats_everywhere(server)
    visitors = server.visitors_everywhere("user")
    visitors.flat_map(&:cables).each(&:heartbeat)
    eventually(limit: 15) { expect(@app.online).to eq visitors.map(&:name).sort }
    visitors
  end

  def warnings = @app.log.lines.grep(/WARN.*OnlineManager/)

  [true, false].each do |preload|
    it "is warned of once in a cluster #{preload ? "with" : "without"} preload_app!, with what to add", limit: 120 do
      server = @app.boot(workers: 2, preload:)
      expect(warnings).to eq [] # not before there is something wrong
      send_heartbeats_everywhere(server).each(&:heartbeat)

      expect(warnings).to match [include(line)]
      expect(warnings.first.scan(/process \(?(\d+)/).flatten.map(&:to_i)).to match_array(server.pids)
    end
  end

  it "is fine in a single process, also in one that comes after it", limit: 120 do
    server = @app.boot
    send_heartbeats_everywhere(server)
    server.signal(:TERM)
    server.finish
    send_heartbeats_everywhere(@app.boot)

    expect(warnings).to eq []
  end
end
