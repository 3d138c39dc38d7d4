# frozen_string_literal: true

require_relative "../support/rails/example_app"

RSpec.describe "Notifications of transitions" do
  timeout = 0.5
  # Prints the notifications, up to the users who are still online when the process ends.
  script = <<~RUBY
    ActiveSupport::Notifications.subscribe(/\\.online_manager\\z/) do |event|
      puts({ name: event.name, event_duration: event.duration, **event.payload.except(:exception_object) }.to_json)
      $stdout.flush
    end

    class Slow < OnlineConfig
      def online(id, version:) = id == "bad" ? raise("no") : sleep(0.2)
      undef online_all
    end

    OnlineManager.setup("Slow", namespace: "slow", reactor: :thread)
    slow = OnlineManager.current("slow")
    slow.seen(7, timeout: 60)
    slow.seen("bad") rescue nil

    leaving, silent, staying = %w[leaving silent staying].map { |name| User.named(name).id }
    manager = OnlineManager.current
    manager.seen(silent)
    [leaving, staying].each { |id| manager.seen(id, timeout: 60) }
    online = ->(id) { User.uncached { User.find(id).online? } } # a runner has a query cache since Rails 7.1
    sleep 0.02 until online[leaving]
    manager.leave(leaving)
    sleep 0.02 until manager.online_users == [staying]
    sleep 0.02 while online[silent]
  RUBY

  before { @app = ExampleApp.new(timeout:, store:) }

  after { @app.remove }

  # @return [Array<Hash>] the notifications
  let(:events) do
    @app.write("listen.rb", script)
    process = command("bin/rails", "runner", "listen.rb", chdir: @app.folder, env: @app.env, limit: 60)
    expect(process.stderr).to eq ""
    process.lines.map { |line| JSON.parse(line, symbolize_names: true) }
  end

  # @return [Array<Array>] the notifications of one manager, in order
  def received(namespace)
    events.select { |event| event[:namespace] == namespace }.map { |event| event.values_at(:name, :id, :reason) }
  end

  stored = [
    ["online.online_manager", 1, "heartbeat"], ["online.online_manager", 2, "heartbeat"],
    ["online.online_manager", 3, "heartbeat"], ["offline.online_manager", 1, "leave"],
    ["offline.online_manager", 2, "timeout"]
  ]
  # Users in a shared store stay online when the process ends.
  { nil => stored, "memory" => [*stored, ["offline.online_manager", 3, "stop"]] }.each do |store, expected|
    context "with the store #{store || "of the example"}" do
      let(:store) { store }

      it "arrive once for each transition with id, reason, lateness and duration", limit: 90 do
        expect(received(nil)).to match_array(expected)
        expect(events.flat_map { |event| event.values_at(:lateness, :duration) }).to all(be_between(0, 10))
      end
    end
  end

  context "of a slow callback and of a callback that raises" do
    let(:store) { "memory" }

    it "contain its duration and its error", limit: 90 do
      expect(received("slow")).to eq [["online.online_manager", 7, "heartbeat"],
                                      ["online.online_manager", "bad", "heartbeat"],
                                      ["offline.online_manager", 7, "stop"]]
      long, bad, = events.select { |event| event[:namespace] == "slow" }
      expect(long[:duration]).to be_between(0.2, 10)
      expect(long[:event_duration]).to be_between(200, 10_000)
      expect(bad[:exception]).to eq %w[RuntimeError no]
    end
  end
end
