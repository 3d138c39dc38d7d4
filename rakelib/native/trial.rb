# frozen_string_literal: true

require "fileutils"
require_relative "../matrix/places"

module Native
  # Installs a precompiled gem in one place of the matrix, with what a user has who compiles nothing.
  class Trial
    # Seconds from `gem install` to the first heartbeat.
    LIMIT = 5
    FOLDER = "tmp/native/trial"
    SCRIPT = File.expand_path("first_heartbeat.rb", __dir__)

    # @param package [String] the gem's path
    # @param root [String] the folder of the other Debians; only those are tried that are installed
    # @return [Array<Trial>]
    def self.all(package, root)
      folders = Dir["#{root}/*/installed"].map { |path| File.dirname(path) }
      places = folders.map { |folder| Matrix::Debian.new(File.basename(folder), folder) }
      [Matrix::Here.new, *places].map { |place| new(place, package) }
    end

    def initialize(place, package)
      @place = place
      @package = package
    end

    def name = @place.name

    # @return [String] the place, its Ruby, and the seconds: on a busy machine those of CPU say more
    def run
      FileUtils.mkdir_p("#{@place.root}/#{FOLDER}")
      paths = [SCRIPT, @package].map do |path|
        FileUtils.cp(path, "#{@place.root}/#{FOLDER}")
        "#{FOLDER}/#{File.basename(path)}"
      end
      ruby, @seconds, cpu = output("ruby", *paths).split
      "#{name}: Ruby #{ruby}, #{@seconds} s (#{cpu} s of CPU)"
    end

    def quick? = @seconds.to_f <= LIMIT

    private

    def output(*command)
      IO.pipe do |reader, writer|
        pid = @place.spawn(*command, out: writer)
        writer.close
        said = reader.read
        _, status = Process.wait2(pid)
        status.success? ? said : abort("#{name}: the gem was not installed, or did not work")
      end
    end
  end
end
