# frozen_string_literal: true

require_relative "../support/rails/browser"
require_relative "../support/rails/example_app"

# The example in a cluster of Puma, and people with browsers. What happened to them, its database and its log say.
RSpec.describe "examples/rails in a browser", :browser, limit: 120 do
  timeout = 2
  came = %i[online heartbeat]

  before(:context) do
    @app = ExampleApp.new(timeout:)
    @server = @app.boot(workers: 2, preload: false)
    @numbers = (1..).each
  end

  after(:context) { @app&.remove }
  after { quit_browsers }

  let(:app) { @app }
  let(:server) { @server }
  let(:number) { @numbers.next }
  let(:ann) { "ann #{number}" }
  let(:bob) { "bob #{number}" }

  # Opens a browser, and logs in there.
  #
  # @return [Browser] once the database says that its user is online
  def log_in(name)
    browser(Browser::THROTTLING).tap do |chromium|
      chromium.visit(server.url)
      chromium.fill_in("name", name)
      eventually { expect(app.online).to include name }
    end
  end

  # @return [Array<String>] whom a page shows as being online
  def online_in(chromium)
    chromium.evaluate('Array.from(document.querySelectorAll("#users .online"), (item) => item.dataset.name)')
  end

  # @return [Array<Array(Symbol, Symbol)>] what happened to a user, and why
  def history(name) = app.history(name).fetch(name)

  # Demands that nothing happens to users who are online, while the block runs and for a timeout more.
  define_method(:expect_nothing) do |*names, &block|
    before = app.users.slice(*names)
    block.call
    throughout(timeout) { expect(app.online).to include(*names) }
    expect(app.users.slice(*names)).to eq before # presence_version too
    expect(app.history(*names).values).to eq [[came]] * names.size
  end

  it "shows two people that both are there, and that one of them has gone" do
    first = log_in(ann)
    second = log_in(bob)
    [first, second].each { |chromium| eventually { expect(online_in(chromium)).to include ann, bob } }

    second.quit
    eventually { expect(online_in(first) & [ann, bob]).to eq [ann] }
  end

  it "sets offline whose browser is closed, half a timeout later" do
    browser = log_in(ann)
    closing = Time.now
    browser.quit
    closed = Time.now
    eventually { expect(history(ann)).to eq [came, %i[offline leave]] }

    expect(app.online).not_to include ann
    expect(app.transitions.last.at).to be_between(closing + (timeout / 2.0), closed + timeout)
  end

  it "does not notice that a page is loaded anew, again and again" do
    chromium = log_in(ann)
    expect_nothing(ann) { 5.times { chromium.reload } }
    eventually { expect(online_in(chromium)).to include ann }
  end

  it "does not notice that a second tab is closed" do
    chromium = log_in(ann)
    first = chromium.tab
    second = chromium.open_tab(server.url)
    eventually { expect(online_in(chromium)).to include ann }
    chromium.show(first)
    expect_nothing(ann) { chromium.close_tab(second) }
  end

  it "sets offline whose browser does not run, though it is connected, and online again when it does" do
    chromium = log_in(ann)
    chromium.suspend
    suspended = Time.now
    eventually { expect(history(ann)).to eq [came, %i[offline timeout]] }
    expect(app.transitions.last.at - suspended).to be_between(timeout / 2.0, timeout * 2)

    chromium.resume
    eventually { expect(history(ann)).to eq [came, %i[offline timeout], came] }
    expect(app.online).to include ann
  end

  it "does not notice that the server is restarted, worker by worker" do
    chromiums = [log_in(ann), log_in(bob)]
    before = server.pids
    expect_nothing(ann, bob) do
      server.signal(:USR1)
      server.wait_for_workers(4)
      wait_until(limit: ExampleApp::LIMIT) { before.none? { |pid| File.exist?("/proc/#{pid}") } }
      throughout(timeout) { expect(app.online).to include(ann, bob) } # who was at the last worker has just lost it
    end
    chromiums.each { |chromium| eventually { expect(online_in(chromium)).to include ann, bob } }
  end
end
