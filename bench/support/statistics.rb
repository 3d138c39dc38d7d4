# frozen_string_literal: true

# Statistics of many samples.
module Bench
  class << self
    # @param samples [Array<Numeric>] not empty
    def median(samples)
      sorted = samples.sort
      middle = sorted.size / 2
      sorted.size.odd? ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2.0
    end

    # @param samples [Array<Numeric>] not empty
    # @param share [Float] 0.99 for the 99th percentile
    def percentile(samples, share)
      samples.sort[((samples.size - 1) * share).ceil]
    end

    # The median of the rounds' ratios, not the ratio of the medians: a disturbance that slows down a whole round slows
    # down both samples.
    #
    # @param samples [Array<Numeric>]
    # @param reference [Array<Numeric>] samples of the same rounds
    def ratio(samples, reference)
      median(samples.zip(reference).map { |ours, theirs| ours.to_f / theirs })
    end
  end
end
