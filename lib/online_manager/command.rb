# frozen_string_literal: true

require "online_manager"
require_relative "command/command_line"
require_relative "command/listing"

class OnlineManager
  # The command `online_manager store`: prints what is in a shared store, requeues its dead letters, and deletes
  # namespaces. Only the executable loads it.
  #
  # @private
  class Command
    # Seconds between two listings of `--watch`.
    WATCH_INTERVAL = 1
    # Moves a terminal's cursor to the top left corner and clears what is below.
    CLEAR = "\e[H\e[J"
    # What to type to purge the namespace without a name.
    UNNAMED = "delete"

    # The user did not confirm, or the store must not be changed now.
    #
    # @private
    class Refused < StandardError; end

    # @param input [IO] gets what the user types
    # @param out [IO] gets the listing
    # @param err [IO] gets what is wrong
    def initialize(input: $stdin, out: $stdout, err: $stderr)
      @in = input
      @out = out
      @err = err
    end

    # @param argv [Array<String>]
    # @return [Integer] the exit status: 0; 1 if the store cannot be read or nothing was done; 2 if the command line is
    #   wrong
    def run(argv)
      @options = CommandLine.new(argv).options
      return print(@options[:print]) if @options[:print]

      send(CommandLine::ACTIONS.find { |action| @options[action] } || :list)
      0
    rescue OptionParser::ParseError => e
      # What is behind the name of an option may be a URL.
      fail_with("#{e.message.gsub(/(--?[\w-]*)[^\w\s-].*/, '\1…')}\n#{CommandLine::USAGE}", 2)
    rescue CommandLine::Error, ArgumentError => e
      fail_with("#{e.message}\n#{CommandLine::USAGE}", 2)
    rescue StoreError, Refused => e
      fail_with(e.message, 1)
    end

    private

    def list
      @out.puts(read)
    end

    # @return [String]
    def read
      listing = Listing.read(**@options.slice(:store, :namespace, :users),
                             all_events: @options[:events] || @options[:json],
                             all_dead_letters: @options[:dead_letters] || @options[:json])
      @options[:json] ? listing.to_json : listing.to_s
    end

    # Prints the listing until Ctrl-C. Goes on when the store fails later.
    def watch
      text = read
      loop do
        @out.print(CLEAR) if @out.tty?
        @out.puts(text)
        @out.flush
        sleep WATCH_INTERVAL
        text = read_or_error
      end
    rescue Interrupt
      nil
    end

    def read_or_error
      read
    rescue StoreError => e
      @options[:json] ? JSON.generate(error: e.message) : e.message
    end

    def requeue
      requeued, dropped = NativeMember.requeue_dead_letters(*@options.values_at(:store, :namespace))
      @out.puts "requeued #{requeued}, dropped #{dropped} that a later transition has superseded"
    end

    def purge
      listing = Listing.read(**@options.slice(:store, :namespace))
      refuse_beside_members(listing.members) unless @options[:force]
      confirm(listing)
      unless NativeMember.purge(*@options.values_at(:store, :namespace), @options[:force] || false)
        raise Refused, "nothing was deleted: a process has begun to participate; stop it first, or pass --force"
      end

      @out.puts "deleted"
    end

    # @param members [Array<String>] the names of the processes
    def refuse_beside_members(members)
      return if members.empty?

      participate = Listing.count(members.size, "process participates", "processes participate")
      them = members.one? ? "it" : "them"
      raise Refused, "nothing was deleted: #{participate} (#{members.join(", ")}); stop #{them} first, or pass --force"
    end

    def confirm(listing)
      expected = @options[:namespace].empty? ? UNNAMED : @options[:namespace]
      @out.puts listing.heading, listing.losses
      @out.print "Type #{expected} to go on: "
      @out.flush
      typed = @in.gets&.chomp
      raise Refused, "nothing was deleted: expected #{expected.inspect}, got #{typed.inspect}" unless typed == expected
    rescue Interrupt
      raise Refused, "nothing was deleted: interrupted", cause: nil
    end

    def print(text)
      @out.print(text)
      0
    end

    def fail_with(message, status)
      @err.puts "online_manager: #{message}"
      status
    end
  end
end
