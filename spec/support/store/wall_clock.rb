# frozen_string_literal: true

module Stores
  # A wall clock that processes follow instead of the machine's, by libfaketime. The monotonic clocks are left alone.
  class WallClock
    LIBRARY = Dir["/usr/lib/{*/,}faketime/libfaketimeMT.so.1"].first

    # @param path [String] of its file
    def initialize(path)
      @path = path
      step(0)
    end

    # @return [Hash{String => String}] for the processes
    def env
      { "LD_PRELOAD" => LIBRARY, "FAKETIME_DONT_FAKE_MONOTONIC" => "1", "FAKETIME_NO_CACHE" => "1",
        "FAKETIME_TIMESTAMP_FILE" => @path }
    end

    # @param hours [Integer] how far from the machine's it is from now on
    def step(hours)
      File.write("#{@path}.new", format("%+dh", hours))
      File.rename("#{@path}.new", @path)
    end
  end
end
