# frozen_string_literal: true

require_relative "redis"

module Stores
  # A server of Valkey.
  class ValkeyServer < RedisServer
    PROGRAM = "valkey-server"
    SCHEME = "valkey"
  end

  # A namespace of its own on a Valkey server.
  class Valkey < Redis
    def self.to_s = "Valkey"

    # @return [Array<Class>] this class, or nothing where Valkey is missing, as on Debian 12
    def self.if_installed = system("valkey-server", "--version", out: File::NULL) ? [self] : []

    def initialize(server = ValkeyServer.common, **options) = super
  end
end

RSpec.configure do |config|
  config.after(:suite) { Stores::ValkeyServer.stop_common }
end
