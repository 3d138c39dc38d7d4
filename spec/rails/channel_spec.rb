# frozen_string_literal: true

require "fileutils"
require "json"
require "tmpdir"
require_relative "../support/rails/rails_bundle"

# What OnlineManager::Channel adds to a channel, and OnlineManager::Connection to a connection.
RSpec.describe "ActionCable" do
  before(:context) do
    @folder = Dir.mktmpdir("channels")
    root = RubyProcess::ROOT
    env = Bundler.unbundled_env.merge(RailsBundle::ENVIRONMENT, "LC_ALL" => "C.UTF-8")
    @child = RubyProcess.new(RbConfig.ruby, "-w", "-rbundler/setup", "-r#{root}/spec/support/child/prelude",
                             "#{root}/spec/support/child/channels.rb", chdir: @folder, env:)
    @child.wait_for("ready")
    @answers = (1..).each
  end

  after(:context) do
    @child&.kill
    FileUtils.rm_rf(@folder) if @folder
  end

  # Runs a script in a child process, see spec/support/child/channels.rb.
  #
  # @return [Object] the script's value
  def cable(script)
    @child.puts(JSON.generate(script))
    answer = JSON.parse(@child.wait_for(/\A{"(?:result|error)":.*/m, count: @answers.next)[0])
    raise answer["error"] if answer["error"]

    answer["result"]
  end

  describe "a channel that includes OnlineManager::Channel" do
    it "sends its subscriber the heartbeat interval, a third of the timeout" do
      expect(cable(<<~RUBY)).to eq [[{ "online_manager" => { "heartbeat_every" => 1.0 } }], true]
        set_up 3
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        [chat.transmissions, chat.subscription.confirmed?]
      RUBY
    end

    it "sends no heartbeat by itself" do
      expect(cable(<<~RUBY)).to eq []
        config = set_up
        client(channel { presence_of { 7 } }).subscribe
        config.calls
      RUBY
    end

    it "takes the action `heartbeat` as a heartbeat" do
      expect(cable(<<~RUBY)).to eq [["online", 7]]
        config = set_up
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        2.times { chat.perform(:heartbeat) }
        config.calls
      RUBY
    end

    it "gets no other action and keeps its own" do
      expect(cable(<<~RUBY)).to contain_exactly("heartbeat", "say")
        channel { presence_of { 7 }; def say = nil }.action_methods.to_a
      RUBY
    end

    it "calls `presence_of` once for each subscription, on the channel, after `subscribed`" do
      expect(cable(<<~RUBY)).to eq [1, [["online", "ann in 7"]]]
        config = set_up
        asked = 0
        rooms = channel do
          presence_of { (asked += 1) && "\#{current_user} in \#{@room}" }
          def subscribed = @room = params[:room]
        end
        chat = client(rooms, current_user: "ann")
        chat.subscribe(room: 7)
        3.times { chat.perform(:heartbeat) }
        chat.unsubscribe
        [asked, config.calls]
      RUBY
    end

    it "inherits `presence_of` and can override it" do
      expect(cable(<<~RUBY)).to eq [["online", 7], ["online", 8]]
        config = set_up
        base = channel { presence_of { 7 } }
        [channel(base), channel(base) { presence_of { 8 } }].each do |one|
          chat = client(one)
          chat.subscribe
          chat.perform(:heartbeat)
        end
        config.calls
      RUBY
    end

    it "sends its heartbeats to the manager of its namespace" do
      expect(cable(<<~RUBY)).to eq [[], [["online", 7]], [{ "online_manager" => { "heartbeat_every" => 20.0 } }]]
        configs = [set_up, set_up(60, namespace: "rooms")]
        chat = client(channel { presence_of(namespace: :rooms) { 7 } })
        chat.subscribe
        chat.perform(:heartbeat)
        configs.map(&:calls).push(chat.transmissions)
      RUBY
    end

    it "accepts a subscription whose `presence_of` returns nil, and ignores its heartbeats" do
      expect(cable(<<~RUBY)).to eq [true, [], 1, []]
        config = set_up
        asked = 0
        chat = client(channel { presence_of { (asked += 1) && nil } })
        chat.subscribe
        2.times { chat.perform(:heartbeat) }
        chat.unsubscribe
        [chat.subscription.confirmed?, chat.transmissions, asked, config.calls]
      RUBY
    end

    it "does nothing for a subscription that is rejected" do
      expect(cable(<<~RUBY)).to eq [[], [["online", 7]], nil]
        config = set_up 0.5
        OnlineManager.current.seen(7, timeout: 60)
        chat = client(channel { presence_of { raise "it is asked" }; after_subscribe { reject } })
        chat.subscribe
        [chat.transmissions, config.calls, chat.connection.log[/ERROR/]]
      RUBY
    end

    it "sends the new interval with the next heartbeat when the timeout has changed" do
      expect(cable(<<~RUBY)).to eq [1.0, 2.0]
        config = set_up 3
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        chat.perform(:heartbeat)
        config.timeout = 6
        2.times { chat.perform(:heartbeat) }
        chat.transmissions.map { |message| message["online_manager"]["heartbeat_every"] }
      RUBY
    end

    it "sets its user offline half a timeout after the subscription ends" do
      calls, seconds = cable(<<~RUBY)
        config = set_up 0.6
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        chat.perform(:heartbeat)
        chat.unsubscribe
        seconds = wait { config.calls.size == 2 }
        [config.calls, seconds]
      RUBY
      expect(calls).to eq [["online", 7], ["offline", 7]]
      expect(seconds).to be_between(0.29, 0.5)
    end

    it "sets its user offline no later when a heartbeat arrives after the end of the subscription" do
      expect(cable(<<~RUBY)).to be_between(0.29, 0.5)
        config = set_up 0.6
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        chat.unsubscribe
        chat.perform(:heartbeat)
        wait { config.calls.size == 2 }
      RUBY
    end

    it "sets nobody offline who sends heartbeats elsewhere meanwhile" do
      expect(cable(<<~RUBY)).to eq [["online", 7]]
        config = set_up 0.6
        tabs = Array.new(2) { client(channel { presence_of { 7 } }) }
        tabs.each(&:subscribe).each { |tab| tab.perform(:heartbeat) }
        tabs.first.unsubscribe
        4.times { sleep 0.2; tabs.last.perform(:heartbeat) }
        config.calls
      RUBY
    end

    it "sets nobody offline at the end of a subscription without heartbeats" do
      expect(cable(<<~RUBY)).to eq [["online", 7]]
        config = set_up 0.4
        OnlineManager.current.seen(7, timeout: 60)
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        chat.unsubscribe
        sleep 0.4
        config.calls
      RUBY
    end

    it "needs no instance variables: with AnyCable each command gets an object of its own" do
      transmissions, calls, seconds, log = cable(<<~RUBY)
        config = set_up 0.75
        chat = FreshObjects.new(channel { presence_of { 7 } })
        chat.subscribe
        3.times { chat.perform(:heartbeat) }
        chat.unsubscribe
        seconds = wait { config.calls.size == 2 }
        nobody = FreshObjects.new(channel { presence_of { nil } })
        nobody.subscribe
        nobody.perform(:heartbeat)
        nobody.unsubscribe
        rejected = FreshObjects.new(channel { presence_of { raise "it is asked" }; after_subscribe { reject } })
        rejected.subscribe
        OnlineManager.current.stop
        chat.perform(:heartbeat)
        [chat.transmissions, config.calls, seconds, chat.connection.log + rejected.connection.log]
      RUBY
      expect(transmissions).to eq [{ "online_manager" => { "heartbeat_every" => 0.25 } }]
      expect(calls).to eq [["online", 7], ["offline", 7]]
      expect(seconds).to be_between(0.37, 0.6)
      expect(log[/ERROR.*/]).to be_nil
    end

    it "ignores heartbeats after the manager was stopped, as when a server shuts down" do
      expect(cable(<<~RUBY)).to eq [%w[online offline], nil]
        config = set_up
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        chat.perform(:heartbeat)
        OnlineManager.current.stop
        error = error_of { chat.perform(:heartbeat) && chat.unsubscribe }
        [config.calls.map(&:first), error]
      RUBY
    end

    it "raises an error without `presence_of` that says what to add" do
      expect(cable(<<~RUBY)).to eq "OnlineManager::Error: ChatChannel does not name the user of its heartbeats: " \
        set_up
        error_of { client(channel).subscribe }
      RUBY
                                   "add `presence_of { current_user.id }`"
    end

    it "requires a block for `presence_of`" do
      expect(cable("error_of { channel { presence_of } }"))
        .to eq "ArgumentError: presence_of needs a block, such as `presence_of { current_user.id }`"
    end

    it "raises an error when no manager runs" do
      expect(cable(<<~RUBY)).to eq [
        [channel { presence_of { 7 } }, channel { presence_of(namespace: "rooms") { 7 } }].map do |one|
          error_of { client(one).subscribe }
        end
      RUBY
        "OnlineManager::Error: no manager runs: call OnlineManager.setup in an initializer",
        'OnlineManager::Error: no manager runs in the namespace "rooms": call OnlineManager.setup in an initializer'
      ]
    end
  end

  describe "an error" do
    let(:failing) do
      <<~RUBY
        config = set_up
        def config.online(user) = super && raise("no database")
        rescuing = proc { |error| (@rescued ||= []) << error.message }
      RUBY
    end

    it "of a heartbeat goes to the channel's rescue_from" do
      expect(cable(<<~RUBY)).to eq [["no database"], [["online", 7]] * 2]
        #{failing}
        chat = client(channel { presence_of { 7 }; rescue_from(StandardError, with: rescuing) })
        chat.subscribe
        chat.perform(:heartbeat)
        first = chat.subscription.instance_variable_get(:@rescued).dup
        chat.perform(:heartbeat)
        [first, config.calls]
      RUBY
    end

    it "of a heartbeat is otherwise rescued and logged by the connection, which stays open" do
      expect(cable(<<~RUBY)).to match [["no database"], include("Could not execute command", "no database")]
        #{failing}
        connection = Class.new(Connection) { rescue_from(StandardError, with: rescuing) }.new
        ChatChannel = channel { presence_of { 7 } }
        identifier = JSON.generate(channel: "ChatChannel")
        connection.subscriptions.execute_command("command" => "subscribe", "identifier" => identifier)
        connection.subscriptions.execute_command("command" => "message", "identifier" => identifier,
                                                 "data" => JSON.generate(action: "heartbeat"))
        [connection.instance_variable_get(:@rescued), connection.log]
      RUBY
    end

    # Otherwise the other subscriptions of the connection would not end.
    it "of `timeout` when a subscription ends goes to the channel's rescue_from, or is logged" do
      expect(cable(<<~RUBY)).to match [["no settings"], /OnlineManager: no settings \(RuntimeError\)/]
        config = set_up
        rescuing = proc { |error| (@rescued ||= []) << error.message }
        both = [proc { rescue_from(StandardError, with: rescuing) }, proc {}].map do |more|
          client(channel { presence_of { 7 }; class_exec(&more) })
        end
        both.each(&:subscribe).each { |chat| chat.perform(:heartbeat) }
        def config.timeout = raise("no settings")
        both.each(&:unsubscribe)
        [both.first.subscription.instance_variable_get(:@rescued), both.last.connection.log]
      RUBY
    end
  end

  describe "OnlineManager::HeartbeatChannel" do
    it "carries the heartbeats of the connection's user" do
      expect(cable(<<~RUBY)).to eq [[%w[online ann]], [{ "online_manager" => { "heartbeat_every" => 1.0 } }]]
        config = set_up
        connection = Class.new(Connection) do
          include OnlineManager::Connection
          presence_of { name }
          private def name = "ann"
        end
        heartbeats = client("OnlineManager::HeartbeatChannel".safe_constantize, connection.new)
        heartbeats.subscribe
        heartbeats.perform(:heartbeat)
        [config.calls, heartbeats.transmissions]
      RUBY
    end

    it "has no other action than `heartbeat`" do
      expect(cable("OnlineManager::HeartbeatChannel.action_methods.to_a")).to eq ["heartbeat"]
    end

    it "adds nothing public to the connection" do
      expect(cable("OnlineManager::Connection.public_instance_methods")).to eq []
    end

    it "takes the namespace from the connection, which subclasses inherit" do
      expect(cable(<<~RUBY)).to eq [["online", 7]]
        config = set_up(namespace: "rooms")
        base = Class.new(Connection) do
          include OnlineManager::Connection
          presence_of(namespace: "rooms") { 7 }
        end
        heartbeats = client(OnlineManager::HeartbeatChannel, Class.new(base).new)
        heartbeats.subscribe
        heartbeats.perform(:heartbeat)
        config.calls
      RUBY
    end

    it "rejects subscriptions unless the connection has a `presence_of`" do
      expect(cable(<<~RUBY)).to eq [
        set_up
        Silent = Class.new(Connection) { include OnlineManager::Connection }
        [Connection, Silent].map { |one| error_of { client(OnlineManager::HeartbeatChannel, one.new).subscribe } }
      RUBY
        "OnlineManager::Error: Connection does not name the user of heartbeats for OnlineManager::HeartbeatChannel: " \
        "add `include OnlineManager::Connection` and `presence_of { current_user.id }`",
        "OnlineManager::Error: Silent does not name the user of its heartbeats: add `presence_of { current_user.id }`"
      ]
    end
  end
end
