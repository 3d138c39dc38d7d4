# frozen_string_literal: true

require "online_manager"
require "optparse"

class OnlineManager
  # The command `online_manager store`: lists what is in a shared store, and requeues its dead letters. Only the
  # executable loads it.
  #
  # @private
  class Command
    USAGE = "Usage: online_manager store PATH|URL [URL …] [options]"

    # The command line is wrong.
    #
    # @private
    class UsageError < StandardError; end

    # @param out [IO] gets the listing
    # @param err [IO] gets what is wrong
    def initialize(out: $stdout, err: $stderr)
      @out = out
      @err = err
    end

    # @param argv [Array<String>]
    # @return [Integer] the exit status: 0; 1 if the store cannot be read; 2 if the command line is wrong
    def run(argv)
      options = parse(argv)
      return print(options[:print]) if options[:print]

      options[:requeue] ? requeue(*options[:store]) : report(*options[:store])
      0
    rescue UsageError, OptionParser::ParseError, ArgumentError => e
      fail_with("#{e.message}\n#{USAGE}", 2)
    rescue StoreError => e
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

      options.merge(store: [store_url(stores, options[:cluster]), options[:namespace]])
    end

    def parser(options)
      OptionParser.new(USAGE) do |parser|
        parser.separator("Lists the users who are online, the events that wait for delivery, and the dead letters.")
        parser.on("-n", "--namespace NAME", "the namespace of the managers") { |name| options[:namespace] = name }
        parser.on("--cluster", "the URL is that of a server of a Redis Cluster") { options[:cluster] = true }
        parser.on("--requeue", "have the dead letters delivered again") { options[:requeue] = true }
        parser.on("-h", "--help", "show this help") { options[:print] = parser.help }
        parser.on("--version", "show the version of the gem") { options[:print] = "#{VERSION}\n" }
      end
    end

    # @return [String, Array<String>] the store's URL, or the URLs of servers of a Redis Cluster
    def store_url(stores, cluster)
      return stores if cluster || (stores.size > 1 && stores.all? { |store| store.include?("://") })
      raise UsageError, "#{stores.size} stores: expected one, or the URLs of one Redis Cluster" unless stores.one?

      # The path of a SQLite file needs no "sqlite:".
      stores.first.match?(/\A[a-z+]+:/) ? stores.first : "sqlite:#{stores.first}"
    end

    def report(url, namespace)
      contents = NativeMember.report(url, namespace)
      section("online", contents[:online].sort_by(&:last)) { |id, ago| "#{id.inspect}, seen #{ago.round(1)} s ago" }
      section("waiting to be delivered", contents[:waiting]) { |event| describe(event) }
      section("dead letters", contents[:dead_letters]) do |letter|
        "#{describe(letter)}#{", superseded" if letter[:superseded]}: #{letter[:error]}"
      end
    end

    def requeue(url, namespace)
      requeued, dropped = NativeMember.requeue_dead_letters(url, namespace)
      @out.puts "requeued #{requeued}, dropped #{dropped} that a later transition has superseded"
    end

    def section(title, items, &describe)
      @out.puts "#{title}: #{items.size}"
      items.each { |item| @out.puts "  #{describe.call(item)}" }
    end

    def describe(event)
      failed = ", failed #{event[:failures]} times" if event[:failures].positive?
      "#{event[:transition]} #{event[:user_id].inspect}, version #{event[:version]}#{failed}"
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
