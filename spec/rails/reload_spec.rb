# frozen_string_literal: true

require_relative "../support/rails/example_app"

RSpec.describe "Code reloading in development" do
  config = "app/presence/online_config.rb"
  # The timeout in seconds, long enough to edit a file before the transition.
  timeout = 2

  before(:context) do
    @app = ExampleApp.new(environment: "development", timeout:)
    @server = @app.boot
  end

  after(:context) { @app.remove }

  before { @original = File.read(@app.path(config)) }

  after do
    @app.write(config, @original)
    eventually(limit: 20) { expect(@app.online).to eq [] }
  end

  # Makes the config write a line to the log at each transition.
  def say(config, what)
    @app.edit(config) { |text| text.sub("def broadcast\n", "def broadcast\n    Rails.logger.info(#{what.inspect})\n") }
  end

  it "runs the new code at the next transition, on the reactor as well as at a heartbeat", limit: 60 do
    ann = @server.visitor("ann")
    ann.heartbeat
    eventually { expect(@app.online).to eq ["ann"] }

    say(config, "the second version") # and nobody sends a request
    eventually(limit: 15) { expect(@app.online).to eq [] }
    # The callback changes the row before it writes that line.
    eventually { expect(@app.log).to include "the second version" }

    @app.write(config, @original)
    say(config, "the third version")
    ann.heartbeat
    eventually { expect(@app.log).to include "the third version" }
    expect(@app.log.scan("the second version").size).to eq 1
  end

  it "takes the timeout of the new code", limit: 60 do
    ann = @server.visitor("ann")
    expect(ann.heartbeat).to eq("heartbeat_every" => timeout / 3.0)

    @app.edit(config) { |text| text.sub(/def timeout.*/, "def timeout = 1.5") }
    ann.heartbeat # reloads the code
    eventually { expect(ann.heartbeat).to eq("heartbeat_every" => 0.5) }
  end

  it "logs the error in the new code, goes on, and calls it again after it has been fixed",
     limit: 60 do
    ann = @server.visitor("ann")
    ann.heartbeat
    eventually { expect(@app.online).to eq ["ann"] }

    @app.write(config, "#{@original}\nend # one too many\n")
    eventually(limit: 15) { expect(@app.log).to match(/OnlineManager: .*online_config\.rb:\d+: syntax error/m) }
    expect(@server.process.status).to be_nil
    expect(ann.get("/list").code).to eq "200"
    expect(@app.online).to eq ["ann"] # no callback could change it

    @app.write(config, @original)
    eventually(limit: 20) { expect(@app.online).to eq [] }
    ann.heartbeat
    eventually { expect(@app.online).to eq ["ann"] }
  end
end
