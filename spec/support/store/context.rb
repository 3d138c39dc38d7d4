# frozen_string_literal: true

# Applications whose processes share a store.
RSpec.shared_context "with applications on a store" do |kind|
  # Makes an application without processes, and ends it after the example.
  #
  # @param store [Object] of the kind
  # @param settings [Hash] see Stores::Application
  # @return [Stores::Application]
  define_method(:deploy) do |store = kind.new, **settings|
    (@applications ||= []) << application = Stores::Application.new(store, **settings)
    application
  end

  after { @applications&.each(&:close) }

  # @return [Array] users, half of them with integer ids and half of them with strings
  def users(count, prefix = "user")
    Array.new(count) { |number| number.even? && prefix == "user" ? number : "#{prefix} #{number}" }
  end

  # Lets everybody go offline, and expects that the judge finds no fault.
  #
  # @param sessions [Hash] the sessions of users who are not in the crowd, see Stores::Application#judge
  # @return [Stores::Application::Report]
  def expect_good_end(application, sessions = {}, **options)
    report = application.judge({ **application.crowd.finish, **sessions }, **options)
    expect(report.faults).to be_empty
    report
  end
end

# The same with Redis servers of their own.
RSpec.shared_context "with servers of Redis" do
  # RSpec runs the last `after` first: applications end before their servers.
  after { @servers&.each(&:stop) }

  include_context "with applications on a store", Stores::Redis

  # Starts a server, and stops it after the example.
  #
  # @param settings [Hash] see Stores::RedisServer
  # @return [Stores::RedisServer]
  def serve(**settings) = stop_later(Stores::RedisServer.new(**settings)).start

  # Starts a proxy between applications and a server, and stops it after the example.
  #
  # @param server [Stores::RedisServer]
  # @return [Stores::Proxy]
  def start_proxy(server, **options) = stop_later(Stores::Proxy.new(server.port, **options))

  # Stops the server or proxy after the example.
  def stop_later(server)
    (@servers ||= []) << server
    server
  end
end
