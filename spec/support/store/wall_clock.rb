# frozen_string_literal: true

module Stores
  # A wall clock for child processes, by libfaketime. Their monotonic clocks stay real.
  class WallClock
    LIBRARY = Dir["/usr/lib/{*/,}faketime/libfaketimeMT.so.1"].first

    # @param path [String] the file that libfaketime reads
    def initialize(path)
      @path = path
      step(0)
    end

    # @return [Hash{String => String}] the environment of the processes
    def env
      { "LD_PRELOAD" => LIBRARY, "FAKETIME_DONT_FAKE_MONOTONIC" => "1", "FAKETIME_NO_CACHE" => "1",
        "FAKETIME_TIMESTAMP_FILE" => @path }
    end

    # @param hours [Integer] the difference to the real wall clock from now on
    def step(hours)
      File.write("#{@path}.new", format("%+dh", hours))
      File.rename("#{@path}.new", @path)
    end
  end
end
