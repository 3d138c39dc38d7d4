# frozen_string_literal: true

require "online_manager"
require "optparse"

class OnlineManager
  # What `online_manager store` does: shows an operator what is in a shared store. Only the executable loads it.
  #
  # @private
  class Command
    USAGE = "Usage: online_manager store PATH|URL [URL …] [options]"

    # What the command line asks for, and cannot have.
    #
    # @private
    class UsageError < StandardError; end

    # @param out [IO]
    # @param err [IO]
    def initialize(out: $stdout, err: $stderr)
      @out = out
      @err = err
    end

    # @param argv [Array<String>]
    # @return [Integer] the exit status: 0, 1 if the store cannot be read, 2 if the command line is wrong
    def run(argv)
      options = parse(argv)
      return print(options[:print]) if options[:print]

      options[:retry_dead] ? retry_dead(*options[:store]) : look(*options[:store])
      0
    rescue UsageError, OptionParser::ParseError, ArgumentError => e
      complain("#{e.message}\n#{USAGE}", 2)
    rescue StoreError => e
      complain(e.message, 1)
    end

    private

    def parse(argv)
      options = { namespace: "" }
      words = parser(options).parse(argv)
      return options if options[:print]

      command, *stores = words
      raise UsageError, "there is only the command `store', not #{command.inspect}" unless command == "store"
      raise UsageError, "which store?" if stores.empty?

      options.merge(store: [location(stores, options[:cluster]), options[:namespace]])
    end

    def parser(options)
      OptionParser.new(USAGE) do |parser|
        parser.separator("Lists who is online, the events that wait to be delivered, and the dead letters.")
        parser.on("-n", "--namespace NAME", "that of the managers") { |name| options[:namespace] = name }
