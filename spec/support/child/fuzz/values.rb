# frozen_string_literal: true

require "bigdecimal"

module Fuzz
  # An object whose `hash`, `eql?` and so on are given, and may do any harm.
  class Hostile
    def initialize(**methods)
      methods.each { |name, body| define_singleton_method(name, &body) }
    end
  end

  # A String with its own `eql?`.
  class HostileString < String
    def eql?(other) = Judge.boom(other)
  end

  # A subclass of String.
  class NamedString < String; end

  # An object with the `hash` and `eql?` of a Struct.
  Point = Struct.new(:x, :y)

  # Random ids and arguments. Each call creates new objects; few are ever identical.
  module Values
    ENCODINGS = Encoding.list.reject(&:dummy?).freeze
    # In Ruby 3.1, an empty String and an empty UTF-16 String are eql?, but have different hashes.
    COMPATIBLE = ENCODINGS.select(&:ascii_compatible?).freeze
    HUGE = ("huge" * 500_000).freeze

    # Good Hash keys. Two keys made of the same number are equal.
    REGULAR = [
      ->(n) { n - 500 }, ->(n) { (2**62) - 500 + n }, ->(n) { (2**64) + n }, ->(n) { -(2**70) - n },
      ->(n) { n / 8.0 }, ->(n) { n * 1e300 }, ->(n) { [0.0, -0.0][n % 2] }, ->(n) { Rational(n, 7) },
      ->(n) { Complex(n, n) }, ->(n) { :"symbol #{n}" }, ->(n) { [:+, :size, nil, true, false][n % 5] },
      ->(n) { "user #{n}" }, ->(n) { "user #{n}".b }, ->(n) { "benutzer #{n} ü".encode("UTF-8") },
      ->(n) { "#{n} ü".encode("ISO-8859-1") }, ->(n) { "user #{n}".encode("UTF-16LE") },
      ->(n) { +"" << ("a".ord + (n % 26)) << "\0" << n.to_s }, ->(n) { "#{n}\xff\xfe".dup },
      ->(n) { "#{n}\xe3\x81".dup.force_encoding(ENCODINGS[n % ENCODINGS.size]) },
      ->(n) { (+"").force_encoding(COMPATIBLE[n % COMPATIBLE.size]) }, ->(n) { NamedString.new("regular #{n}") },
      ->(n) { [:regular, n, "x"] }, ->(n) { [:regular, [n, [nil, n.to_s]]].freeze },
      ->(n) { [:regular, Point.new(n, "y")] },
      ->(n) { [:regular, (n..(n + 1)), Time.at(n)] }, ->(n) { [:regular, { n => n }] },
      ->(n) { [:regular, n].tap { |array| array << array } }
    ].freeze

    # The smallest hash of a hostile id; no regular id has it. Zero is the hash of some regular ids: Ruby 3.3 gives it
    # to any object that contains itself, so a hostile object with hash zero and a permissive `eql?` would rightly equal
    # them.
    ODD = 1

    # Bad Hash keys, and doubtful ones.
    HOSTILE = [
      ->(_) { BasicObject.new }, ->(_) { Object.new }, ->(_) { Hostile.new(hash: -> { Judge.boom }) },
      ->(_) { Hostile.new(hash: -> { "hash" }) }, ->(_) { Hostile.new(hash: -> {}) },
      ->(_) { Hostile.new(hash: -> { 1.5 }) }, ->(n) { Hostile.new(hash: -> { (2**70) + (n % 3) }) },
      ->(_) { Hostile.new(hash: -> { rand(1_000_000) }) }, ->(_) { Hostile.new(hash: -> { throw :fuzz }) },
      ->(n) { Hostile.new(hash: -> { ODD + (n % 5) }, eql?: ->(_) { Judge.boom }) },
      ->(n) { Hostile.new(hash: -> { ODD + (n % 5) }, eql?: ->(_) { "true" }) },
      ->(n) { Hostile.new(hash: -> { ODD + (n % 5) }, eql?: ->(_) { rand(2).zero? }) },
      ->(n) { Hostile.new(hash: -> { Thread.pass || (ODD + (n % 100)) }, eql?: ->(other) { Values.reenter(other) }) },
      ->(n) { Hostile.new(hash: -> { Values.reenter([:regular, :shared, (n % 50).to_s]) || 7 }) },
      ->(_) { Hostile.new(inspect: -> { Judge.boom }, to_s: -> { Judge.boom }) },
      ->(_) { Float::NAN }, ->(_) { -Float::NAN }, ->(_) { Float::INFINITY }, ->(_) { HUGE.dup }, ->(_) { :"" },
      ->(n) { HostileString.new("hostile #{n % 9}") },
      ->(n) { "hostile #{n % 9}".tap { |string| string.define_singleton_method(:eql?) { |_| false } } },
      ->(_) { [].tap { |array| array << array } }, ->(_) { {}.tap { |hash| hash[:self] = hash } },
      ->(_) { [:x, Hostile.new(hash: -> { Judge.boom })] }, ->(n) { [n.to_s].tap { |array| array << [rand(9)] } },
      ->(_) { Thread.current }, ->(_) { Fiber.new { nil } }, ->(n) { proc { n } }, ->(n) { ->(x) { x + n } },
      ->(_) { OnlineManager.current("stress") }, ->(_) { OnlineManager.current("stress")&.method(:seen) },
      ->(_) { Config.last.heartbeat }, ->(_) { OnlineManager }, ->(_) { Class.new }, ->(_) { 7.method(:+) },
      ->(_) { ObjectSpace::WeakMap.new }, ->(_) { [:x].each }, ->(_) { OnlineManager::NativeTracker },
      ->(_) { Comparable.instance_method(:clamp) }, ->(_) { HostileError.new }, ->(n) { Random.new(n) }
    ].freeze

    # Values that are no number of seconds.
    BAD_SECONDS = [
      Float::NAN, Float::INFINITY, -Float::INFINITY, -1, -1e-9, -(2**70), -3r, "", "abc", "5 s", "1e", "0x", "\xff",
      "5".encode("UTF-16LE"), :five, true, false, [], [5], {}, Object.new, BasicObject.new, Complex(1, 1), Class,
      Hostile.new(to_f: -> { Judge.boom }), Hostile.new(to_f: -> { "5" }), Hostile.new(to_f: -> {}),
      Class.new(Numeric).new, 10**400, "1e400", (1..2), Thread.current, Hostile.new(inspect: -> { Judge.boom })
    ].freeze

    # Timeouts that are longer than any run.
    GOOD_SECONDS = [
      600, 600.5, 600r, "600", " 1e3\n", "0x1p12", "1_000", Complex(600, 0), 2**70, Float::MAX, BigDecimal("1e3"),
      Class.new(Numeric) { def to_f = 700.0 }.new
    ].freeze

    # Timeouts that expire during the run, at once or later.
    SHORT_SECONDS = [1e-9, Float::MIN, 5e-324, 0.001, 0.02, "1e-3", 1/500r].freeze

    class << self
      def regular(random) = REGULAR.sample(random:).call(random.rand(1_000))
      def hostile(random) = HOSTILE.sample(random:).call(random.rand(1_000))

      # An id that all workers use. Its parts belong to no worker.
      def shared(random) = [:regular, :shared, random.rand(50).to_s]

      def seconds(random) = [BAD_SECONDS, GOOD_SECONDS, SHORT_SECONDS, [nil, 0]].sample(random:).sample(random:)

      # A collection of ids, or something that is none.
      def ids(random, some)
        [
          some, some, some.each, some.lazy.map(&:itself), some.to_h { |id| [id.__id__, 1] }, hostile(random),
          Hostile.new(to_ary: -> { some }), Hostile.new(to_ary: -> {}),
          Hostile.new(each: ->(&_) { Judge.boom }).extend(Enumerable), (1..), (1.0..2.0), nil, 7, "ids", :ids
        ].sample(random:)
      end

      # Calls the manager while a method of the manager is running.
      #
      # @return [Boolean] false
      def reenter(id)
        manager = OnlineManager.current("stress")
        return false if Config.deep? || manager.nil?

        Config.deeper { rand(2).zero? ? manager.seen(id, timeout: 0.001) : manager.leave(id) }
        GC.start if rand(500).zero?
        false
      end
    end
  end
end
