# frozen_string_literal: true

require "bigdecimal"

# Ids are compared as a Hash compares its keys.
RSpec.shared_examples "ids" do
  # @return [Boolean] whether both ids are the same user
  def same?(one, other)
    manager = start
    manager.seen(one)
    manager.online?(other)
  ensure
    manager.stop
  end

  # An object with its own `hash` and `eql?`.
  point = Class.new do
    attr_reader :coordinates

    def initialize(*coordinates) = @coordinates = coordinates
    def hash = @coordinates.hash
    def eql?(other) = other.is_a?(self.class) && @coordinates.eql?(other.coordinates)
    def inspect = "point(#{@coordinates.join(",")})"
  end
  # All such points have the same hash.
  crowded = Class.new(point) { def hash = 7 }
  # Subclasses of String: one that behaves like it, one with its own `hash`, which a Hash ignores, and one with its own
  # `eql?`, which a Hash uses.
  name = Class.new(String)
  hashed = Class.new(String) { def hash = 7 }
  label = Class.new(String) do
    attr_accessor :color

    def hash = [to_s, color].hash
    def eql?(other) = super && other.is_a?(self.class) && color == other.color
  end
  # A case-insensitive string: a Hash hashes its text all the same.
  folding = Class.new(String) do
    def hash = downcase.hash
    def eql?(other) = other.is_a?(self.class) && casecmp?(other)
  end
  paint = ->(text, color) { label.new(text).tap { |it| it.color = color } }
  utf8 = "grüße"
  nan = -> { Float::INFINITY * 0 } # a new object each time
  symbol = :"dynamic #{rand(1 << 60)}"

  same = {
    "integers" => [7, 7],
    "bignums" => [2**70, 2**70],
    "floats" => [1.5, 1.5],
    "0.0 and -0.0" => [0.0, -0.0],
    "one and the same NaN" => [Float::NAN, Float::NAN],
    "arrays" => [[7, ["3"]], [7, ["3"]]],
    "hashes" => [{ a: 1, b: 2 }, { b: 2, a: 1 }],
    "nil" => [nil, nil],
    "strings" => ["abc", +"abc"],
    "a string and a copy in another ASCII-compatible encoding" => ["abc", "abc".encode("Shift_JIS")],
    "ASCII in UTF-8, BINARY and US-ASCII" => ["abc".b, (+"abc").force_encoding("US-ASCII")],
    "empty strings" => ["", (+"").force_encoding("Shift_JIS")],
    "UTF-8 and UTF-8" => [utf8, utf8.dup],
    "BINARY and BINARY" => [utf8.b, utf8.b],
    "UTF-16 and UTF-16" => [utf8.encode("UTF-16LE"), utf8.encode("UTF-16LE")],
    "a string and a subclass' of the same text" => ["abc", name.new("abc")],
    "the same from a subclass with a hash of its own" => ["abc", hashed.new("abc")],
    "a subclass with an eql? of its own, by that" => [paint["abc", :red], paint["abc", :red]],
    "dynamic symbols" => [symbol, symbol.to_s.to_sym],
    "objects with hash and eql?" => [point.new(1, 2), point.new(1, 2)],
    "such objects, that collide" => [crowded.new(1), crowded.new(1)],
    "BigDecimals" => [BigDecimal("1.0"), BigDecimal("1.00")],
    "structs" => [Struct.new(:a).new(1)] * 2,
    "modules" => [Comparable, Comparable]
  }

  different = {
    "an integer and a string" => [1, "1"],
    "an integer and a float" => [1, 1.0],
    "an integer and a symbol" => [1, :"1"],
    "a string and a symbol" => ["1", :"1"],
    "a bignum and a float" => [2**70, (2**70).to_f],
    "bignums" => [2**70, (2**70) + 1],
    "the fixnums at the ends of their range" => [(2**62) - 1, -(2**62)],
    "a fixnum and a bignum" => [(2**62) - 1, 2**62],
    "an integer and a slot's number" => [[1], 65_536],
    "a NaN and another one" => [nan.call, nan.call],
    "nil and false" => [nil, false],
    "nil and an empty string" => [nil, ""],
    "false and 0" => [false, 0],
    "true and 1" => [true, 1],
    "arrays" => [[7, 3], [3, 7]],
    "an array and its element" => [[7], 7],
    "UTF-8 and BINARY" => [utf8, utf8.b],
    "UTF-8 and another encoding of the same bytes" => [utf8, utf8.dup.force_encoding("Windows-1252")],
    "UTF-8 and another encoding of the same letters" => [utf8, utf8.encode("ISO-8859-1")],
    "UTF-16 and UTF-8 of the same bytes" => ["abc".encode("UTF-16LE"), "a\0b\0c\0"],
    "bytes that are no ASCII, in US-ASCII and BINARY" => [(+"\xff").force_encoding("US-ASCII"), "\xff".b],
    "strings that differ after a zero" => %W[a\0b a\0c],
    "a subclass with an eql? of its own, by that" => [paint["abc", :red], paint["abc", :blue]],
    "a subclass with a hash and an eql? that do not heed its case" => [folding.new("Ann"), folding.new("ann")],
    "dynamic symbols" => [symbol, :"another #{symbol}"],
    "objects without hash and eql?" => [Object.new, Object.new],
    "objects with hash and eql?" => [point.new(1, 2), point.new(2, 1)],
    "such objects, that collide" => [crowded.new(1), crowded.new(2)]
  }

  it "are the same user if they are the same key" do
    aggregate_failures do
      same.each do |what, (one, other)|
        expect({ one => true }.key?(other)).to be(true), "the example is wrong: #{what}"
        expect(same?(one, other)).to be(true), what
        expect(same?(other, one)).to be(true), "#{what}, the other way round"
      end
    end
  end

  it "are two users if they are two keys" do
    aggregate_failures do
      different.each do |what, (one, other)|
        expect({ one => true }.key?(other)).to be(false), "the example is wrong: #{what}"
        expect(same?(one, other)).to be(false), what
        expect(same?(other, one)).to be(false), "#{what}, the other way round"
      end
    end
  end

  # Ruby 3.1 gives them different hashes, so that they are two keys though they are eql. That was a bug.
  it "are the same user if they are empty strings, in any encoding" do
    encodings = Encoding.list.map { |encoding| (+"").force_encoding(encoding) }
    expect(encodings.map { |empty| same?("", empty) }.uniq).to eq [true]
    expect(encodings.map { |empty| same?(empty, (+"").force_encoding("UTF-16LE")) }.uniq).to eq [true]
  end

  it "reach the callbacks as the same objects, except strings, which are copied" do
    config = recording
    manager = start(config)
    ids = [7, :symbol, nil, [7, 3], point.new(1), 1.5]
    # The extension looks these up by Ruby's own `hash` and `eql?`.
    texts = [+"text", (+"text").encode("UTF-16LE")]
    copies = texts.map(&:dup)
    manager.seen_all([*ids, *texts])
    expect(config.transitions.last(2).map { |call| call.args.first }).to match [equal(texts[0]), equal(texts[1])]
    texts.each { |text| text << text }
    expect(manager.online_users).to match_array([*ids, *copies])
    [*ids, *copies].each { |id| manager.leave(id) }

    eventually { expect(config.transitions.map(&:name).count(:offline)).to eq 8 }
    gone = config.transitions.last(8).map { |call| call.args.first }
    expect(gone.last(2)).to eq copies
    expect(gone.first(6).zip(ids)).to all(satisfy { |one, other| one.equal?(other) })
  end

  it "reach the callbacks in the encoding of the first heartbeat" do
    config = recording
    manager = start(config)
    ids = [utf8, utf8.b, utf8.encode("UTF-16LE"), "abc".encode("Shift_JIS"), (+"").force_encoding("UTF-16BE")]
    ids.each { |id| manager.seen(id) }
    manager.seen("abc")

    expect(manager.online_users.map { |id| [id, id.encoding] }).to match_array(ids.map { |id| [id, id.encoding] })
  end

  it "are collected when online has raised" do
    manager = start(recording(online: ->(_) { raise IOError }))
    made = Class.new
    100.times { expect { manager.seen(made.new) }.to raise_error(IOError) }
    expect { manager.seen_all(Array.new(100) { made.new }) }.to raise_error(IOError)
    @managers.last.instance_variable_get(:@config).object.forget
    eventually do
      GC.start
      expect(ObjectSpace.each_object(made).count).to be < 10
    end
  end

  it "are collected once their users are offline and not before" do
    config = recording
    manager = start(config)
    made = Class.new
    # Not in an Array, which the machine stack might keep by accident.
    100.times { manager.seen(made.new) }
    GC.start
    expect([ObjectSpace.each_object(made).count, manager.size]).to eq [100, 100]

    ObjectSpace.each_object(made) { |id| manager.leave(id) }
    settle(manager)
    config.forget
    eventually do
      GC.start
      # An id that the machine stack still references by accident is no leak.
      expect(ObjectSpace.each_object(made).count).to be < 10
    end
  end

  # Values of which many are equal, or differ only in their type.
  simple = [
    -> { rand(-3..3) }, -> { (2**62) + rand(-2..2) }, -> { -(2**62) + rand(-2..2) }, -> { (2**70) + rand(2) },
    -> { rand(-1..1).to_f * [1, 0.5].sample }, -> { [Float::INFINITY, Float::NAN, nan.call].sample },
    -> { [nil, true, false].sample }, -> { %i[a b abc].sample }, -> { :"dynamic #{rand(3)}" },
    -> { Rational(rand(3), 2) }, -> { Complex(rand(2), rand(2)) }, -> { BigDecimal(rand(3)) },
    lambda do
      text = ["", "a", "abc", "grüße", "\xff", "a\0", "1"].sample.dup
      encoding = %w[UTF-8 BINARY US-ASCII Shift_JIS Windows-1252 ISO-8859-1 UTF-16LE UTF-16BE UTF-32LE UTF-7].sample
      rand(2).zero? ? text.force_encoding(encoding) : text.scrub.encode(encoding)
    rescue EncodingError
      text
    end,
    -> { name.new(%w[a abc].sample) }, -> { hashed.new(%w[a abc].sample) },
    -> { point.new(rand(2), rand(2)) }, -> { crowded.new(rand(4)) },
    # Each with its own text: a Hash never compares strings of two such classes with the same text.
    -> { paint[%w[painted wall].sample, %i[red blue].sample] }
  ]
  any = lambda {
    case rand(8)
    when 0 then Array.new(rand(3)) { simple.sample.call }
    when 1 then { simple.sample.call => simple.sample.call }
    else simple.sample.call
    end
  }

  # @return [Array] readable even if `inspect` is not
  def shown(value)
    [value.class, value.inspect.b, (value.encoding if value.is_a?(String))]
  end

  it "are the same user exactly if they are the same key, whatever they are" do
    config = recording
    manager = start(config)
    keys = {}
    came = []
    3_000.times do
      id = any.call
      key = id.eql?("") ? "" : id
      unless manager.online?(id) == keys.key?(key)
        RSpec::Expectations.fail_with("#{shown(id)} beside #{keys.keys.map { |other| shown(other) }}")
      end
      came << id unless keys.key?(key)
      keys[key] = true
      manager.seen(id)
    end

    # The same users came online, in the same order.
    expect(config.transitions.map { |call| shown(call.args.first) }).to eq(came.map { |id| shown(id) })
    expect(manager.size).to eq keys.size
    # A NaN equals only itself.
    online = manager.online_users.to_h { |id| [id.eql?("") ? "" : id, true] }
    expect(keys.keys.reject { |id| online.key?(id) }.map { |id| shown(id) }).to eq []
  end

  it "with the same hash come online and go offline in any order" do
    manager = start
    here = {}
    300.times do
      id = crowded.new(rand(12))
      if here.delete(id)
        manager.leave(id)
        settle(manager)
      else
        manager.seen(id)
        here[id] = true
      end
      expect(manager.online_users).to match_array here.keys
      expect((0...12).map { |number| manager.online?(crowded.new(number)) })
        .to eq((0...12).map { |number| here.key?(crowded.new(number)) })
    end
  end

  it "work in a seen_all though one leaves during the next one's `hash` and another takes its place" do
    config = recording
    manager = start(config)
    manager.seen([1])
    meanwhile = lambda do
      manager.leave([1])
      settle(manager)
      manager.seen([2])
    end
    asked = Class.new(point) do
      define_method(:hash) do
        meanwhile&.call.tap { meanwhile = nil }
        super()
      end
    end
    last = asked.new(7)
    manager.seen_all([[1], last])

    expect(config.transitions.map { |call| [call.name, *call.args] })
      .to eq [[:online, [1]], [:offline, [1]], [:online, [2]], [:online, [1]], [:online, last]]
  end

  it "work in a seen_all though the `hash` of one turns another into a String that is kept as an object" do
    config = recording
    manager = start(config)
    text = +"abc"
    change = nil
    asked = Class.new(point) do
      define_method(:hash) do
        change&.call
        super()
      end
    end
    known = asked.new(7)
    manager.seen(known)
    change = -> { text.replace("grüße".encode("UTF-16LE")) }
    manager.seen_all([text, known])

    expect(config.transitions.map { |call| [call.name, *call.args] }).to eq [[:online, known], [:online, text]]
  end

  # A heartbeat counts from the moment at which its user is known.
  %i[seen seen_all].each do |method|
    it "may have a `hash` that takes longer than the timeout and let nobody leave early (#{method})" do
      asked = nil
      slow = Class.new(point) do
        define_method(:hash) do
          pass.call
          asked = Wait.monotonic
          super()
        end
        attr_writer :pass

        def pass = @pass || -> {}
      end
      id = slow.new(7)
      config = recording
      manager = start(config)
      manager.seen_all([id, 8])
      id.pass = -> { pass_time(0.2) }
      method == :seen ? manager.seen(id, timeout: 0.1) : manager.seen_all([id, 8], timeout: 0.1)
      heartbeat_at = asked
      id.pass = nil
      (method == :seen ? [id] : [id, 8]).each do |user|
        eventually { expect(config.calls_of(user)).to eq %i[online offline] }
        expect(config.last(:offline, user).began - heartbeat_at).to be >= 0.1
      end
    end
  end
end
