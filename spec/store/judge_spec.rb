# frozen_string_literal: true

require "json"
require "tmpdir"
require_relative "../support/store/judge"

# Ann has two sessions, and "ben" (a String, and another user than `:ben`) has one.
RSpec.describe Stores::Judge do
  let(:good) do
    [[:online, :ann, 10], [:online, "ben", 11], [:offline, :ann, 12], [:online, :ann, 13], [:offline, "ben", 14],
     [:offline, :ann, 15]]
  end

  # @param events [Array<Array>] for each line its kind, and then its user, version and process where it has them
  # @return [Hash] the judge's report, from its own process
  def report(events, sessions: { ann: 2, "ben" => 1 }, **script)
    Dir.mktmpdir do |folder|
      log = Stores::Log.new("#{folder}/log")
      events.each do |kind, user, version, pid|
        log.append(kind, user && Stores::Log.token(user), version:, pid: pid || 1, detail: "point")
      end
      File.write("#{folder}/script",
                 { sessions: sessions.transform_keys { |id| Stores::Log.token(id) }, **script }.to_json)
      output = IO.popen([RbConfig.ruby, "spec/support/store/judge.rb", log.path, "#{folder}/script"], &:read)
      JSON.parse(output, symbolize_names: true)
    end
  end

  def faults(...) = report(...).fetch(:faults)

  def without(*event) = good - [event]

  # @return [Array<Array>] the good run with one event replaced
  def with(event, in_place_of:) = good.map { |other| other == in_place_of ? event : other }

  # @return [Array<Array>] the good run with additional users, whose online process 2 delivered before it was killed,
  #   and process 3 delivered again
  def killed_after(count)
    delivered = Array.new(count) { |number| [:online, number, 20 + number, 2] }
    [*good, *delivered, [:killed, nil, nil, 2], *delivered.map { |event| [*event.first(3), 3] }]
  end

  describe "a good run" do
    it "has no faults" do
      expect(report(good)).to include(faults: [], transitions: 6, repeats: 0, kills: {}, repeats_of: {})
    end

    it "may end with a user online if the script says so" do
      expect(faults(without(:offline, "ben", 14), online: ['"ben"'])).to be_empty
    end

    it "may contain lines of other kinds" do
      expect(faults([[:error, nil, nil], [:held, "ben", nil], *good])).to be_empty
    end

    it "distinguishes ids" do
      ids = [1, "1", :"1", "a b", "a\tb", "a\nb", "a\0b", "é", "é".b, :é, "\xFF", "\xFF".b, "x" * 10_000, ""]
      events = ids.flat_map { |id| [[:online, id, 1], [:offline, id, 2]] }
      expect(report(events, sessions: ids.to_h { |id| [id, 1] })).to include(faults: [], transitions: 28)
    end
  end

  describe "what is missing" do
    it "is a last offline" do
      expect(faults(without(:offline, "ben", 14))).to eq ['end: "ben" is online, not offline']
    end

    it "is an offline between two onlines" do
      expect(faults(without(:offline, :ann, 12)))
        .to eq ['order: :"ann" is online twice, 10 and 13', 'sessions: :"ann" had 1, the script played 2']
    end

    it "is an online between two offlines" do
      expect(faults(without(:online, :ann, 13)))
        .to eq ['order: :"ann" is offline twice, 12 and 15', 'sessions: :"ann" had 1, the script played 2']
    end

    it "is a first online" do
      expect(faults(without(:online, "ben", 11)))
        .to eq ['order: "ben" begins with offline 14', 'sessions: "ben" had 0, the script played 1']
    end

    it "is a whole session" do
      expect(faults(good - [[:online, :ann, 13], [:offline, :ann, 15]]))
        .to eq ['sessions: :"ann" had 1, the script played 2']
    end

    it "is a user" do
      expect(faults(good.reject { |event| event[1] == "ben" })).to eq ['sessions: "ben" had 0, the script played 1']
    end

    it "is a user who should be online at the end" do
      expect(faults(good, online: ['"ben"'])).to eq ['end: "ben" is offline, not online']
    end
  end

  describe "what is too much" do
    it "is a transition that comes twice with another version" do
      expect(faults([*good, [:offline, "ben", 16]])).to eq ['order: "ben" is offline twice, 14 and 16']
      expect(faults([good.first, [:online, :ann, 11], *good.drop(1)]))
        .to eq ['order: :"ann" is online twice, 10 and 11']
    end

    it "is a session that the script did not play" do
      expect(faults([*good, [:online, "ben", 16], [:offline, "ben", 17]]))
        .to eq ['sessions: "ben" had 2, the script played 1']
    end

    it "is a user that the script does not name" do
      expect(faults([*good, [:online, :ben, 16], [:offline, :ben, 17]]))
        .to eq ['stranger: :"ben" is not in the script']
    end
  end

  describe "a wrong order" do
    it "is a version that does not grow" do
      expect(faults(with([:offline, "ben", 9], in_place_of: [:offline, "ben", 14])))
        .to eq ['version: "ben" has offline 9 after online 11']
    end

    it "is two transitions in the wrong order with their own versions" do
      onward, back = good.values_at(1, 4)
      expect(faults(good.map { |event| { onward => back, back => onward }.fetch(event, event) })).to eq [
        'order: "ben" begins with offline 14', 'version: "ben" has online 11 after offline 14',
        'end: "ben" is online, not offline'
      ]
    end

    it "is a version that belongs to both kinds" do
      expect(faults(with([:offline, "ben", 11], in_place_of: [:offline, "ben", 14])))
        .to include 'version: "ben" is both online and offline at 11'
    end
  end

  describe "a repeat" do
    let(:repeated) { [*good.first(2), [:online, "ben", 11, 2], *good.drop(2)] }

    it "is a fault when nobody was killed" do
      expect(faults(repeated)).to eq ['repeat: "ben" is online 11 by 1 and by 2, and neither was killed']
    end

    it "is a fault when somebody else was killed" do
      expect(faults([*repeated, [:killed, nil, nil, 3]]))
        .to eq ['repeat: "ben" is online 11 by 1 and by 2, and neither was killed']
    end

    it "is no fault where the script allows it" do
      expect(report(repeated, repeats: "anywhere")).to include(faults: [], repeats: 1)
    end

    it "is explained and counted when the first process was killed" do
      expect(report([*repeated, [:killed, nil, nil, 1]]))
        .to include(faults: [], repeats: 1, repeats_of: { "1": 1 }, kills: { point: 1 })
    end

    it "is explained when the second process had been stopped, however late it comes" do
      expect(report([*good, [:online, "ben", 11, 2], [:stopped, nil, nil, 2]]))
        .to include(faults: [], repeats: 1, repeats_of: { "2": 1 }, kills: {})
    end

    it "is counted for the process that delivered it last" do
      repeats = [[:online, "ben", 11, 2], [:online, "ben", 11, 3]]
      expect(report([*good, *repeats, [:killed, nil, nil, 1], [:killed, nil, nil, 2]]))
        .to include(faults: [], repeats: 2, repeats_of: { "1": 1, "2": 1 })
    end

    it "may be one of a whole batch and of no more" do
      { 256 => [], 257 => ["repeat: 257 because of process 2, a batch is 256"] }.each do |count, faults|
        sessions = { ann: 2, "ben" => 1, **(0...count).to_h { |number| [number, 1] } }
        expect(report(killed_after(count), sessions:, online: (0...count).map(&:to_s)))
          .to include(faults:, repeats: count)
      end
    end
  end

  describe "after the store was lost" do
    it "allows a repeated online, which begins no session" do
      expect(faults([*good.first(4), [:lost], [:online, "ben", 14], [:offline, "ben", 16], [:offline, :ann, 17]]))
        .to be_empty
    end

    it "allows no lower version" do
      expect(faults([*good.first(4), [:lost], [:online, "ben", 5], [:offline, "ben", 16], [:offline, :ann, 17]]))
        .to eq ['version: "ben" has online 5 after online 11']
    end

    it "allows neither a repeated offline nor a second repeated online" do
      expect(faults([*good, [:lost], [:offline, "ben", 16]])).to eq ['order: "ben" is offline twice, 14 and 16']
      expect(faults([*good.first(4), [:lost], [:online, "ben", 14], [:online, "ben", 15], [:offline, "ben", 16],
                     [:offline, :ann, 17]])).to eq ['order: "ben" is online twice, 14 and 15']
    end
  end

  describe "after older data came back" do
    it "allows one repeated transition of each user, which begins no session" do
      expect(faults([*good.first(5), [:restored], [:online, :ann, 15], [:offline, "ben", 16], [:offline, :ann, 17]]))
        .to be_empty
    end

    it "allows no lower version and no second repeated transition" do
      expect(faults([*good, [:restored], [:offline, "ben", 13]]))
        .to include 'version: "ben" has offline 13 after offline 14'
      expect(faults([*good, [:restored], [:offline, "ben", 16], [:offline, "ben", 17]]))
        .to eq ['order: "ben" is offline twice, 16 and 17']
    end
  end

  it "reports a line that it cannot parse" do
    Dir.mktmpdir do |folder|
      File.write("#{folder}/log", "online\t\"b")
      File.write("#{folder}/script", { sessions: {} }.to_json)
      output = IO.popen([RbConfig.ruby, "spec/support/store/judge.rb", "#{folder}/log", "#{folder}/script"], &:read)
      expect(JSON.parse(output)).to include("faults" => ['no line: "online\t\"b"'])
    end
  end
end
