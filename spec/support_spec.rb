# frozen_string_literal: true

require "tempfile"

# The helpers of the other specs. A helper that lets everything pass would not fail any other spec.
RSpec.describe "spec/support" do
  def fail_with(*texts) = raise_error(RSpec::Expectations::ExpectationNotMetError, include(*texts))

  describe Wait do
    it "waits until a condition is met and returns its value" do
      answers = [nil, false, 7]

      expect(wait_until { answers.shift }).to eq 7
    end

    it "gives up after a limit" do
      expect { wait_until(limit: 0.02) { false } }.to fail_with(__FILE__)
    end

    it "waits until expectations hold or fails with the last failure" do
      counts = [1, 2, 3]

      eventually { expect(counts.shift).to eq 3 }
      expect { eventually(limit: 0.02) { expect(4).to eq 3 } }.to fail_with("got: 4")
    end

    it "fails when an expectation does not hold throughout" do
      counts = [1, 1, 2]

      throughout(0.02) { expect(1).to eq 1 }
      expect { throughout(5) { expect(counts.shift).to eq 1 } }.to fail_with("got: 2")
    end
  end

  describe TimeLimit do
    it "ends a hanging block and shows where each thread is" do
      thread = Thread.new { Thread.stop }
      thread.name = "idle"

      expect { TimeLimit.enforce(0.05) { Thread.stop } }.to raise_error(TimeLimit::Exceeded) { |error|
        expect(error.message).to match(/not done within 0.05 s.*#{File.basename(__FILE__)}.*Thread:\S*@idle/m)
      }
    ensure
      thread.kill
    end

    it "fails an example" do
      Tempfile.create(["hanging", "_spec.rb"]) do |file|
        file.write('RSpec.describe("x") { it("hangs", limit: 0.1) { Thread.stop } }')
        file.close

        process = ruby('require "rspec/core"; RSpec::Core::Runner.invoke', "-I", "spec", file.path, bundled: true)
        expect(process.stdout).to include("not done within 0.1 s", "1 example, 1 failure")
        expect(process.status.exitstatus).to eq 1
      end
    end
  end

  describe OwnWarnings do
    it "raises warnings about our lib and drops warnings about gems" do
      expect { Warning.warn("#{OwnWarnings::LIB}/x.rb:1: warning: unused\n") }.to raise_error(/x.rb:1: warning: unused/)
      expect { Warning.warn("#{Gem.path.first}/gems/x.rb:1: warning: unused\n") }.not_to output.to_stderr
      expect { warn "lib/x.rb is fine" }.to output(/fine/).to_stderr
    end
  end

  describe RubyProcess do
    it "collects the output and the exit status of a script" do
      process = ruby('puts "one", ARGV; warn "zwölf"; exit 3', "argument")

      expect(process.lines).to eq %w[one argument]
      expect(process.stderr).to eq "zwölf\n"
      expect(process.status.exitstatus).to eq 3
      expect(process).not_to be_success
    end

    it "talks to the script while it runs" do
      process = ruby(<<~RUBY) do |child|
        trap(:INT) { puts "interrupted" }
        puts "ready", "ready", "port 1234"
        puts gets
        exit!(0)
      RUBY
        child.wait_for("ready", count: 2)
        expect(child.wait_for(/port (\d+)/)[1]).to eq "1234"
        expect(child.status).to be_nil
        child.signal(:INT)
        child.wait_for("interrupted")
        child.puts("bye")
      end

      expect(process.lines.last).to eq "bye"
      expect(process).to be_success
    end

    it "reports what a process printed instead of the awaited line" do
      expect { ruby('warn "oops"') { |process| process.wait_for("ready") } }
        .to fail_with('printed no "ready"', "exit 0", "oops")
      expect { ruby("gets") { |process| process.wait_for("ready", limit: 0.01) } }
        .to fail_with("within 0.01 s", "still runs")
    end

    it "kills a process that does not end and the processes that it forked" do
      child = nil
      run = lambda do
        ruby("fork { puts Process.pid; gets }; puts Process.pid; gets", limit: 0.01) do |process|
          child = process
          process.wait_for(/\d/, count: 2)
        end
      end

      expect(&run).to fail_with("did not end within 0.01 s")
      expect(child.finish.status.termsig).to eq Signal.list["KILL"] # and the output that both held is closed
    end

    it "runs a script outside our bundle, unless asked" do
      script = 'puts Gem.loaded_specs.key?("eventmachine")'

      expect(ruby(script).lines).to eq ["false"]
      expect(ruby(script, bundled: true).lines).to eq ["true"]
    end
  end
end
