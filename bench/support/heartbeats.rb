# frozen_string_literal: true

module Bench
  # All compared heartbeats are sent in this way: a config's `setup` yields the ids.
  module Heartbeats
    class << self
      # @param ids [Array]
      # @param passes [Integer] how often to go through the ids
      def through(ids, passes = 1)
        passes.times do
          ids.each { |id| yield id } # rubocop:disable Style/ExplicitBlockArgument -- a config's setup yields
        end
      end

      # Sends heartbeats from several threads. Each thread has its share of the ids.
      #
      # @param threads [Integer]
      # @yieldparam ids [Array] the share of one thread
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
