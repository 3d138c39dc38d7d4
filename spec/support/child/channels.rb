# frozen_string_literal: true

# The child process of spec/rails/channel_spec.rb. Loads ActionCable and our gem once, then runs each script that
# arrives on stdin, a line of JSON, in a fork, and prints the result.

require "json"
require "rails"
require "action_controller/railtie"
require "action_cable/engine"
require "action_cable/channel/test_case"
require "online_manager"

$stdout.sync = true

# Its folder is the working directory, and it is never initialized.
class Application < Rails::Application
  config.root = Dir.pwd
end

# Records its callbacks.
class Config
  attr_accessor :timeout
  attr_reader :calls

  def initialize(timeout)
    @timeout = timeout
    @calls = []
  end

  def setup = nil
  def online(user) = @calls << [:online, user]
  def offline(user) = @calls << [:offline, user]
end

# @return [Config] the config of the manager that runs from now on
def set_up(timeout = 3, config: Config.new(timeout), **options)
  OnlineManager.setup(config, reactor: :thread, **options)
  config
end

# ActionCable's connection for tests, plus what it lacks of a real one.
class Connection < ActionCable::Channel::ConnectionStub
  include ActiveSupport::Rescuable

  # @return [String] the log so far
  def log = @log.string

  def initialize(...)
    super
    @logger = Logger.new(@log = StringIO.new)
  end
end

# @param superclass [Class]
# @return [Class] a channel
def channel(superclass = ActionCable::Channel::Base, &block)
  Class.new(superclass) do
    %i[name to_s].each { |method| define_singleton_method(method) { "ChatChannel" } }
    include OnlineManager::Channel
    class_exec(&block) if block
  end
end

# @return [ActionCable::Channel::TestCase] which can `subscribe`, `perform` and `unsubscribe`
def client(channel, connection = Connection.new, **identifiers)
  connection = Connection.new(identifiers) unless identifiers.empty?
  Class.new(ActionCable::Channel::TestCase) { tests channel }.new("client").tap do |test|
    test.instance_variable_set(:@connection, connection)
  end
end

# A subscription as AnyCable serves it: each command gets a channel object of its own.
class FreshObjects
  attr_reader :connection

  def initialize(channel, connection = Connection.new)
    @channel = channel
    @connection = connection
  end

  def subscribe = fresh.subscribe_to_channel
  def perform(action) = fresh.perform_action("action" => action.to_s)
  def unsubscribe = fresh.unsubscribe_from_channel
  def transmissions = connection.transmissions.filter_map { |transmission| transmission["message"] }

  private

  def fresh = @channel.new(connection, "{}", {}.with_indifferent_access)
end

# @return [String, nil] class and message of the block's error; nil if it raises none
def error_of
  yield
  nil
rescue StandardError => e
  "#{e.class}: #{e.message}"
end

# Waits until the block returns true.
#
# @return [Float] the seconds that it took
def wait
  started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  sleep 0.005 until yield
  Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
end

puts "ready"
while (line = gets)
  pid = fork do
    puts JSON.generate(result: eval(JSON.parse(line), TOPLEVEL_BINDING, "script")) # rubocop:disable Security/Eval
  rescue Exception => e # rubocop:disable Lint/RescueException -- the example reports it, whatever it is
    puts JSON.generate(error: e.full_message(highlight: false))
  ensure
    exit!
  end
  Process.wait(pid)
end
