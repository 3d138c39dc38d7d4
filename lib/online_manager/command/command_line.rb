# frozen_string_literal: true

require "optparse"

class OnlineManager
  class Command
    # The command line: which store, and what to do with it.
    #
    # @private
    class CommandLine
      USAGE = "Usage: online_manager store PATH|URL [URL …] [options]"
      DESCRIPTION = "Prints a summary of a shared store: who is online, what waits, which process delivers."

      # Options that exclude each other.
      ACTIONS = %i[requeue purge watch].freeze
      # Options that only a listing has a use for.
      LISTING_OPTIONS = %i[users events dead_letters json].freeze

      # The command line is wrong.
      #
      # @private
      class Error < StandardError; end

      # @return [Hash{Symbol => Object}] what it says: a text to `:print`, or the `:store`, the `:namespace`, and the
      #   options by their names
      attr_reader :options

      # @param argv [Array<String>]
      # @raise [Error, OptionParser::ParseError] if it is wrong
      def initialize(argv)
        @options = parse(argv)
      end

      private

      def parse(argv)
        check_encoding(argv)
        options = {}
        arguments = parser(options).parse(argv)
        return options if options[:print]

        command, *stores = arguments
        raise Error, "no command: expected `store'" unless command
        raise Error, "unknown command #{StoreOption.shown(command)}: expected `store'" unless command == "store"

        check_stores(stores, options)
        check_actions(options)
        options.merge(store: store_url(stores, options[:cluster]), namespace: namespace(options))
      end

      # OptionParser fails without saying what is wrong.
      def check_encoding(argv)
        wrong = argv.find { |argument| !StoreOption.utf8?(argument) } or return

        raise Error, "the command line must be valid in UTF-8, got #{StoreOption.shown(wrong)}"
      end

      def check_stores(stores, options)
        if stores.empty? && options[:purge].is_a?(String)
          raise Error, "no store: what is behind --purge is a namespace; write " \
                       "`online_manager store PATH|URL --purge [NAMESPACE]'"
        end

        raise Error, "no store: expected a path or a URL" if stores.empty?
      end

      def check_actions(options)
        actions = given(ACTIONS, options)
        raise Error, "#{actions.join(" and ")}: expected one of them" if actions.size > 1
        raise Error, "--force without --purge" if options[:force] && !options[:purge]

        listing = given(LISTING_OPTIONS, options)
        return if listing.empty? || actions.empty? || options[:watch]

        they, them = listing.one? ? ["that is", "it"] : ["they are", "them"]
        raise Error, "#{listing.join(" and ")} with #{actions.first}: #{they} only for a listing; leave #{them} out"
      end

      # @return [Array<String>] those of the options that the command line has, as it writes them
      def given(names, options) = names.select { |name| options[name] }.map { |name| "--#{name.to_s.tr("_", "-")}" }

      # @return [String]
      def namespace(options)
        names = [options[:namespace], options[:purge]].grep(String).uniq
        if names.size > 1
          purged, named = names.reverse.map { |name| StoreOption.shown(name) }
          raise Error, "--purge #{purged} and --namespace #{named} differ: write the namespace once"
        end

        names.first || ""
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
          options[:purge] = name || true
        end
        parser.on("--force", "purge although processes participate") { options[:force] = true }
      end

      # @return [String, Array<String>] the store's URL, or the URLs of servers of a Redis Cluster
      def store_url(stores, cluster)
        return stores if cluster || (stores.size > 1 && stores.all? { |store| store.include?("://") })
        raise Error, "#{stores.size} stores: expected one, or the URLs of one Redis Cluster" unless stores.one?

        # The path of a SQLite file needs no "sqlite:".
        stores.first.match?(/\A[a-z+]+:/i) ? stores.first : "sqlite:#{stores.first}"
      end
    end
  end
end
