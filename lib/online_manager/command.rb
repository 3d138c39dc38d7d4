# frozen_string_literal: true

require "online_manager"
require "optparse"
require_relative "command/listing"

class OnlineManager
  # The command `online_manager store`: prints what is in a shared store, requeues its dead letters, and deletes
  # namespaces. Only the executable loads it.
  #
  # @private
  class Command
    USAGE = "Usage: online_manager store PATH|URL [URL …] [options]"
    DESCRIPTION = "Prints a summary of a shared store: who is online, what waits, which process delivers."

    # Seconds between two listings of `--watch`.
    WATCH_INTERVAL = 1
    # Moves a terminal's cursor to the top left corner and clears what is below.
    CLEAR = "\e[H\e[J"
    # What to type to purge the namespace without a name.
    UNNAMED = "delete"

    # Options that exclude each other.
    ACTIONS = %i[requeue purge watch].freeze

    # The command line is wrong.
    #
    # @private
    class UsageError < StandardError; end

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
      @options = parse(argv)
      return print(@options[:print]) if @options[:print]

      send(ACTIONS.find { |action| @options[action] } || :list)
      0
    rescue UsageError, OptionParser::ParseError, ArgumentError => e
      fail_with("#{e.message}\n#{USAGE}", 2)
    rescue StoreError, Refused => e
      fail_with(e.message, 1)
    end

    private

    def parse(argv)
      options = { namespace: "" }
      arguments = parser(options).parse(argv)
      return options if options[:print]

      command, *stores = arguments
      raise UsageError, "no command: expected `store'" unless command
      raise UsageError, "unknown command #{command.inspect}: expected `store'" unless command == "store"
      raise UsageError, "no store: expected a path or a URL" if stores.empty?

      check_actions(options)
      options.merge(store: store_url(stores, options[:cluster]))
    end

    def check_actions(options)
      actions = ACTIONS.select { |action| options[action] }.map { |action| "--#{action}" }
      raise UsageError, "#{actions.join(" and ")}: expected one of them" if actions.size > 1
      raise UsageError, "--force without --purge" if options[:force] && !options[:purge]
    end

    def parser(options)
      OptionParser.new(USAGE) do |parser|
        parser.separator(DESCRIPTION)
        parser.on("-n", "--namespace NAME", "the namespace of the managers") { |name| options[:namespace] = name }
        parser.on("--cluster", "the URL is that of a server of a Redis Cluster") { options[:cluster] = true }
        add_listing_options(parser, options)
        parser.on("--requeue", "have the dead letters delivered again") { options[:requeue] = true }
        add_purge_options(parser, options)
        parser.on("-h", "--help", "show this help") { options[:print] = parser.help }
        parser.on("--version", "show the version of the gem") { options[:print] = "#{VERSION}\n" }
      end
    end

    def add_listing_options(parser, options)
      parser.on("--users", "list the users who are online too") { options[:users] = true }
      parser.on("--events", "list the events that wait for delivery, however many") { options[:events] = true }
      parser.on("--dead-letters", "list the dead letters, however many") { options[:dead_letters] = true }
      parser.on("--json", "print all of it as JSON; the users only with --users") { options[:json] = true }
      parser.on("--watch", "print it anew every second, until Ctrl-C") { options[:watch] = true }
    end

    def add_purge_options(parser, options)
      parser.on("--purge [NAMESPACE]", "delete the namespace, with everything in it; asks first") do |name|
        options[:purge] = true
        options[:namespace] = name if name
      end
      parser.on("--force", "purge although processes participate") { options[:force] = true }
    end

    # @return [String, Array<String>] the store's URL, or the URLs of servers of a Redis Cluster
    def store_url(stores, cluster)
      return stores if cluster || (stores.size > 1 && stores.all? { |store| store.include?("://") })
      raise UsageError, "#{stores.size} stores: expected one, or the URLs of one Redis Cluster" unless stores.one?

      # The path of a SQLite file needs no "sqlite:".
      stores.first.match?(/\A[a-z+]+:/i) ? stores.first : "sqlite:#{stores.first}"
    end

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

      raise Refused, "nothing was deleted: #{members.size} processes participate (#{members.join(", ")}); " \
                     "stop them first, or pass --force"
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
