# frozen_string_literal: true

require_relative "../support/rails/browser"
require_relative "../support/rails/example_app"

# The example application in a Puma cluster, and users with browsers. Its database and its log show what happened.
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

  # Opens a browser, and logs in.
  #
  # @return [Browser] as soon as the user is online in the database
  def log_in(name)
    browser(Browser::THROTTLING).tap do |chromium|
      chromium.visit(server.url)
      chromium.fill_in("name", name)
      eventually { expect(app.online).to include name }
    end
  end

  # @return [Array<String>] the users that a page shows as online
  def online_in(chromium)
    chromium.evaluate('Array.from(document.querySelectorAll("#users .online"), (item) => item.dataset.name)')
  end

  # @return [Array<Array(Symbol, Symbol)>] a user's transitions with their reasons
  def history(name) = app.history(name).fetch(name)

  # Expects that nothing happens to users who are online, while the block runs and for one timeout more.
  define_method(:expect_nothing) do |*names, &block|
    before = app.users.slice(*names)
    block.call
    throughout(timeout) { expect(app.online).to include(*names) }
    expect(app.users.slice(*names)).to eq before # presence_version too
    expect(app.history(*names).values).to eq [[came]] * names.size
  end

  it "shows two users each other, and then that one has gone" do
    first = log_in(ann)
    second = log_in(bob)
    [first, second].each { |chromium| eventually { expect(online_in(chromium)).to include ann, bob } }

    second.quit
    eventually { expect(online_in(first) & [ann, bob]).to eq [ann] }
  end

  it "sets a user offline half a timeout after the browser is closed" do
    browser = log_in(ann)
    closing = Time.now
    browser.quit
    closed = Time.now
    eventually { expect(history(ann)).to eq [came, %i[offline leave]] }

    expect(app.online).not_to include ann
    expect(app.transitions.last.at).to be_between(closing + (timeout / 2.0), closed + timeout)
  end

  it "ignores that a page is reloaded again and again" do
    chromium = log_in(ann)
    expect_nothing(ann) { 5.times { chromium.reload } }
    eventually { expect(online_in(chromium)).to include ann }
  end

  it "ignores that a second tab is closed" do
    chromium = log_in(ann)
    first = chromium.tab
    second = chromium.open_tab(server.url)
    eventually { expect(online_in(chromium)).to include ann }
    chromium.show(first)
    expect_nothing(ann) { chromium.close_tab(second) }
  end

  it "sets a user offline whose browser is suspended with open connections, and online again when it resumes" do
    chromium = log_in(ann)
    chromium.suspend
    suspended = Time.now
    eventually { expect(history(ann)).to eq [came, %i[offline timeout]] }
    expect(app.transitions.last.at - suspended).to be_between(timeout / 2.0, timeout * 2)

    chromium.resume
    eventually { expect(history(ann)).to eq [came, %i[offline timeout], came] }
    expect(app.online).to include ann
  end

  it "ignores that the server is restarted worker by worker" do
    chromiums = [log_in(ann), log_in(bob)]
    before = server.pids
    expect_nothing(ann, bob) do
      server.signal(:USR1)
      server.wait_for_workers(4)
      wait_until(limit: ExampleApp::LIMIT) { before.none? { |pid| File.exist?("/proc/#{pid}") } }
      throughout(timeout) { expect(app.online).to include(ann, bob) } # the last worker's clients have just lost it
    end
    chromiums.each { |chromium| eventually { expect(online_in(chromium)).to include ann, bob } }
  end
end
