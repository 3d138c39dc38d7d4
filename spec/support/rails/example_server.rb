# frozen_string_literal: true

require_relative "visitor"

# The example application in Puma, on its own port.
class ExampleServer
  BOOTED = /Worker (?<index>\d+) \(PID: (?<pid>\d+)\) booted/
  private_constant :BOOTED

  attr_reader :process, :port

  # @param app [ExampleApp]
  # @param workers [Integer] 0 for a single process
  # @param env [Hash{String => String}]
  def initialize(app, workers:, env:)
    @app = app
    @count = workers
    @process = RubyProcess.new("bundle", "exec", "puma", "--config", "config/puma.rb", "--bind", "tcp://127.0.0.1:0",
                               chdir: app.folder, env:)
    @visitors = []
  end

  # @return [self]
  def wait_until_booted
    @port = Integer(process.wait_for(%r{Listening on http://127\.0\.0\.1:(\d+)}, limit: ExampleApp::LIMIT)[1])
    process.wait_for(/Use Ctrl-C to stop\z/, limit: ExampleApp::LIMIT)
    wait_for_workers(@count) unless @count.zero?
    self
  end

  # Waits until workers have booted.
  #
  # @param count [Integer] the number of workers that have booted since the server was started
  def wait_for_workers(count)
    process.wait_for(BOOTED, count:, limit: ExampleApp::LIMIT)
  end

  # @return [Array<Integer>] the pids that serve requests: the workers, or the only process
  def pids
    return [process.pid] if @count.zero?

    booted = process.lines.filter_map { |line| BOOTED.match(line) }
    booted.to_h { |match| [match[:index], match[:pid].to_i] }.values
  end

  # @return [String] the URL for a browser
  def url = "http://127.0.0.1:#{port}"

  # @param name [String]
  # @return [Visitor] a visitor who has logged in
  def visitor(name)
    @visitors << Visitor.new(self, name)
    @visitors.last
  end

  # Adds visitors until each worker has the socket of one: a socket ends up in a random worker.
  #
  # @param prefix [String] of their names
  # @return [Array<Visitor>] each with a subscription
  def visitors_everywhere(prefix)
    here = []
    before = @app.log.bytesize
    until here.size >= 3 && pids.all? { |pid| @app.log.byteslice(before..).match?(%r{##{pid}\].*Started GET "/cable}) }
      raise "no worker but #{here.size} visitors' has got a socket" if here.size > 50

      here << visitor("#{prefix}#{here.size}").tap(&:cable)
    end
    here
  end

  # Closes the visitors' sockets.
  def dismiss
    @visitors.each(&:close)
    @visitors.clear
  end

  def signal(name) = process.signal(name)

  # @return [self] after it has ended
  def finish
    process.finish(limit: ExampleApp::LIMIT)
    self
  end

  def kill
    dismiss
  ensure
    process.kill
  end
end
