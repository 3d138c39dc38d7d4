# frozen_string_literal: true

require_relative "copy"
require_relative "examples"
require_relative "guard"

# Proof that the specs can fail: takes away, one at a time, lines that guard against something, and sees whether an
# example misses them.
module Guards
  # What keeps an example from showing anything.
  class Error < StandardError; end

  # One guard taken away: whether its example missed it, or what went wrong; what the example said; how long it took.
  Result = Struct.new(:guard, :outcome, :says, :seconds) do
    def missed? = outcome == "missed"
  end

  # The trial of many guards on one copy.
  class Trial
    # @param copy [Copy]
    # @param guards [Array<Guard>]
    def initialize(copy, guards)
      @copy = copy
      @examples = Examples.new(copy)
      # Those for which the extension is built come last, so that the others meet it as it should be.
      @guards = guards.partition { |guard| !guard.extension? }.flatten
    end

    # Runs all the examples with every guard in its place.
    #
    # @raise [Trouble] if one does not pass
    def check
      raise Error, "the copy does not build:\n#{@copy.log}" unless @copy.compile

      endings = @examples.run(@guards, limit: Examples::LIMIT + (5 * @guards.size))
      bad = endings.reject { |_, ending| ending.state == :passed }
      return if bad.empty?

      says = bad.map { |guard, ending| "#{guard.spec}: #{guard.example}\n#{ending.says}" }.uniq
      raise Error, "with every guard in its place these do not pass:\n#{says.join("\n\n")}"
    end

    # Takes the guards away, one at a time.
    #
    # @yieldparam guard [Guard] the next one
    # @return [Array<Result>]
    def run
      @guards.map do |guard|
        yield guard
        start = now
        ending = take_away(guard)
        outcome = { passed: "NOT MISSED", failed: "missed", missing: "NOT RUN" }.fetch(ending.state)
        Result.new(guard, outcome, ending.says, now - start)
      rescue Error => e
        Result.new(guard, e.message.upcase, @copy.log, now - start)
      end
    end

    private

    # @return [Examples::Ending] of the guard's example
    def take_away(guard)
      guard.apply(Copy::ROOT) do
        raise Error, "is no Ruby" if guard.file.end_with?(".rb") && !@copy.ruby?(guard.file)
        raise Error, "does not build" if guard.extension? && !@copy.compile

        @examples.run([guard]).fetch(guard)
      end
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
