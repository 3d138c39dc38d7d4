# frozen_string_literal: true

module Bench
  # The way that all heartbeats take which are compared: a config's `setup` that yields ids.
  module Heartbeats
    class << self
      # @param ids [Array]
      # @param passes [Integer] how often to go through them
      def through(ids, passes = 1)
        passes.times do
          ids.each { |id| yield id } # rubocop:disable Style/ExplicitBlockArgument -- a config's setup yields
        end
      end

      # Has several threads beat, each with its part of the ids.
      #
      # @param threads [Integer]
      # @yieldparam ids [Array] of one thread
      # @return [Integer] nanoseconds from the start of the first to the end of the last
      def time_threads(ids, threads)
        start = Thread::Queue.new
        workers = ids.each_slice((ids.size / threads.to_f).ceil).map do |part|
          Thread.new do
            start.pop
            yield part
          end
        end
        Bench.time do
          start.close
          workers.each(&:join)
        end
      end
    end
  end
end
