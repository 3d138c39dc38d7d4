# frozen_string_literal: true

require "fileutils"
require "net/http"
require "tmpdir"
require_relative "../support/rails/browser"
require_relative "../support/rails/rails_bundle"

# The behaviour of lib/online_manager/rails/assets/online_manager.js in a browser, with Rails' own client and server of
# ActionCable (spec/support/rails/cable.ru).
RSpec.describe "online_manager.js", :browser, limit: 60 do
  timeout = 1.5
  every = timeout / 3
  own_channel = "OnlineManager::HeartbeatChannel"

  # Counts the workers of a page.
  count_workers = <<~HTML
    <script>
      window.workers = 0
      window.Worker = class extends Worker {
        constructor(...args) { super(...args); workers++ }
        terminate() { super.terminate(); workers-- }
      }
    </script>
  HTML

  classic = <<~HTML
    <script src="/action_cable.js"></script>
    <script src="/online_manager.js"></script>
  HTML

  # Allows everything that these pages do, except workers.
  no_workers = <<~HTML
    <meta http-equiv="Content-Security-Policy" content="default-src 'self' 'unsafe-inline'; worker-src 'self'">
  HTML

  # Rails' consumer as AnyCable's (@anycable/web 1.1) presents itself: it has a state and no connection, its
  # subscriptions know no consumer, `disconnected` gets another flag, and `connect` returns a promise.
  any_cable = <<~HTML
    <script>
      const anyCable = (consumer) => {
        const hideConsumer = (subscription) => new Proxy(subscription, { get(target, name) {
          const value = name === "consumer" ? undefined : target[name]
          return typeof value === "function" ? value.bind(target) : value
        } })
        const present = (callback, change) => function (...args) {
          return callback.apply(hideConsumer(this), change(args))
        }
        const cable = { state: "connected" }
        return {
          cable,
          connect: () => consumer.connect() ? Promise.resolve() : Promise.reject(new Error("no server")),
          disconnect: () => { cable.state = "closed"; consumer.disconnect() },
          subscriptions: { create(channel, { connected, received, disconnected, ...others }) {
            return hideConsumer(consumer.subscriptions.create(channel, Object.assign(others, {
              connected: present(connected, (args) => args),
              received: present(received, (args) => args),
              disconnected: present(disconnected, () => [{ allowReconnect: true }])
            })))
          } }
        }
      }
    </script>
  HTML

  def boot(port = 0)
    env = Bundler.unbundled_env.merge(RailsBundle::ENVIRONMENT, "TIMEOUT" => "1.5", "LC_ALL" => "C.UTF-8")
    RubyProcess.new("bundle", "exec", "puma", "--bind", "tcp://127.0.0.1:#{port}",
                    "#{RubyProcess::ROOT}/spec/support/rails/cable.ru", chdir: @folder, env:)
  end

  def port_of(server) = Integer(server.wait_for(%r{Listening on http://127\.0\.0\.1:(\d+)}, limit: 30)[1])

  before(:context) do
    @folder = Dir.mktmpdir("cable")
    @server = boot
    @chromium = browser(Browser::THROTTLING)
    @port = port_of(@server)
    @names = (1..).lazy.map { |number| "ann#{number}" }.each
  end

  after(:context) do
    quit_browsers
    @server&.kill
    FileUtils.rm_rf(@folder) if @folder
  end

  after { @chromium.visit("about:blank") }

  let(:chromium) { @chromium }
  let(:server) { @server }
  let(:name) { @names.next }

  # Writes a page to a file.
  #
  # @param script [String] its script, which can use a `consumer`
  # @return [String] its URL
  def page(script, head:, user: name, type: "text/javascript", port: @port)
    File.write("#{@folder}/#{user}.html", <<~HTML)
      <!doctype html>
      <title>#{user}</title>
      <link rel="icon" href="data:,">
      #{head}
      <script type="#{type}">
        window.events = []
        const consumer = ActionCable.createConsumer("/cable?name=#{user}")
        #{script}
      </script>
    HTML
    "http://127.0.0.1:#{port}/#{user}.html"
  end

  define_method(:open_page) do |script, head: "", user: name, **options|
    chromium.visit(page(script, user:, head: "#{head}#{count_workers}#{classic}", **options))
  end

  define_method(:heartbeats) do |channel = own_channel, user: name, of: server|
    of.lines.count("heartbeat #{user} in #{channel}")
  end

  # Waits for a number of further heartbeats of a user.
  define_method(:await_heartbeats) do |channel = own_channel, count: 2, **options|
    before = heartbeats(channel, **options)
    eventually { expect(heartbeats(channel, **options)).to be >= before + count }
  end

  # Expects that heartbeats stop in a channel.
  define_method(:expect_silence) do |channel = own_channel|
    before = heartbeats(channel)
    throughout(2 * every) { expect(heartbeats(channel)).to be <= before + 1 } # one may be in transit
  end

  # Expects heartbeats at the right interval, neither more nor fewer.
  define_method(:expect_interval) do |channel = own_channel|
    await_heartbeats(channel, count: 1)
    before = heartbeats(channel)
    throughout(4.5 * every) { expect(heartbeats(channel) - before).to be <= 5 }
    expect(heartbeats(channel) - before).to be >= 3
  end

  # Makes the server close all connections, as it does when code is reloaded.
  def restart
    expect(Net::HTTP.get_response(URI("http://127.0.0.1:#{@port}/restart")).code).to eq "200"
  end

  def transitions(user = name) = server.lines.grep(/\A(?:online|offline) #{user}\b/)

  it "sends a heartbeat when it is subscribed, then three per timeout" do
    open_page("OnlineManager.subscribe(consumer, 'SlowInterval')") # whose next heartbeat comes after 20 s
    await_heartbeats("SlowInterval", count: 1)

    open_page("OnlineManager.subscribe(consumer)")
    expect_interval
    expect(transitions).to eq ["online #{name} in SlowInterval", "online #{name}"]
  end

  it "calls the application's callbacks as ActionCable does and hides its own message" do
    open_page(<<~JS)
      const inherited = { say(text) { this.perform("say", { text }) } }
      const record = (name) => function (...args) { events.push([name, this === subscription, ...args]) }
      let subscription = OnlineManager.subscribe(consumer, { channel: "Chat", room: 7 }, Object.assign(
        Object.create(inherited),
        { initialized() { events.push(["initialized", typeof this.perform]) }, connected: record("connected"),
          received: record("received"), disconnected: record("disconnected"), rejected: record("rejected") }))
    JS
    eventually { expect(chromium.evaluate("events.length")).to eq 2 }
    chromium.run("subscription.say('hello')")
    eventually { expect(chromium.evaluate("events.length")).to eq 3 }
    chromium.run("consumer.disconnect()")
    eventually { expect(chromium.evaluate("events.length")).to eq 4 }

    expect(chromium.evaluate("events")).to match [
      %w[initialized function],
      start_with("connected", true), # newer versions pass further arguments
      ["received", true, { "said" => "hello" }],
      ["disconnected", true, { "willAttemptReconnect" => false }]
    ]
  end

  it "ends when the subscription is rejected" do
    open_page(<<~JS)
      OnlineManager.subscribe(consumer, "OncePerUser", { rejected() { events.push("rejected") } })
    JS
    await_heartbeats("OncePerUser")
    restart
    eventually { expect(chromium.evaluate("events")).to eq ["rejected"] }
    expect(chromium.evaluate("workers")).to eq 0
    expect_silence("OncePerUser")
  end

  it "ends with the subscription, together with its worker; the user is offline half a timeout later" do
    open_page("const subscription = OnlineManager.subscribe(consumer)")
    await_heartbeats
    expect(chromium.evaluate("workers")).to eq 1

    chromium.run("subscription.unsubscribe()")
    unsubscribed = Wait.monotonic
    expect(chromium.evaluate("workers")).to eq 0
    eventually { expect(transitions).to eq ["online #{name}", "offline #{name}"] }
    expect(Wait.monotonic - unsubscribed).to be_between((timeout / 2) - 0.1, timeout)
    expect_silence
  end

  it "sends heartbeats for each of several subscriptions, and for the others when one has ended" do
    open_page(<<~JS)
      const chat = OnlineManager.subscribe(consumer, "Chat")
      OnlineManager.subscribe(consumer)
    JS
    await_heartbeats
    await_heartbeats("Chat")

    chromium.run("chat.unsubscribe()")
    expect_silence("Chat")
    expect_interval
    expect(transitions).to contain_exactly("online #{name} in Chat", "online #{name}", "offline #{name} in Chat")
  end

  it "goes on for a second subscription to the same channel when the first has ended" do
    open_page("const first = OnlineManager.subscribe(consumer)")
    await_heartbeats
    chromium.run("OnlineManager.subscribe(consumer); first.unsubscribe()")

    expect_interval
    expect([transitions, chromium.evaluate("workers")]).to eq [["online #{name}"], 1]
  end

  it "reconnects soon whenever the server closes the connection, and sends heartbeats no faster" do
    open_page(<<~JS)
      const at = (name) => () => events.push([name, performance.now()])
      OnlineManager.subscribe(consumer, undefined, { connected: at("connected"), disconnected: at("disconnected") })
    JS
    await_heartbeats
    (1..3).each do |times|
      restart
      eventually { expect(chromium.evaluate("events.length")).to eq 1 + (2 * times) }
    end
    names, times = chromium.evaluate("events").transpose
    expect(names).to eq %w[connected disconnected connected disconnected connected disconnected connected]
    gone = times.drop(1).each_slice(2).map { |from, to| (to - from) / 1_000 }
    expect(gone.max).to be < timeout # ActionCable's own monitor waits 6 s
    expect_interval
    expect([transitions, chromium.evaluate("workers")]).to eq [["online #{name}"], 1]
  end

  it "tries again until a server that was down is up" do
    other = boot
    port = port_of(other)
    open_page("OnlineManager.subscribe(consumer)", port:)
    await_heartbeats(of: other)
    other.kill
    again = boot(port)
    port_of(again)

    eventually(limit: 4) { expect(heartbeats(of: again)).to be > 0 }
  ensure
    [other, again].compact.each(&:kill)
  end

  it "stays disconnected once the application has disconnected, even while there is no connection" do
    other = boot
    open_page("OnlineManager.subscribe(consumer)", port: port_of(other))
    await_heartbeats(of: other)
    other.kill
    eventually { expect(chromium.evaluate("consumer.connection.isOpen()")).to be false }
    chromium.run("consumer.disconnect()")
    eventually { expect(chromium.evaluate("workers")).to eq 0 }
    throughout(2 * every) { expect(chromium.evaluate("consumer.connection.isActive()")).to be false }
  ensure
    other&.kill
  end

  it "goes on when the application connects again" do
    open_page("OnlineManager.subscribe(consumer)")
    await_heartbeats
    chromium.run("consumer.disconnect()")
    eventually { expect(chromium.evaluate("workers")).to eq 0 }
    expect_silence
    chromium.run("consumer.connect()")
    await_heartbeats
  end

  it "reconnects soon with AnyCable's consumer, and stays disconnected once that has disconnected" do
    open_page(<<~JS, head: any_cable)
      const other = anyCable(consumer)
      const at = (name) => () => events.push([name, performance.now()])
      OnlineManager.subscribe(other, undefined, { connected: at("connected"), disconnected: at("disconnected") })
    JS
    await_heartbeats
    restart
    eventually { expect(chromium.evaluate("events.length")).to eq 3 }
    expect((chromium.evaluate("events[2][1] - events[1][1]") / 1_000)).to be < timeout
    expect_interval
    expect(transitions).to eq ["online #{name}"]

    chromium.run("other.disconnect()")
    eventually { expect(chromium.evaluate("workers")).to eq 0 }
    expect_silence
  end

  it "tries again with AnyCable's consumer until a server that was down is up" do
    other = boot
    port = port_of(other)
    open_page(<<~JS, head: any_cable, port:)
      addEventListener("unhandledrejection", () => events.push("unhandled"))
      OnlineManager.subscribe(anyCable(consumer))
    JS
    await_heartbeats(of: other)
    other.kill
    eventually { expect(chromium.evaluate("consumer.connection.isOpen()")).to be false }
    again = boot(port)
    port_of(again)

    eventually(limit: 4) { expect(heartbeats(of: again)).to be > 0 }
    expect(chromium.evaluate("events")).to eq []
  ensure
    [other, again].compact.each(&:kill)
  end

  it "goes on for a second subscription of AnyCable's consumer when the first has ended" do
    open_page(<<~JS, head: any_cable)
      const other = anyCable(consumer)
      const first = OnlineManager.subscribe(other)
    JS
    await_heartbeats
    chromium.run("OnlineManager.subscribe(other); first.unsubscribe()")

    expect_interval
    expect([transitions, chromium.evaluate("workers")]).to eq [["online #{name}"], 1]
  end

  it "follows a new interval from the server" do
    open_page("const changing = OnlineManager.subscribe(consumer, 'ChangingInterval')")
    await_heartbeats("ChangingInterval", count: 1)
    chromium.run("changing.perform('shorten_interval')")
    await_heartbeats("ChangingInterval", count: 20)
  end

  it "sends a heartbeat at once when the page becomes visible again" do
    open_page("OnlineManager.subscribe(consumer, 'SlowInterval')")
    first = chromium.tab
    await_heartbeats("SlowInterval", count: 1)
    other = chromium.open_tab
    before = heartbeats("SlowInterval")
    chromium.show(first)
    chromium.close_tab(other)

    eventually { expect(heartbeats("SlowInterval")).to be > before }
  end

  it "goes on in a hidden page whose own timers the browser throttles" do
    first = chromium.tab
    hidden = { "works" => "", "falls" => no_workers }.to_h do |user, head|
      user = "#{name}#{user}"
      chromium.open_tab
      open_page(<<~JS, head:, user:)
        OnlineManager.subscribe(consumer)
        setInterval(() => events.push(performance.now()), #{every * 1_000})
      JS
      await_heartbeats(user:)
      [user, chromium.tab]
    end
    chromium.show(first)
    works, falls = hidden.keys

    eventually(limit: 20) { expect(transitions(falls)).to eq ["online #{falls}", "offline #{falls}"] }
    await_heartbeats(user: works)
    expect(transitions(works)).to eq ["online #{works}"]
  ensure
    chromium.show(first)
    hidden&.each_value { |tab| chromium.close_tab(tab) }
  end

  it "sends heartbeats from the page's own timer where the Content-Security-Policy allows no worker" do
    open_page("const subscription = OnlineManager.subscribe(consumer)", head: no_workers)
    expect_interval
    # A page without a connection connects at its next heartbeat.
    chromium.run("subscription.unsubscribe(); consumer.connect = () => events.push('still there')")
    expect_silence
    expect(chromium.evaluate("events")).to eq []
  end

  it "can be imported with an import map" do
    map = '<script type="importmap">{ "imports": { "online_manager": "/online_manager.js" } }</script>'
    chromium.visit(page(<<~JS, head: "#{map}<script src=\"/action_cable.js\"></script>", type: "module"))
      import "online_manager"
      OnlineManager.subscribe(consumer)
    JS
    expect_interval
  end
end
