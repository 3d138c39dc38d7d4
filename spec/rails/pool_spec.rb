# frozen_string_literal: true

require_relative "../support/rails/example_app"

RSpec.describe "A connection pool of 5" do
  threads = 50
  transitions = 10_000
  # Without a shared store, `online` runs on the thread of the heartbeat, so there can be as many callbacks at a time as
  # threads, plus one on the reactor.
  script = <<~RUBY
    pool = ActiveRecord::Base.connection_pool

    # A transaction keeps its connection, as in many applications. (Since 7.2 a mere query does not.)
    OnlineConfig.prepend(Module.new do
      define_method(:write) do |*arguments|
        pool.respond_to?(:lease_connection) ? pool.lease_connection : pool.connection
        sleep 0.0005
        super(*arguments)
      end
    end)

    ids = User.insert_all(Array.new(#{transitions} / 2) { |number| { name: "user\#{number}" } }) && User.pluck(:id)
    pool.release_connection
    manager = OnlineManager.current
    errors = Queue.new
    waiting = Queue.new
    ids.each_slice(ids.size / #{threads}).map do |slice|
      Thread.new do
        slice.each do |id|
          manager.seen(id)
          waiting << pool.stat[:waiting]
          manager.leave(id)
        end
      rescue => error
        errors << error.message
      end
    end.each(&:join)
    sleep 0.01 until manager.size.zero?
    # The last callback returns its connection after its end. A lost connection never comes back.
    100.times { pool.stat[:busy].zero? ? break : sleep(0.05) }

    list = ->(queue) { Array.new(queue.size) { queue.pop } }
    puts({ errors: list[errors], waiting: list[waiting].max, pool: pool.stat, stats: manager.stats }.to_json)
  RUBY

  before { @app = ExampleApp.new(timeout: 600, store: "memory", env: { "DB_POOL" => "5" }) }

  after { @app.remove }

  it "never times out nor loses a connection, with #{threads} threads in callbacks and #{transitions} transitions",
     limit: 240 do
    @app.write("crowd.rb", script)
    process = command("bin/rails", "runner", "crowd.rb", chdir: @app.folder, env: @app.env, limit: 200)
    expect(process.stderr).to eq ""
    outcome = JSON.parse(process.lines.last, symbolize_names: true)

    expect(outcome[:waiting]).to be > 10 # threads, for one of the 5 connections
    expect(outcome).to include(errors: [], stats: include(errors: 0, online: 0))
    expect(outcome[:pool]).to include(size: 5, connections: 5, busy: 0, dead: 0, waiting: 0)
    expect(@app.online).to eq []
    expect(@app.transitions.map(&:kind).tally).to eq(online: transitions / 2, offline: transitions / 2)
  end
end
