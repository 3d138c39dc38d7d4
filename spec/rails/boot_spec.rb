# frozen_string_literal: true

require_relative "../support/rails/example_app"

# Two threads that load code can wait for each other ("No live threads left. Deadlock?").
RSpec.describe "An application that takes longer to boot than a timeout" do
  timeout = 1
  # Set up before the application is initialized, as any config that is not given by name. Each method notes on which
  # thread it is called, and whether the application is initialized.
  initializer = <<~RUBY
    class EarlyConfig
      { timeout: #{timeout}, setup: nil, online: nil, offline: nil, last_version: nil }.each do |name, value|
        define_method(name) do |*|
          where = Thread.current == Thread.main ? "main" : Thread.current.name
          Rails.root.join("asked").open("a") { |file| file.puts [name, where, Rails.application.initialized?].inspect }
          value
        end
      end
    end

    OnlineManager.setup(EarlyConfig.new, store: "sqlite:storage/early.sqlite3")
    %w[memory stopped].each do |namespace|
      OnlineManager.setup(EarlyConfig.new, namespace:)
      OnlineManager.current(namespace).seen(7)
    end
    OnlineManager.current("stopped").stop
    Thread.new { OnlineManager.run(EarlyConfig.new, namespace: "run") }.name = "run"
    sleep #{timeout * 3}
    raise "the boot fails" if ENV["FAILS"]
  RUBY

  before do
    @app = ExampleApp.new(timeout:)
    @app.write("config/initializers/online_manager.rb", initializer)
  end

  after { @app.remove }

  def asked = File.readlines(File.join(@app.folder, "asked"), chomp: true).uniq

  it "is asked for nothing on a thread of the gem before it is initialized", limit: 120 do
    server = @app.boot
    eventually(limit: 15) { expect(asked).to include('[:offline, "online_manager", true]') }
    # The store's last version: the process has become a member.
    eventually(limit: 15) { expect(asked).to include('[:last_version, "online_manager", true]') }
    eventually(limit: 15) { expect(asked).to include('[:setup, "online_manager setup", true]') }
    server.kill

    expect(asked.grep(/false\]/)).to all match(/"main"|"run"/)
  end

  it "is asked for nothing on a thread of the gem when that fails", limit: 60 do
    process = ruby("require #{@app.path("config/environment").inspect}", env: @app.env("FAILS" => "1"))

    expect([process.success?, process.stderr]).to match [false, /the boot fails/]
    expect(asked).to include('[:offline, "main", false]')
    expect(asked).to all match(/"main"|"run"/)
  end
end
