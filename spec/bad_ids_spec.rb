# frozen_string_literal: true

Dir[File.join(__dir__, "support/conformance/*.rb")].each { |file| require file }

# Ids that raise when they are hashed or compared, and ids that are unusual but valid.
RSpec.describe "Bad input" do
  %i[thread eventmachine fiber].each do |reactor|
    context "with the reactor #{reactor.inspect}" do
      let(:reactor) { reactor }

      include_context "with a manager"
      include Conformance::Unchanged

      describe "an id" do
        oops = Class.new(StandardError)
        # An id whose `hash` or `eql?` raises while `fails` names it.
        hostile = Class.new do
          attr_accessor :fails

          def hash = fails == :hash ? raise(IOError, "in hash") : 7
          def eql?(other) = fails == :eql? ? raise(IOError, "in eql?") : equal?(other)
        end

        %i[hash eql?].each do |method|
          it "whose #{method} raises passes the error to the yield and changes nothing" do
            config = recording
            manager = start(config)
            # An object with the same hash, so that `eql?` is called.
            ids = [hostile.new, 7]
            ids.each { |id| manager.seen(id) }
            bad = hostile.new
            bad.fails = method

            expect_unchanged(manager) do
              [-> { config.heartbeat.call(bad) }, -> { manager.seen(bad) }, -> { manager.seen(bad, timeout: 1) },
               -> { manager.seen_all([7, 8, bad, 9]) }, -> { manager.leave(bad) }, -> { manager.online?(bad) },
               -> { manager.last_seen(bad) }].each { |act| expect(&act).to raise_error(IOError, "in #{method}") }
            end
            expect(config.calls).to eq [[:online, ids[0]], [:online, 7]]

            bad.fails = nil
            expect([manager.seen(bad), manager.size]).to eq [true, 3]
          end
        end

        it "whose hash throws or is no Integer changes nothing" do
          config = recording
          manager = start(config)
          manager.seen(7)
          leaving = Object.new
          leaving.define_singleton_method(:hash) { throw :out, "thrown" }
          odd = Object.new
          odd.define_singleton_method(:hash) { "odd" }

          expect_unchanged(manager) do
            expect(catch(:out) { manager.seen(leaving) }).to eq "thrown"
            expect { manager.seen(odd) }.to raise_error(TypeError)
            expect { { odd => true } }.to raise_error(TypeError) # as for a Hash
          end
        end

        it "whose `online` raises leaves nothing behind" do
          config = recording(online: ->(_) { raise oops })
          manager = start(config)

          [7, "seven", [7], 7.5].each do |id|
            expect_unchanged(manager) { expect { manager.seen(id) }.to raise_error(oops) }
          end
        end

        {
          "ASCII" => +"abc", "UTF-8" => +"grüße", "BINARY" => "gr\xFC".b, "UTF-16" => "abc".encode("UTF-16LE"),
          "a subclass" => Class.new(String).new("abc"),
          "a long one" => "long" * 1000
        }.each do |what, text|
          it "that is a String keeps its value when the String changes after the yield: #{what}" do
            config = recording
            manager = start(config)
            id = text.dup
            config.heartbeat.call(id)
            id << "!".encode(id.encoding)

            expect([manager.online?(text), manager.online?(id), manager.online_users]).to eq [true, false, [text]]
            manager.leave(text)
            eventually { expect(config.calls.last).to eq [:offline, text] }
          end
        end

        it "that is an Array is looked up as a Hash would when the Array changes after the yield" do
          config = recording
          manager = start(config)
          id = [7, +"a"]
          hash = { id => true }
          config.heartbeat.call(id)

          [-> { id << 8 }, -> { id[1] << "b" }, -> { id[1].chop! && id.pop }].each do |change|
            change.call
            [id, id.dup, [7, "a"], [7, "a", 8], [7, "ab", 8]].each do |key|
              expect(manager.online?(key)).to be(hash.key?(key)), "#{key} after #{id}"
            end
            expect(manager.online_users).to eq [id]
          end
        end

        it "that is an Array is set offline with its current elements when the Array has changed" do
          config = recording(timeout: 0.1)
          manager = start(config)
          id = [7]
          manager.seen(id)
          id << 8

          eventually { expect(config.calls).to eq [[:online, id], [:offline, id]] }
          expect(manager.size).to eq 0
          expect(manager.seen(id)).to be true
        end
      end
    end
  end
end
