# frozen_string_literal: true

# Applications in their own processes, and the expectations on how they end.
RSpec.shared_context "with ways out" do
  # Runs a script with Application (support/child/application.rb).
  def application(script, reactor, **options, &block)
    ruby("require \"./spec/support/child/application\"\n#{script}", reactor.to_s, bundled: true, **options, &block)
  end

  # Runs a script and sends a signal when everybody is online. With a fiber scheduler, only when the reactor is idle
  # too: a signal that interrupts nio4r while it takes its lock leaves the lock taken, and Async ends with a ThreadError
  # instead.
  def signalled(name, script, reactor, **options)
    script = "Application.announce_idle\n#{script}" if reactor == :fiber
    application(script, reactor, **options) do |child|
      child.wait_for(reactor == :fiber ? "idle" : "ready")
      child.signal(name)
      yield child if block_given?
    end
  end

  # @return [Array] the users who were set online or offline, in order
  def transitions(process, kind) = process.lines.filter_map { |line| line[/\A#{kind} (\d+)\z/, 1]&.to_i }

  # @param prints [String, nil] the last line of its output, if it is no transition
  # @param says [Regexp, nil] a match in its standard error; nil if that must be empty
  # @param status [Hash] attributes of its Process::Status
  def expect_end(process, prints: nil, says: nil, **status)
    expect(process.lines.last).to eq(prints) if prints
    expect(process.stderr).to says ? match(says) : be_empty
    expect(process.status).to have_attributes(**status)
  end

  # @param name [String] how it ends
  # @param script [String]
  # @param signal [Symbol, nil] the signal to send when everybody is online
  # @param offline [Array] the users who are set offline
  # @param ending [Hash] see {#expect_end}
  def self.it_ends_well(name, script, reactor, signal: nil, offline: [1, 2, 3], **ending)
    it "sets everybody offline once: #{name}" do
      process = if signal
                  signalled(signal, script, reactor, limit: 5)
                else
                  application(script, reactor, limit: 5) { |child| child.wait_for("online 3") }
                end

      expect(transitions(process, "online")).to eq [1, 2, 3]
      expect(transitions(process, "offline")).to match_array(offline)
      expect_end(process, **ending)
    end
  end
end
