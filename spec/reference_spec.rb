# frozen_string_literal: true

require "eventmachine"
require_relative "support/conformance/schedule"

# Old configs may rely on what 0.0.3 did: it and the gem get the same heartbeats, in one EventMachine reactor.
RSpec.describe Reference do
  # A config that a schedule drives, with the journal of its calls.
  driven = Class.new do
    attr_reader :journal

    # @yieldreturn [Float] the current timeout
    def initialize(bad, &timeout)
      @bad = bad
      @timeout = timeout
      @journal = []
    end

    def timeout = @timeout.call

    def setup(&heartbeat)
      @heartbeat = heartbeat
      :set_up
    end

    def play(heartbeat)
      @raises = heartbeat.raises
      @heartbeat.call(heartbeat.id)
    rescue IOError
      @journal << [:out_of_the_heartbeat, heartbeat.id]
    end

    def online(id)
      @journal << [:online, id, EM.reactor_thread?]
      raise IOError if @raises
    end

    def offline(id)
      @journal << [:offline, id, EM.reactor_thread?]
      raise EOFError, id.inspect if @bad.include?(id)
    end

    # @return [Hash{Object => Array}] the calls for each user, in order
    def by_user
      @journal.group_by { |_, id| id }.transform_values do |calls|
        calls.map do |what, _, *place|
          [what, *place]
        end
      end
    end
  end

  # Plays each schedule to the reference and to the gem, all at the same time.
  #
  # @return [Array] the calls of the reference's configs, those of the gem's, the errors that EM.error_handler got, and
  #   for how many seconds the reactor was blocked at most
  def follow(schedules, driven)
    errors = []
    pairs = nil
    delay = nil
    EM.error_handler { |error| errors << error.message }
    EM.run do
      delay = measure_delay
      pairs = schedules.map { |schedule| set_up(schedule, driven) }
      EM.add_timer(schedules.map(&:ending).max + 0.1) { EM.stop }
    end
    [*pairs.map { |pair| pair.map(&:by_user) }.transpose, errors, delay.call]
  ensure
    EM.error_handler
    OnlineManager.current.stop while OnlineManager.current
  end

  # @return [Array] the reference's config and the gem's
  def set_up(schedule, driven)
    start = Wait.monotonic
    pair = Array.new(2) { driven.new(schedule.bad) { schedule.timeout(Wait.monotonic - start) } }
    expect([Reference.new(pair[0]).setup, OnlineManager.setup(pair[1])]).to eq %i[set_up set_up]
    schedule.heartbeats.each do |heartbeat|
      EM.add_timer(heartbeat.at) do
        pair.shuffle.each do |config|
          config.play(heartbeat)
        end
      end
    end
    pair
  end

  # @return [Proc] returns for how many seconds the reactor has been blocked at most since now
  def measure_delay
    longest = 0
    last = Wait.monotonic
    EM.add_periodic_timer(0.01) do
      now = Wait.monotonic
      longest = [longest, now - last - 0.01].max
      last = now
    end
    -> { longest }
  end

  it "calls the same methods as the gem in the same order for each user", limit: 60 do
    seed = Integer(ENV.fetch("SCHEDULE_SEED") { rand(1 << 32) })
    schedules = nil
    reference, gem, errors = nil
    # On a machine so busy that heartbeats come near their deadlines, the comparison shows nothing.
    (1..10).find do
      schedules = Random.new(seed).then { |random| Array.new(20) { Conformance::Schedule.new(random) } }
      reference, gem, errors, delay = follow(schedules, driven)
      delay < Conformance::Schedule::TOLERANCE
    end or raise "the machine is too busy"

    expect(gem).to eq(reference), lambda {
      number = gem.zip(reference).find_index { |one, other| one != other }
      id = [*gem[number].keys, *reference[number].keys].find { |user| gem[number][user] != reference[number][user] }
      <<~TEXT
        SCHEDULE_SEED=#{seed} brings it about again: in schedule #{number}, for the user #{id.inspect}
          heartbeats at #{schedules[number].heartbeats.select { |heartbeat| heartbeat.id.eql?(id) }.map { |heartbeat| heartbeat.at.round(3) }}
          0.0.3: #{reference[number][id].inspect}
          gem:   #{gem[number][id].inspect}
      TEXT
    }
    # Each error of `offline` came once from the reference, and once from the gem.
    expect(errors.tally.values).to(all(be_even), "SCHEDULE_SEED=#{seed}")
    # The schedules contain what the comparison is about.
    expect(reference.flat_map(&:values).flatten(1).map(&:first).tally.values).to all(be > 30)
  end
end
