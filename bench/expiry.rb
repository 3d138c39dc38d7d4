# frozen_string_literal: true

# How fast are a million users set offline when all expire at once, and how long does that stall a heartbeat?

require_relative "support/bench"
require_relative "support/contenders/timers"
require_relative "support/crowd"
require_relative "support/stall"

# The threads that run beside the expiry, by row title: methods of Bench::Stall.
BACKGROUND_LOADS = {
  "nothing else runs" => [],
  "a thread sends a heartbeat every 1 ms" => %i[every_millisecond],
  "a thread sends heartbeats all the time" => %i[continuously],
  "a thread sends a heartbeat every 1 ms, another is busy" => %i[every_millisecond busy]
}.freeze

# A crowd of users that expires, in its own process.
class Expiry
  # How long stalls are measured before the expiry, for comparison, in nanoseconds.
  BASELINE = 300_000_000

  # @param crowd [Bench::Crowd]
  # @param background [Array<Symbol>] see Bench::Stall
  def initialize(crowd, background)
    @crowd = crowd
    @background = background
  end

  # @return [Hash] `baseline`: the longest stall of a heartbeat before the crowd expires, in nanoseconds; `stall`: the
  #   longest stall during the expiry (both nil without background heartbeats); `rate`: users set offline per second;
  #   `after`: nanoseconds from the deadline to the last `offline`, nil if the run was cut off before it
  def run
    @crowd.gather
    stall = Bench::Stall.new(@background, @crowd.heartbeat)
    GC.start
    baseline = stall.during { sleep BASELINE / 1e9 }
    worst = stall.during { @crowd.expire }
    { baseline:, stall: worst, rate: @crowd.departures / ((@crowd.last - @crowd.first) / 1e9),
      after: @crowd.cut_off? ? nil : @crowd.last - @crowd.deadline }
  ensure
    stall&.stop
  end
end

USERS = 1_000_000
# EventMachine's default limit of timers.
TIMERS = 100_000

CONTENDERS = {
  "OnlineManager, `offline_all`" => [Bench::TogetherCrowd, USERS, BACKGROUND_LOADS.keys],
  "OnlineManager, `offline`" => [Bench::OurCrowd, USERS, BACKGROUND_LOADS.keys],
  "Hash and Mutex, swept each second" => [Bench::SweptCrowd, USERS, BACKGROUND_LOADS.keys.first(2)],
  "an EventMachine timer each" => [Bench::TimerCrowd, TIMERS, BACKGROUND_LOADS.keys.first(2)]
}.freeze

REMARKS = <<~TEXT
  The rate is that from the first call of `offline` to the last, or to two seconds after the deadline. A stall is what a
  heartbeat takes beyond its pause: it waits for Ruby's lock while others have it. Beside a busy thread it waits for
  that one too, with or without us (Ruby gives each thread 100 ms); so the longest stall shortly before is shown as well.

  The users have integer ids and one and the same deadline. EventMachine's timers are only as many as it comes with
  room for (100,000).
TEXT

# @return [String] the median of the samples that exist
def duration(results, key)
  values = results.filter_map { |result| result[key] }
  values.none? ? "–" : Bench.duration(Bench.median(values))
end

def row(run, name, background, results)
  %i[rate stall].each do |key|
    values = results.filter_map { |result| result[key] }
    run.figure("#{background}/#{name}/#{key}", Bench.median(values)) unless values.empty?
  end
  rate = Bench.median(results.map { |result| result[:rate] })
  is_cut_off = results.any? { |result| result[:after].nil? }
  [name, Bench.thousands(rate.round), is_cut_off ? "> #{Bench::Crowd::LIMIT} s" : duration(results, :after),
   duration(results, :stall), duration(results, :baseline)]
end

Bench.measure("expiry") do |run|
  cases = CONTENDERS.flat_map { |name, (*, backgrounds)| [name].product(backgrounds) }
  samples = run.alternate(cases.to_h { |element| [element, element] }) do |(name, background)|
    crowd, users, = CONTENDERS.fetch(name)
    expiry = -> { Expiry.new(crowd.new(Bench.users(users)), BACKGROUND_LOADS.fetch(background)) }
    Bench::Child.open(expiry) { |child| child.call(:run) }
  end

  BACKGROUND_LOADS.each_key do |background|
    rows = CONTENDERS.filter_map do |name, (*, backgrounds)|
      row(run, name, background, samples[[name, background]]) if backgrounds.include?(background)
    end
    header = ["expiring by", "users a second", "last one after the deadline", "longest stall", "before"]
    run.table("While #{background}", header, rows, remarks: background == BACKGROUND_LOADS.keys.last ? REMARKS : "")
  end
end
