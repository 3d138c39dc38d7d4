# frozen_string_literal: true

class OnlineManager
  # Converts seconds, as callers pass them, into the tracker's nanoseconds.
  #
  # @private
  module Seconds
    # The largest duration, 292 years: what fits into a signed 64-bit integer. Longer ones are cut to it.
    MAX_NANOSECONDS = (2**63) - 1

    module_function

    # @param value [Object] seconds: whatever Kernel#Float takes, finite and above 0
    # @param name [String] the argument's name, for the message
    # @param or_zero [Boolean] whether 0 is allowed
    # @return [Integer] nanoseconds, at least 1 unless the value is 0
    # @raise [TypeError] if the value is of a class that Kernel#Float does not take
    # @raise [ArgumentError] if it is a String without a number, not finite, negative or 0
    def nanoseconds(value, name, or_zero: false)
      seconds = Float(value)
      raise ArgumentError unless seconds.finite? && (seconds.positive? || (or_zero && seconds.zero?))

      seconds.zero? ? 0 : (seconds * 1_000_000_000).clamp(1, MAX_NANOSECONDS).to_i
    rescue TypeError, ArgumentError, RangeError, Encoding::CompatibilityError => e # the last one in Ruby 3.3, of UTF-16
      kind = e.is_a?(TypeError) ? TypeError : ArgumentError
      expected = or_zero ? "a finite number of seconds, 0 or more" : "a finite number of seconds above 0"
      raise kind, "#{name} must be #{expected}, got #{StoreOption.shown(value)}", cause: nil
    end
  end
end
