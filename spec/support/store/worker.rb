# frozen_string_literal: true

require "json"
require "rbconfig"

module Stores
  # One process of an application (see support/child/store.rb), which executes commands.
  class Worker
    # The code that the process was asked to run raised.
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

    # @return [Boolean] whether it gets heartbeats: not while it is paused, nor once it has ended or is about to end
    def serving? = @is_serving && @process.status.nil?

    def wait_for(...) = @process.wait_for(...)

    # Runs Ruby code in the process, between two heartbeats.
    #
    # @param code [String] may call what support/child/store.rb defines
    # @param args [Array] the value of `args` in the code
    # @param limit [Numeric] seconds
    # @return what the code returns
    # @raise [Raised] what the code raises
    def ask(code, *args, limit: RubyProcess::LIMIT)
      number = @mutex.synchronize { @asked += 1 }
      write(number:, code:, args: pack(args))
      answer = @process.wait_for(/\A(answers|raises) #{number} (\S*)\z/, limit:)
      value = Marshal.load(answer[2].unpack1("m0")) # rubocop:disable Security/MarshalLoad -- from our own child
      answer[1] == "answers" ? value : raise(Raised, value)
    end

    # Sends heartbeats of these users, if the process is alive.
    def send_heartbeats(users)
      write(heartbeats: users)
    rescue Errno::EPIPE, IOError
      nil # killed meanwhile
    end

    def lease_holder? = ask("manager.stats[:owner]")

    # Lets the process end by itself.
    #
    # @param signal [Symbol, nil] nil closes its stdin, which ends its script
    def finish(signal = nil)
      @is_serving = false
      signal ? @process.signal(signal) : @process.close
      @process.finish
    end

    def kill = @process.kill

    # Sends it no heartbeats from now on.
    def stop_serving = @is_serving = false

    # Pauses the process with SIGSTOP.
    def pause
      stop_serving
      @process.signal(:STOP)
    end

    # Resumes the process.
    #
    # @param serving [Boolean] whether it gets heartbeats again
    # @return [Boolean] `serving`
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
