# frozen_string_literal: true

require "json"
require "rbconfig"

module Stores
  # One process of an application (see support/child/store.rb), that does what it is told.
  class Worker
    # What was asked for has raised there.
    class Raised < StandardError; end

    SCRIPT = File.join(RubyProcess::ROOT, "spec/support/child/store.rb")

    attr_reader :process

    # @param settings [Hash] see support/child/store.rb
    # @param env [Hash{String => String}]
    def initialize(settings, env: {})
      environment = defined?(Bundler) ? Bundler.unbundled_env : ENV.to_h
      @process = RubyProcess.new(
        RbConfig.ruby, "-w", "-r#{RubyProcess::ROOT}/spec/support/child/prelude", "-I#{RubyProcess::ROOT}/lib",
        SCRIPT, JSON.generate(settings), env: environment.merge("LC_ALL" => "C.UTF-8", **env)
      )
      @mutex = Mutex.new
      @asked = 0
      @is_serving = true
    end

    def pid = @process.pid

    # @return [Boolean] whether it gets heartbeats: not when it stands still, has ended, or is about to
    def serving? = @is_serving && @process.status.nil?

    def wait_for(...) = @process.wait_for(...)

    # Runs Ruby code in it, between two heartbeats.
    #
    # @param code [String] with what support/child/store.rb defines
    # @param args [Array] what `args` is in the code
    # @param limit [Numeric] seconds
    # @return what the code answers
    # @raise [Raised] what the code raises
    def ask(code, *args, limit: RubyProcess::LIMIT)
      number = @mutex.synchronize { @asked += 1 }
      write(number:, code:, args: pack(args))
      answer = @process.wait_for(/\A(answers|raises) #{number} (\S*)\z/, limit:)
      value = Marshal.load(answer[2].unpack1("m0")) # rubocop:disable Security/MarshalLoad -- our own child's
      answer[1] == "answers" ? value : raise(Raised, value)
    end

    # Heartbeats of these users, if it can be reached.
    def send_heartbeats(users)
      write(heartbeats: users)
    rescue Errno::EPIPE, IOError
      nil # killed in between
    end

    def lease_holder? = ask("manager.stats[:owner]")

    # Has it end by itself.
    #
    # @param signal [Symbol, nil] nil lets its script come to its end
    def finish(signal = nil)
      @is_serving = false
      signal ? @process.signal(signal) : @process.close
      @process.finish
    end

    def kill = @process.kill

    # It gets no heartbeats from now on.
    def stop_serving = @is_serving = false

    # Has it stand still.
    def pause
      stop_serving
      @process.signal(:STOP)
    end

    # Has it go on.
    #
    # @param serving [Boolean] whether it gets heartbeats then
    # @return [Boolean] the same
    def resume(serving: true)
      @process.signal(:CONT)
      @is_serving = serving
    end

    private

    def pack(args) = [Marshal.dump(args)].pack("m0")

    def write(request)
      line = JSON.generate(request)
      @mutex.synchronize { @process.puts(line) }
    end
  end
end
