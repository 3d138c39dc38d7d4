# frozen_string_literal: true

module Conformance
  # A config that records each call: on which thread, and when.
  #
  #   config = Conformance::Config.new(timeout: 0.1, offline: ->(id) { raise "oops" if id == 7 })
  #   …
  #   config.calls   # => [[:online, 7], [:offline, 7]]
  class Config
    # Methods that a config may lack. It has those for which hooks are given.
    OPTIONAL = %i[online_all offline_all on_error].freeze

    # One call: where it ran, its beginning and end in seconds on the monotonic clock (nil while it runs), and whether
    # it returned normally.
    Call = Struct.new(:name, :args, :thread, :fiber, :scheduler, :began, :ended, :returned) do
      def to_a = [name, *args]
    end

    # Seconds, or a Proc that returns them.
    attr_writer :timeout

    # @return [Proc, nil] the block that `setup` was given
    attr_reader :heartbeat

    # @param timeout [Object] seconds, or a Proc that returns them
    # @param hooks [Hash{Symbol => Proc}] the bodies of the methods `setup`, which gets the heartbeat, `online`,
    #   `offline`, `online_all`, `offline_all` and `on_error`
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

    # @return [Array<Array>] the calls except `setup`, in the order in which they began: a method and its arguments
    def calls = transitions.map(&:to_a)

    # @return [Array<Symbol>] the methods that were called for a user, without the `_all` callbacks
    def calls_of(id) = transitions.select { |call| call.args.last.eql?(id) }.map(&:name)

    # @return [Array<Call>]
    def transitions = @log.reject { |call| call.name == :setup }

    # Forgets the calls so far.
    def forget = @log.clear

    # @return [Call, nil] the last call of a method, of the given user if there is one
    def last(method, *id)
      @log.reverse_each.find { |call| call.name == method && (id.empty? || call.args.last.eql?(id.first)) }
    end

    private

    def note(method, *args)
      # Array#<< is atomic, so several threads may append. Readers copy the log.
      @log << call = Call.new(method, args, Thread.current, Fiber.current, Fiber.current_scheduler, Wait.monotonic)
      answer = yield @hooks[method]
      call.returned = true
      answer
    ensure
      call.ended = Wait.monotonic
    end
  end
end
