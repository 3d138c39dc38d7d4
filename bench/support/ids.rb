# frozen_string_literal: true

module Bench
  # User ids of the usual kinds, the same on every run.
  module Ids
    KINDS = %w[integers symbols UUIDs arrays].freeze

    class << self
      # @param kind [String] one of KINDS
      # @param users [Integer] how many
      # @return [Array]
      def of(kind, users)
        random = Random.new(1)
        case kind
        when "integers" then (1..users).to_a
        when "symbols" then Array.new(users) { |number| :"user#{number}" }
        when "UUIDs" then Array.new(users) { uuid(random) }
        when "arrays" then Array.new(users) { |number| [7, number] }
        end
      end

      # The ids in random order, each as a new object: an id that arrives on a socket is not the object that came with
      # the heartbeat before.
      #
      # @param ids [Array]
      # @return [Array]
      def as_they_come(ids)
        shuffled = ids.shuffle(random: Random.new(2))
        shuffled.first.is_a?(Symbol) ? shuffled : shuffled.map(&:dup)
      end

      # @return [String]
      def uuid(random) = random.bytes(16).unpack("H8H4H4H4H12").join("-")
    end
  end
end
