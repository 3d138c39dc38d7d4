# frozen_string_literal: true

require "tmpdir"
Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

# One user, many tabs and devices. docs/state_machine.md has the rules (S1 to S16), each with its test in the tracker.
RSpec.describe "Sessions" do
  let(:reactor) { :thread }

  include_context "with a manager"

  # @return [Array<Symbol>] the transitions of user 7 so far
  def transitions(config) = config.calls_of(7)

  it "keep a phone's longer timeout when a tab with a shorter one closes: one transition each" do
    manager = start(config = recording)
    began = Wait.monotonic
    manager.seen(7, session: "phone", timeout: 1)
    manager.seen(7, session: "tab", timeout: 0.1)
    manager.leave(7, session: "tab")
    pass_time(0.5, from: began)
    expect([transitions(config), manager.session_ids(7)]).to eq [[:online], ["phone"]]
    wait_until { config.last(:offline, 7) }

    expect(config.last(:offline, 7).began - began).to be_between(0.98, 3)
    expect(transitions(config)).to eq %i[online offline]
  end

  it "end with the last of them, by a leave" do
    manager = start(config = recording)
    %w[tab-1 tab-2].each { |tab| manager.seen(7, session: tab) }
    expect(manager.leave(7, session: "tab-1")).to be true
    throughout(0.1) { expect(transitions(config)).to eq [:online] }
    expect(manager.leave(7, session: "tab-1")).to be false
    expect(manager.leave(7, session: "tab-2", after: 0.05)).to be true
    eventually { expect(transitions(config)).to eq %i[online offline] }

    expect([manager.session_ids(7), manager.leave(7, session: "tab-2")]).to eq [[], false]
  end

  it "end all at once when the user has logged out everywhere" do
    manager = start(config = recording)
    [nil, 1, "tab", :tab].each { |session| manager.seen(7, session:) }
    expect(manager.session_ids(7)).to contain_exactly(nil, 1, "tab", :tab)
    expect(manager.leave(7)).to be true
    eventually { expect(transitions(config)).to eq %i[online offline] }

    # A late heartbeat is a new session's.
    manager.seen(7, session: "tab")
    expect([manager.session_ids(7), transitions(config)]).to eq [["tab"], %i[online offline online]]
  end

  it "are the unnamed one for nil, the block and heartbeats without a session: a missing parameter logs nobody out" do
    manager = start(config = recording)
    config.heartbeat.call(7)
    manager.seen(7)
    manager.seen_all([7])
    expect([manager.session_ids(7), manager.stats[:sessions]]).to eq [[nil], 1]
    manager.seen(7, session: "tab")
    manager.leave(7, session: nil)
    throughout(0.1) { expect(manager.online?(7)).to be true }
    expect(manager.session_ids(7)).to eq ["tab"]
    manager.leave(7, session: "tab")

    eventually { expect(transitions(config)).to eq %i[online offline] }
  end

  it "are counted beside the users" do
    manager = start
    expect([manager.session_ids(7), manager.stats[:sessions]]).to eq [[], 0]
    [7, 8].product([1, 2, 3]) { |user, session| manager.seen(user, session:) }
    manager.seen(9)

    expect([manager.size, manager.online_users.sort, manager.stats[:sessions]]).to eq [3, [7, 8, 9], 7]
  end

  it "take the config's timeout if they have none of their own" do
    manager = start(config = recording(timeout: 0.2))
    manager.seen(7, session: 1)
    wait_until { transitions(config) == %i[online offline] }

    expect(config.last(:offline).began - config.last(:online).began).to be > 0.18
  end

  it "belong to one user each, whatever others call theirs" do
    manager = start(config = recording)
    [7, 8].each { |user| manager.seen(user, session: [1]) }
    manager.leave(8, session: [1])
    eventually { expect(config.calls_of(8)).to eq %i[online offline] }

    expect([manager.session_ids(7), manager.leave(7, session: [1])]).to eq [[[1]], true]
  end

  it "are let go when `online` raises" do
    fails = true
    manager = start(recording(online: ->(_) { raise "no" if fails }))
    expect { manager.seen(7, session: "tab") }.to raise_error("no")
    fails = false
    manager.seen(7, session: "phone")

    expect(manager.session_ids(7)).to eq ["phone"]
  end

  it "are another process' in a forked child" do
    manager = start
    manager.seen(7, session: [1])
    reader, writer = IO.pipe
    pid = fork do
      before = manager.session_ids(7)
      manager.seen(7, session: [2])
      writer.write(Marshal.dump([before, manager.session_ids(7)]))
      writer.close
      exit! 0
    end
    writer.close
    said = Marshal.load(reader.read) # rubocop:disable Security/MarshalLoad -- of the child
    Process.wait(pid)

    expect([said, manager.session_ids(7)]).to eq [[[], [[2]]], [[1]]]
  end

  it "come to an end with the manager: later heartbeats of a session are ignored" do
    manager = start(config = recording)
    manager.seen(7, session: [1])
    manager.stop

    expect([manager.seen(7, session: [2]), manager.seen(8, session: 2.5)]).to eq [false, false]
    expect(manager.session_ids(7)).to eq []
    expect(transitions(config)).to eq %i[online offline]
  end

  describe "whose id is an object" do
    point = Struct.new(:x)

    it "are equal as keys of a Hash are" do
      manager = start
      ids = [1, 1.0, "1", :"1", [1], point.new(1), 2**70, nil]
      2.times { ids.each { |session| manager.seen(7, session: session.dup) } }

      expect(manager.session_ids(7)).to match_array(ids)
      ids.each { |session| expect([session, manager.leave(7, session: session.dup)]).to eq [session, true] }
    end

    it "are copied if they are Strings that change later" do
      manager = start
      session = +"tab"
      manager.seen(7, session:)
      session << "-1"

      expect(manager.session_ids(7)).to eq ["tab"]
    end

    it "are kept for as long as a session has them, and no longer" do
      manager = start
      objects = ->(from) { Array.new(1_000) { |n| point.new(from + n) } }
      objects[0].each { |session| manager.seen(7, session:, timeout: 0.01) }
      manager.seen(7, session: kept = point.new(-1))
      GC.start
      expect(manager.session_ids(7)).to include(kept)
      # The tracker drops what is over within half a second; the objects go with the next heartbeat of a session.
      eventually(limit: 10) do
        manager.seen(7, session: kept)
        GC.start
        expect(ObjectSpace.each_object(point).count).to be < 100
      end
      expect([manager.session_ids(7), manager.stats[:sessions]]).to eq [[kept], 1]
    end

    it "are not kept if the heartbeat is ignored, after a stop, or fails" do
      manager = start
      manager.seen(7, session: point.new(0))
      bad = Object.new
      def bad.hash = raise("no hash")
      1_000.times { |n| expect { manager.seen(bad, session: point.new(n)) }.to raise_error("no hash") }
      manager.stop
      1_000.times { |n| manager.seen([n], session: point.new(n)) }
      GC.start

      expect(ObjectSpace.each_object(point).count).to be < 100
    end

    it "pass on what their `hash` or `eql?` raises, and change nothing" do
      manager = start(config = recording)
      bad = Object.new
      bad.define_singleton_method(:hash) { raise "no hash" }
      unequal = Class.new(point) { def eql?(other) = raise("no eql? with #{other.class}") }
      manager.seen([7], session: unequal.new(1))
      [[bad, "no hash"], [unequal.new(1), /no eql\?/]].each do |session, message|
        expect { manager.seen([8], session:) }.to raise_error(message)
        expect { manager.leave([7], session:) }.to raise_error(message)
        expect { manager.seen(bad, session: [1]) }.to raise_error("no hash")
      end

      expect([config.calls, manager.stats[:sessions]]).to eq [[[:online, [7]]], 1]
      expect(manager.session_ids([7]).size).to eq 1
    end
  end

  describe "of a client that invents an id with each heartbeat" do
    it "are limited, and the user stays online for as long as the longest promise" do
      manager = start(config = recording, max_sessions: 3)
      began = Wait.monotonic
      manager.seen(7, session: "long", timeout: 1)
      20.times { |n| manager.seen(7, session: n, timeout: 2) }
      expect([manager.stats[:sessions], manager.session_ids(7)]).to match [be <= 4, contain_exactly(17, 18, 19)]
      [17, 18, 19].each { |session| manager.leave(7, session:) }
      wait_until { config.last(:offline, 7) }

      expect(config.last(:offline, 7).began - began).to be > 1.9
    end

    it "go with their timeouts" do
      manager = start(recording(timeout: 0.05), max_sessions: 1_000_000)
      manager.seen(7, timeout: 60)
      20_000.times { |n| manager.seen(7, session: n) if (n % 100).zero? || n < 2_000 }

      eventually(limit: 10) { expect(manager.stats[:sessions]).to eq 1 }
    end

    it "have a limit of an Integer above 0" do
      { 0 => "0", 1.5 => "1.5", "3" => '"3"', nil => "nil", 1_000_001 => "1000001" }.each do |max_sessions, shown|
        expect { OnlineManager.new(recording, max_sessions:) }
          .to raise_error(ArgumentError, "max_sessions must be an Integer from 1 to 1000000, got #{shown}")
      end
    end
  end

  it "are kept by the store :memory only" do
    Dir.mktmpdir do |folder|
      manager = start(store: "sqlite:#{folder}/presence")
      message = /a shared store keeps no sessions, got session: "tab"; leave it out, or use the store :memory/
      expect { manager.seen(7, session: "tab") }.to raise_error(ArgumentError, message)
      expect { manager.leave(7, session: "tab") }.to raise_error(ArgumentError, message)
      expect(manager.session_ids(7)).to eq []
      manager.seen(7, session: nil)
      eventually(limit: 10) { expect(manager.session_ids(7)).to eq [nil] }
      expect(manager.leave(7, session: nil)).to be true
      eventually(limit: 10) { expect(manager.session_ids(7)).to eq [] }
      manager.stop
    end
  end
end
