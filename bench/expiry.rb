# frozen_string_literal: true

# How fast are a million users set offline who expire at once, and how long does that stall a heartbeat?

require_relative "support/bench"
require_relative "support/contenders/timers"
require_relative "support/crowd"
require_relative "support/stall"

# The four ways to be disturbed meanwhile: not at all, and by the threads of Bench::Stall.
COMPANY = {
  "nothing else runs" => [],
  "a thread beats every 1 ms" => %i[now_and_then],
  "a thread beats all the time" => %i[all_the_time],
  "a thread beats every 1 ms, another is busy" => %i[now_and_then busy]
}.freeze

# A crowd that expires, in a process of its own.
class Expiry
  # Nanoseconds for which the stalls without an expiry are measured first.
  CALM = 300_000_000

  # @param crowd [Bench::Crowd]
  # @param company [Array<Symbol>]
  def initialize(crowd, company)
    @crowd = crowd
    @company = company
  end

  # @return [Hash] `calm`: the longest stall of a heartbeat in nanoseconds before the crowd expires; `stall`: the
  #   longest meanwhile (both nil if nobody beats); `rate`: how many a second were set offline; `after`: nanoseconds
  #   from the deadline to the last one, nil if that was not waited for
  def run
    @crowd.gather
    stall = Bench::Stall.new(@company, @crowd.heartbeat)
    GC.start
    calm = stall.during { sleep CALM / 1e9 }
    worst = stall.during { @crowd.expire }
    { calm:, stall: worst, rate: @crowd.departures / ((@crowd.last - @crowd.first) / 1e9),
      after: @crowd.cut_off? ? nil : @crowd.last - @crowd.deadline }
  ensure
    stall&.stop
  end
end

USERS = 1_000_000
# As many as EventMachine comes with room for.
TIMERS = 100_000

CONTENDERS = {
  "OnlineManager, `offline_all`" => [Bench::TogetherCrowd, USERS, COMPANY.keys],
  "OnlineManager, `offline`" => [Bench::OurCrowd, USERS, COMPANY.keys],
  "Hash and Mutex, swept each second" => [Bench::SweptCrowd, USERS, COMPANY.keys.first(2)],
  "an EventMachine timer each" => [Bench::TimerCrowd, TIMERS, COMPANY.keys.first(2)]
}.freeze

REMARKS = <<~TEXT
  The rate is that from the first call of `offline` to the last, or to two seconds after the deadline. A stall is what a
  heartbeat takes beyond its pause: it waits for Ruby's lock while others have it. Beside a busy thread it waits for
  that one too, with or without us (Ruby gives each thread 100 ms); so the longest stall shortly before is shown as well.

  The users have integer ids and one and the same deadline. EventMachine's timers are only as many as it comes with
  room for (100,000).
TEXT

# @return [String] the median of what there is
def duration(results, key)
  values = results.filter_map { |result| result[key] }
  values.none? ? "–" : Bench.duration(Bench.median(values))
end

def row(run, name, company, results)
  %i[rate stall].each do |key|
    values = results.filter_map { |result| result[key] }
    run.figure("#{company}/#{name}/#{key}", Bench.median(values)) unless values.empty?
  end
  rate = Bench.median(results.map { |result| result[:rate] })
  is_cut_off = results.any? { |result| result[:after].nil? }
  [name, Bench.thousands(rate.round), is_cut_off ? "> #{Bench::Crowd::LIMIT} s" : duration(results, :after),
   duration(results, :stall), duration(results, :calm)]
end

Bench.measure("expiry") do |run|
  cases = CONTENDERS.flat_map { |name, (*, companies)| [name].product(companies) }
  samples = run.alternate(cases.to_h { |element| [element, element] }) do |(name, company)|
    crowd, users, = CONTENDERS.fetch(name)
    expiry = -> { Expiry.new(crowd.new(Bench.users(users)), COMPANY.fetch(company)) }
    Bench::Child.open(expiry) { |child| child.call(:run) }
  end

  COMPANY.each_key do |company|
    rows = CONTENDERS.filter_map do |name, (*, companies)|
      row(run, name, company, samples[[name, company]]) if companies.include?(company)
    end
    header = ["expiring by", "users a second", "last one after the deadline", "longest stall", "before"]
    run.table("While #{company}", header, rows, remarks: company == COMPANY.keys.last ? REMARKS : "")
  end
end
