# frozen_string_literal: true

require_relative "copy"
require_relative "examples"
require_relative "guard"

# Proof that the specs can fail: removes guards one at a time, and checks that an example fails without each.
module Guards
  # A problem that keeps an example from showing anything.
  class Error < StandardError; end

  # The trial of one guard: whether its example failed, or what went wrong; the failure's message; the seconds it took.
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
      # Guards for which the extension is rebuilt come last, so that the others run with an unchanged extension.
      @guards = guards.partition { |guard| !guard.extension? }.flatten
    end

    # Runs all examples with every guard in place.
    #
    # @raise [Error] if an example does not pass
    def check
      raise Error, "the copy does not build:\n#{@copy.log}" unless @copy.compile

      endings = @examples.run(@guards, limit: Examples::LIMIT + (5 * @guards.size))
      bad = endings.reject { |_, ending| ending.state == :passed }
      return if bad.empty?

      says = bad.map { |guard, ending| "#{guard.spec}: #{guard.example}\n#{ending.says}" }.uniq
      raise Error, "with every guard in its place these do not pass:\n#{says.join("\n\n")}"
    end

    # Removes the guards, one at a time.
    #
    # @yieldparam guard [Guard] the next guard
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

    # @return [Examples::Ending] how the guard's example ended
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
