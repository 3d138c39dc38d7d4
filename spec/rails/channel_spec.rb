# frozen_string_literal: true

require "fileutils"
require "json"
require "tmpdir"

# What a channel becomes by OnlineManager::Channel, and a connection by OnlineManager::Connection.
RSpec.describe "ActionCable" do
  before(:context) do
    @folder = Dir.mktmpdir("channels")
    root = RubyProcess::ROOT
    env = Bundler.unbundled_env.merge("BUNDLE_GEMFILE" => "#{root}/examples/rails/Gemfile", "LC_ALL" => "C.UTF-8")
    @child = RubyProcess.new(RbConfig.ruby, "-w", "-rbundler/setup", "-r#{root}/spec/support/child/prelude",
                             "#{root}/spec/support/child/channels.rb", chdir: @folder, env:)
    @child.wait_for("ready")
    @answers = (1..).each
  end

  after(:context) do
    @child&.kill
    FileUtils.rm_rf(@folder) if @folder
  end

  # Runs a script in a process of its own, see spec/support/child/channels.rb.
  #
  # @return [Object] what it came to
  def cable(script)
    @child.puts(JSON.generate(script))
    answer = JSON.parse(@child.wait_for(/\A{"(?:result|error)":.*/m, count: @answers.next)[0])
    raise answer["error"] if answer["error"]

    answer["result"]
  end

  describe "a channel that includes OnlineManager::Channel" do
    it "tells its subscriber how often to beat: three times per timeout" do
      expect(cable(<<~RUBY)).to eq [[{ "online_manager" => { "heartbeat_every" => 1.0 } }], true]
        set_up 3
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        [chat.transmissions, chat.subscription.confirmed?]
      RUBY
    end

    it "does not beat by itself" do
      expect(cable(<<~RUBY)).to eq []
        config = set_up
        client(channel { presence_of { 7 } }).subscribe
        config.calls
      RUBY
    end

    it "takes the action `heartbeat` for a heartbeat" do
      expect(cable(<<~RUBY)).to eq [["online", 7]]
        config = set_up
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        2.times { chat.perform(:heartbeat) }
        config.calls
      RUBY
    end

    it "has no other action by it, and keeps its own" do
      expect(cable(<<~RUBY)).to contain_exactly("heartbeat", "say")
        channel { presence_of { 7 }; def say = nil }.action_methods.to_a
      RUBY
    end

    it "asks `presence_of` once for each subscription, on the channel, when it has subscribed" do
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

    it "inherits `presence_of`, and can have another one" do
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

    it "gives its heartbeats to the manager of a namespace" do
      expect(cable(<<~RUBY)).to eq [[], [["online", 7]], [{ "online_manager" => { "heartbeat_every" => 20.0 } }]]
        configs = [set_up, set_up(60, namespace: "rooms")]
        chat = client(channel { presence_of(namespace: :rooms) { 7 } })
        chat.subscribe
        chat.perform(:heartbeat)
        configs.map(&:calls).push(chat.transmissions)
      RUBY
    end

    it "lets those in of whom `presence_of` does not know who they are, and ignores their heartbeats" do
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

    it "tells the interval anew when the timeout has changed, with the next heartbeat" do
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

    it "leaves its user half a timeout when the subscription ends" do
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

    it "leaves its user no more after a heartbeat that the end of the subscription has overtaken" do
      expect(cable(<<~RUBY)).to be_between(0.29, 0.5)
        config = set_up 0.6
        chat = client(channel { presence_of { 7 } })
        chat.subscribe
        chat.unsubscribe
        chat.perform(:heartbeat)
        wait { config.calls.size == 2 }
      RUBY
    end

    it "takes nobody offline who beats elsewhere meanwhile" do
      expect(cable(<<~RUBY)).to eq [["online", 7]]
        config = set_up 0.6
        tabs = Array.new(2) { client(channel { presence_of { 7 } }) }
        tabs.each(&:subscribe).each { |tab| tab.perform(:heartbeat) }
        tabs.first.unsubscribe
        4.times { sleep 0.2; tabs.last.perform(:heartbeat) }
        config.calls
      RUBY
    end

    it "takes nobody offline by a subscription that has never beaten" do
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

    it "ignores heartbeats once the manager has been stopped, as when a server shuts down" do
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

    it "refuses to run without `presence_of`, and says what to add" do
      expect(cable(<<~RUBY)).to eq "OnlineManager::Error: ChatChannel does not say whose heartbeats it carries: " \
        set_up
        error_of { client(channel).subscribe }
      RUBY
                                   "add `presence_of { current_user.id }`"
    end

    it "wants a block of `presence_of`" do
      expect(cable("error_of { channel { presence_of } }"))
        .to eq "ArgumentError: presence_of needs a block, such as `presence_of { current_user.id }`"
    end

    it "says what is missing when no manager runs" do
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

    it "of a heartbeat is rescued by the connection otherwise, which stays, and logged" do
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

    # Or it would keep the other subscriptions of the connection from ending.
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
    it "carries the heartbeats of whom the connection says" do
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

    it "takes the namespace from the connection, and lets it be inherited" do
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

    it "cannot be subscribed to unless the connection says whose heartbeats it carries" do
      expect(cable(<<~RUBY)).to eq [
        set_up
        Silent = Class.new(Connection) { include OnlineManager::Connection }
        [Connection, Silent].map { |one| error_of { client(OnlineManager::HeartbeatChannel, one.new).subscribe } }
      RUBY
        "OnlineManager::Error: Connection does not include OnlineManager::Connection, so nobody can subscribe to " \
        "OnlineManager::HeartbeatChannel",
        "OnlineManager::Error: Silent does not say whose heartbeats it carries: add `presence_of { current_user.id }`"
      ]
    end
  end
end
