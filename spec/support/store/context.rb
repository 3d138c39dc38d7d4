# frozen_string_literal: true

# Applications whose processes share a store.
RSpec.shared_context "with applications on a store" do |kind|
  # Makes an application without a process yet, and ends it after the example.
  #
  # @param store [Object] one of that kind
  # @param settings [Hash] see Stores::Application
  # @return [Stores::Application]
  define_method(:deploy) do |store = kind.new, **settings|
    (@applications ||= []) << application = Stores::Application.new(store, **settings)
    application
  end

  after { @applications&.each(&:close) }

  # @return [Array] so many users, half of them by number and half of them by name
  def users(count, prefix = "user")
    Array.new(count) { |number| number.even? && prefix == "user" ? number : "#{prefix} #{number}" }
  end

  # Has everybody leave, and the judge say that all went as it should.
  #
  # @param sessions [Hash] of users who are not in the crowd, see Stores::Application#judge
  # @return [Stores::Application::Report]
  def expect_good_end(application, sessions = {}, **options)
    report = application.judge({ **application.crowd.finish, **sessions }, **options)
    expect(report.faults).to be_empty
    report
  end
end

# The same on Redis servers of their own.
RSpec.shared_context "with servers of Redis" do
  # After an example what is defined last comes first: applications end before their servers.
  after { @servers&.each(&:stop) }

  include_context "with applications on a store", Stores::Redis

  # Starts a server, and stops it after the example.
  #
  # @param settings [Hash] see Stores::RedisServer
  # @return [Stores::RedisServer]
  def serve(**settings) = keep(Stores::RedisServer.new(**settings)).start

  # Stands between applications and a server.
  #
  # @param server [Stores::RedisServer]
  # @return [Stores::Proxy]
  def stand_before(server, **options) = keep(Stores::Proxy.new(server.port, **options))

  # Stops it after the example.
  def keep(server)
    (@servers ||= []) << server
    server
  end
end
