# frozen_string_literal: true

# An application whose memory runs out. Its callbacks go into a queue.

require "online_manager"
require "tmpdir"

# A config with a callback for each user.
class Config
  attr_reader :calls

  def initialize = @calls = Thread::Queue.new
  def timeout = 60
  def setup(&heartbeat) = @heartbeat = heartbeat
  def online(user_id) = note(:online, [user_id])
  def offline(user_id) = note(:offline, [user_id])
  def on_error(*) = nil
  def note(callback, user_ids) = user_ids.each { |user_id| calls << [callback, user_id] }

  # Takes the calls so far.
  def take = Array.new(calls.size) { calls.pop }
end

# A config with the `_all` callbacks.
class ConfigOfMany < Config
  def online_all(user_ids) = note(:online, user_ids)
  def offline_all(user_ids) = note(:offline, user_ids)
end

# The error ends the reactor's thread, and another one takes its place.
Thread.report_on_exception = false

def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

# Waits for 10 s at most.
def wait_until
  limit = now + 10
  sleep 0.002 until yield || now > limit
end

def start(config, **options)
  OnlineManager.new(config, reactor: :thread, **options).tap(&:setup)
end

# Calls the block, and again if there was no memory: a user who was not announced comes online with the next heartbeat.
def again_without_memory
  yield
rescue NoMemoryError
  retry
end
