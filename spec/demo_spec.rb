# frozen_string_literal: true

require "net/http"
require "socket"

# The demo as people run it. demo_judge_spec.rb covers its judge.
RSpec.describe "bin/demo", limit: 90 do
  # The demo builds what is missing, and spec/gem_spec.rb may have removed build output.
  before(:context) do
    build = command("bundle", "exec", "rake", "compile", limit: 300)
    expect(build).to be_success, build.stdout + build.stderr
  end

  # Runs the demo; yields the process and the pid of its clients' process when all three clients are online.
  def demo
    process = command("bin/demo", limit: 30) do |demo|
      @clients = Integer(demo.wait_for(/another process \((\d+)\)/, limit: 60)[1])
      demo.wait_for(/ online /, count: 3)
      yield demo, @clients if block_given?
    end
    expect { Process.kill(0, @clients) }.to raise_error(Errno::ESRCH)
    process
  end

  it "ends by itself with each transition once" do
    process = demo
    expect(process.stdout.scan(/ s  (\w+) +(online|offline) /))
      .to match_array(%w[ada ben cleo].product(%w[online offline]))
    expect(process.lines.last).to end_with "6 transitions out: each came once, and none early."
    expect(process).to be_success
  end

  it "fails and names the step when the clients' process ends early" do
    process = demo { |_, clients| Process.kill(:KILL, clients) }
    expect(process.stderr)
      .to match(/failed while watching the transitions: the clients' process ended by itself: .*SIGKILL/)
    expect(process.status.exitstatus).to eq 1
  end

  %w[INT TERM].each do |signal|
    it "sets everyone offline on SIG#{signal}" do
      process = demo do |demo, _|
        # A signal in the middle of an `online` aborts it, and that user then has no `offline`.
        demo.wait_for(/goes silent/)
        demo.signal(signal)
      end
      expect(process.stdout.scan(/ s  (\w+) +offline /).flatten).to contain_exactly("ada", "ben", "cleo")
      expect(process.status.exitstatus).to eq 128 + Signal.list.fetch(signal)
    end
  end

  it "lists its options and refuses others" do
    expect(command("bin/demo", "--help").stdout).to include("--serve", "--port N")
    process = command("bin/demo", "--port", "many")
    expect(process.stderr).to include("many")
    expect(process.status.exitstatus).to eq 2
  end

  describe "--serve" do
    # A tab without its browser: sends one heartbeat and prints what the server pushes.
    tab = <<~RUBY
      require "faye/websocket"

      EM.run do
        socket = Faye::WebSocket::Client.new("ws://127.0.0.1:\#{ARGV.first}/?user=ada")
        socket.on(:open) { socket.send("heartbeat") }
        socket.on(:message) { |event| puts event.data }
        socket.on(:close) { EM.stop }
      end
    RUBY

    it "serves the page, pushes the online users and sets everyone offline on Ctrl-C" do
      process = command("bin/demo", "--serve", "--port", "0", limit: 30) do |server|
        port = server.wait_for(%r{http://127.0.0.1:(\d+)/}, limit: 60)[1]
        expect(Net::HTTP.get("127.0.0.1", "/", port)).to start_with("<!DOCTYPE html>")
        ruby(tab, port, bundled: true) do |client|
          client.wait_for('{"user":"ada","state":"online","online":["ada"]}')
          server.signal(:INT)
        end
      end

      expect(process.stdout).to match(/ada online .* ada offline .* everyone is offline/m)
      expect(process).to be_success
    end

    it "prints an error when the port is taken" do
      listener = TCPServer.new("127.0.0.1", 0)
      process = command("bin/demo", "--serve", "--port", listener.addr[1].to_s, limit: 60)
      expect(process.stderr).to include("port #{listener.addr[1]} is taken")
      expect(process.status.exitstatus).to eq 1
    ensure
      listener.close
    end
  end
end
