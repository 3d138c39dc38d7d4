# frozen_string_literal: true

require_relative "../examples/websocket_demo/journal"
require_relative "../examples/websocket_demo/judge"

# A run with a timeout of 2 s: ben falls silent at 1 s, ada keeps on until the shutdown at 5 s.
RSpec.describe WebSocketDemo::Judge do
  let(:ada) { [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5] }
  let(:ben) { [0.0, 0.5, 1.0] }
  let(:good) { [["ada", :online, 0.0], ["ben", :online, 0.0], ["ben", :offline, 3.25], ["ada", :offline, 5.0]] }

  # @return [Array<String>] the judge's faults for these transitions
  def faults(transitions, heartbeats: { "ada" => ada, "ben" => ben }, shutdown: 5.0)
    journal = WebSocketDemo::Journal.new
    heartbeats.each { |user, times| times.each { |at| journal.heartbeat(user, at:) } }
    transitions.each { |user, state, at| journal.transition(user, state, at:) }
    journal.shutdown(at: shutdown) if shutdown
    described_class.new(journal, expected: { "ada" => :shutdown, "ben" => :timeout }, timeout: 2).faults
  end

  def without(*transition) = good - [transition]

  describe "a good run" do
    it("has no faults") { expect(faults(good)).to be_empty }

    it "has no faults when an offline comes exactly at its timeout" do
      expect(faults(without("ben", :offline, 3.25) << ["ben", :offline, 3.0])).to be_empty
    end

    it "has no faults when an offline is late, since a busy machine is no fault of the gem" do
      expect(faults(without("ben", :offline, 3.25) << ["ben", :offline, 4.75])).to be_empty
    end
  end

  describe "a missing transition" do
    it "is an online that never came" do
      expect(faults(without("ben", :online, 0.0))).to eq(["missing: ben never came online"])
    end

    it "is an offline by the timeout that never came" do
      expect(faults(without("ben", :offline, 3.25))).to eq(["missing: ben never came offline"])
    end

    it "is an offline by the timeout that came only with the shutdown" do
      expect(faults(without("ben", :offline, 3.25) << ["ben", :offline, 5.0]))
        .to eq(["missing: ben was not set offline by the timeout, only by the shutdown"])
    end

    it "is an offline by the shutdown that never came" do
      expect(faults(without("ada", :offline, 5.0))).to eq(["missing: ada never came offline"])
    end

    it "is each of them when nothing came at all" do
      expect(faults([], heartbeats: {}, shutdown: nil)).to eq(
        ["missing: ada never came online", "missing: ada never came offline",
         "missing: ben never came online", "missing: ben never came offline"]
      )
    end
  end

  describe "a doubled transition" do
    it "is a second online" do
      expect(faults(good + [["ada", :online, 0.5]])).to eq(["doubled: ada came online 2 times"])
    end

    it "is a second offline by the timeout" do
      expect(faults(good + [["ben", :offline, 3.5]])).to eq(["doubled: ben came offline 2 times"])
    end

    it "is an offline by the shutdown of a user who is already offline" do
      expect(faults(good + [["ben", :offline, 5.0]])).to eq(["doubled: ben came offline 2 times"])
    end

    it "is a second offline by the shutdown" do
      expect(faults(good + [["ada", :offline, 5.0]])).to eq(["doubled: ada came offline 2 times"])
    end

    it "is distinguished from an offline that a busy machine caused by delaying the client" do
      transitions = good + [["ada", :offline, 2.5], ["ada", :online, 3.25]]
      note = "(but the server saw no heartbeat for 2.75 s: is this machine very busy?)"
      expect(faults(transitions, heartbeats: { "ada" => [0.0, 0.5, 3.25, 4.5], "ben" => ben }))
        .to include("doubled: ada came online 2 times #{note}", "doubled: ada came offline 2 times #{note}")
    end
  end

  describe "an early transition" do
    it "is an offline before the timeout" do
      expect(faults(without("ben", :offline, 3.25) << ["ben", :offline, 2.999]))
        .to eq(["early: ben came offline 1.999 s after the last heartbeat, the timeout is 2 s"])
    end

    it "is measured from the last heartbeat that the server saw" do
      expect(faults(good, heartbeats: { "ada" => ada, "ben" => ben + [1.5] }))
        .to eq(["early: ben came offline 1.75 s after the last heartbeat, the timeout is 2 s"])
    end

    it "is an offline of a user who keeps sending heartbeats" do
      expect(faults(without("ada", :offline, 5.0) << ["ada", :offline, 2.25]))
        .to eq(["early: ada came offline 0.25 s after the last heartbeat, the timeout is 2 s"])
    end

    it "is an offline before the shutdown that should have caused it" do
      transitions = without("ada", :offline, 5.0) << ["ada", :offline, 2.5]
      expect(faults(transitions, heartbeats: { "ada" => [0.0], "ben" => ben }))
        .to eq(["early: ada came offline before the shutdown"])
    end

    it "is an offline that comes before its online" do
      expect(faults(without("ben", :online, 0.0) << ["ben", :online, 3.5]))
        .to eq(["early: ben came offline before online"])
    end

    it "is an online before any heartbeat" do
      expect(faults(good, heartbeats: { "ada" => ada, "ben" => [0.25, 1.0] }))
        .to eq(["early: ben came online without a heartbeat"])
    end
  end

  it "names transitions of a user without a client" do
    expect(faults(good + [["eve", :online, 1.0]])).to eq(["unexpected: transitions of eve, who has no client"])
  end
end
