# frozen_string_literal: true

module Fuzz
  # Marks the exceptions that a hostile object or a callback raises.
  module Raised; end

  # An error that a bare `rescue` catches.
  class HostileError < StandardError
    include Raised
  end

  # An error that only `rescue Exception` catches.
  class HostileException < Exception # rubocop:disable Lint/InheritException -- that is the point
    include Raised
  end

  # Knows which exceptions the API may raise, and ends the process at the first other one.
  module Judge
    DOCUMENTED = {
      ArgumentError => [
        /\Awrong number of arguments \(given \d+/, /\A(unknown|missing) keywords?: /, /\Ano keywords accepted/,
        /\A(timeout|after|Fuzz::[\w:]+#timeout) must be a finite number of seconds/,
        /\Aunknown (option|reactor|store) /, /\Athe store .* (names no file|is no URL|has a )/,
        /\Athe store is an empty/,
        /\Anamespace must be a String or a Symbol/, / has no method `/,
        /\ACan't create Binding/, /\Awrong number of arguments \(\d+ for/
      ],
      TypeError => [
        /\A(timeout|after|Fuzz::[\w:]+#timeout) must be a finite number of seconds/, /\Auser_ids must be an Array/,
        # What a Hash raises for an object whose `hash` returns such a value.
        /\A(can't convert|no implicit conversion of) .* (in)?to (Integer|Array)/,
        /\Acan't iterate from/, /\Ano _dump_data is defined/
      ],
      OnlineManager::Error => [
        /already running/, /has been stopped/, /needs a fiber scheduler/, /no EventMachine reactor/
      ],
      RangeError => [/\Acannot convert endless range to an array/],
      NameError => [/\A(uninitialized constant|wrong constant name) /]
    }.freeze
    FILE = File.open(ENV.fetch("FUZZ_AT", File::NULL), "w")
    private_constant :DOCUMENTED, :FILE

    @mutex = Mutex.new
    @exceptions = Hash.new(0)

    class << self
      # @return [Hash{Class => Integer}]
      attr_reader :exceptions

      # Writes which case a thread is in, so that it is known after a crash or a hang.
      def at(number, thread)
        Thread.current.thread_variable_set(:case, number)
        Thread.current.thread_variable_set(:raised, [])
        FILE.pwrite(format("%-11d\n", number), thread * 12)
      end

      # Raises an exception that only the current case may end with.
      def boom(*)
        error = [HostileError, HostileError, HostileException].sample.new
        Thread.current.thread_variable_get(:raised)&.push(error)
        raise error
      end

      def exception(error)
        fail("an exception", error) unless raised_here?(error) || documented?(error) || basic_object?(error)

        @mutex.synchronize { @exceptions[error.class] += 1 }
      end

      def demand(holds, what)
        fail(what, RuntimeError.new(what).tap { |error| error.set_backtrace(caller) }) unless holds
      end

      def fail(what, error)
        number = Thread.current.thread_variable_get(:case)
        $stderr.write("FUZZ_SEED=#{SEED} FUZZ_CASES=#{CASES}, case #{number}: #{what}\n" \
                      "#{error.full_message(highlight: false)}\n")
        exit!(1)
      end

      private

      def raised_here?(error)
        # What Ruby raises for a `throw` in a fiber without a `catch`.
        return true if error.is_a?(UncaughtThrowError) && error.tag == :fuzz

        raised = Thread.current.thread_variable_get(:raised)
        # No case runs on the reactor.
        raised ? raised.any? { |candidate| candidate.equal?(error) } : error.is_a?(Raised)
      end

      def documented?(error)
        DOCUMENTED.any? do |kind, messages|
          error.instance_of?(kind) && messages.any? { |message| message.match?(error.message.b) }
        end
      end

      # A BasicObject has neither `hash` nor `inspect`.
      def basic_object?(error)
        error.instance_of?(NoMethodError) && !(Object === error.receiver) # rubocop:disable Style/CaseEquality
      end
    end
  end
end
