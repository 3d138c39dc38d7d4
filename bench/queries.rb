# frozen_string_literal: true

# What does it cost to ask who is online?

require_relative "support/bench"
require_relative "support/contenders/in_process"
require_relative "support/contenders/redis"

# Times queries. Each contender answers them in its own process.
class Answers
  # The number of `online?` and of `size` calls in one measurement.
  TIMES = 20_000

  # @param ids [Array]
  def initialize(ids)
    @ids = Bench::Ids.as_they_come(ids).cycle.first(TIMES)
    prepare(ids)
    GC.start
  end

  # @return [Float] nanoseconds per call
  def time_online = Bench.time { @ids.each { |id| online?(id) } }.fdiv(@ids.size)

  # @return [Float] nanoseconds per call
  def time_size = Bench.time { TIMES.times { size } }.fdiv(TIMES)

  # @return [Float] nanoseconds per id
  def time_online_users
    users = nil
    Bench.time { users = online_users }.fdiv(users.size)
  end
end

# Queries to the gem.
class OurAnswers < Answers
  def prepare(ids)
    contender = Bench::Ours.new
    contender.prepare(ids)
    @manager = contender.manager
  end

  def online?(id) = @manager.online?(id)
  def size = @manager.size
  def online_users = @manager.online_users
end

# Queries to a Hash under the mutex that heartbeats from several threads need.
class HashAnswers < Answers
  def prepare(ids)
    @mutex = Mutex.new
    @users = ids.to_h { |id| [id, 1] }
  end

  def online?(id) = @mutex.synchronize { @users.key?(id) }
  def size = @mutex.synchronize { @users.size }
  def online_users = @mutex.synchronize { @users.keys }
end

# Queries to a Redis sorted set.
class RedisAnswers < Answers
  # Fewer, since each call is a round trip.
  TIMES = 1_000

  def initialize(server, ids)
    @redis = server.connect
    super(ids)
    @ids = @ids.first(TIMES)
  end

  def prepare(ids)
    @redis.flushall
    ids.each_slice(1_000) { |slice| @redis.zadd("users", slice.map { |id| [1, id.to_s] }) }
  end

  def online?(id) = @redis.zscore("users", id.to_s)
  def size = @redis.zcard("users")
  def online_users = @redis.zrange("users", 0, -1)
end

QUESTIONS = {
  "`online?`" => :time_online, "`size`" => :time_size, "`online_users`, for each id" => :time_online_users
}.freeze

# @return [Hash{Symbol => Hash}] the samples of each contender, by the method that took them
def samples_of(run, contenders)
  children = contenders.transform_values { |maker| Bench::Child.new(&maker) }
  samples = {}
  run.each(QUESTIONS.values) do |method|
    samples[method] = run.alternate(children) { |child| child.call(method) }
  end
  samples
ensure
  children&.each_value(&:close)
end

Bench.measure("queries") do |run|
  Bench::RedisServer.open do |redis|
    run.each(%w[integers UUIDs].product([10_000, 1_000_000])) do |kind, size|
      ids = Bench::Ids.of(kind, Bench.users(size))
      contenders = {
        "OnlineManager" => -> { OurAnswers.new(ids) },
        "Hash and Mutex" => -> { HashAnswers.new(ids) },
        "Redis sorted set" => -> { RedisAnswers.new(redis, ids) }
      }
      samples = samples_of(run, contenders)
      rows = QUESTIONS.map do |question, method|
        [question, *samples[method].values.map { |times| Bench.compared(times, samples[method]["OnlineManager"]) }]
      end
      run.table("#{Bench.thousands(ids.size)} users, #{kind}", ["question", *contenders.keys], rows)
    end
  end
end
