# frozen_string_literal: true

module Conformance
  # A config that writes down what is called of it, where and when.
  #
  #   config = Conformance::Config.new(timeout: 0.1, offline: ->(id) { raise "oops" if id == 7 })
  #   …
  #   config.calls   # => [[:online, 7], [:offline, 7]]
  class Config
    # What a config need not have. It has those that it is given.
    OPTIONAL = %i[online_all offline_all on_error].freeze

    # One call: where it was made, its beginning and end in seconds on the monotonic clock (nil while it lasts), and
    # whether it was left by a normal return.
    Call = Struct.new(:name, :args, :thread, :fiber, :scheduler, :began, :ended, :returned) do
      def to_a = [name, *args]
    end

    # Seconds; or what answers them.
    attr_writer :timeout

    # @return [Proc, nil] the block that `setup` was given
    attr_reader :heartbeat

    # @param timeout [Object]
    # @param hooks [Hash{Symbol => Proc}] what the methods do: `setup`, which gets the heartbeat, `online`, `offline`,
    #   `online_all`, `offline_all`, `on_error`
    def initialize(timeout: 60, **hooks)
      @timeout = timeout
      @hooks = hooks
      @log = []
      (OPTIONAL & hooks.keys).each do |method|
        define_singleton_method(method) { |*args| note(method, *args) { |hook| hook.call(*args) } }
      end
    end

    def timeout = @timeout.respond_to?(:call) ? @timeout.call : @timeout

    def setup(&heartbeat)
      @heartbeat = heartbeat
      note(:setup) { |hook| hook&.call(heartbeat) }
    end

    def online(id) = note(:online, id) { |hook| hook&.call(id) }
    def offline(id) = note(:offline, id) { |hook| hook&.call(id) }

    # @return [Array<Array>] the calls but for `setup`, in the order in which they began: a method and its arguments
    def calls = transitions.map(&:to_a)

    # @return [Array<Symbol>] which methods were called for a user, not counting the `_all` forms
    def calls_of(id) = transitions.select { |call| call.args.last.eql?(id) }.map(&:name)

    # @return [Array<Call>]
    def transitions = @log.reject { |call| call.name == :setup }

    # Keeps none of the calls so far.
    def forget = @log.clear

    # @return [Call, nil] the last call of a method, for a user if one is given
    def last(method, *id)
      @log.reverse_each.find { |call| call.name == method && (id.empty? || call.args.last.eql?(id.first)) }
    end

    private

    def note(method, *args)
      # Appending is atomic. So is the whole log, for who reads a copy of it.
      @log << call = Call.new(method, args, Thread.current, Fiber.current, Fiber.current_scheduler, Wait.monotonic)
      answer = yield @hooks[method]
      call.returned = true
      answer
    ensure
      call.ended = Wait.monotonic
    end
  end
end
