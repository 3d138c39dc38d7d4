# frozen_string_literal: true

require "json"

class OnlineManager
  class Command
    # What the command prints of a store: a summary, and lists of users, events and dead letters.
    #
    # @private
    class Listing
      # The most events, or dead letters, that are listed without being asked for.
      SHORT = 20
      # The columns of the partitions: keys of {#row}.
      COLUMNS = ["partition", "online", "waiting", "oldest", "dead", "lease holder", "process", "lease", "hold",
                 "data since (UTC)"].freeze
      # In the column of the lease holder, if there is none.
      NO_LEASE_HOLDER = "NOBODY"
      # The most characters of a machine's name, and of an id or a namespace.
      MAX_NAME = 30
      MAX_ID = 60

      # @param store [String, Array<String>] the URL, or the URLs of servers of a Redis Cluster
      # @param namespace [String]
      # @param users [Boolean] whether to read who is online
      # @param all_events [Boolean] whether to read the events that wait, however many
      # @param all_dead_letters [Boolean] the same for dead letters
      # @raise [StoreError] if the store or the namespace does not exist, or cannot be read
      def self.read(store:, namespace:, users: false, all_events: false, all_dead_letters: false)
        limits = [all_events, all_dead_letters].map { |all| all ? nil : SHORT }
        new(store, namespace, NativeMember.report(store, namespace, users || false, *limits))
      end

      # @param number [Integer]
      # @return [String] such as "1 user" or "2 users"
      def self.count(number, one, many = "#{one}s") = "#{number} #{number == 1 ? one : many}"

      # @param contents [Hash] what NativeMember.report returned
      def initialize(store, namespace, contents)
        @store = NativeMember.describe(store)
        @namespace = namespace
        @contents = contents
        @partitions = contents[:partitions]
      end

      # @return [Array<String>] the names of the processes that participate
      def members = @contents[:members].map { |member| process_name(member) }

      # @return [String] the store and the namespace
      def heading
        "#{@store}, #{@namespace.empty? ? "the namespace without a name" : "namespace #{inspected(@namespace)}"}"
      end

      # @return [String] what is lost if the namespace is purged
      def losses
        "This deletes #{count(:online, "user who is", "users who are")} online, without calling `offline`; " \
          "#{count(:waiting, "event that has", "events that have")} not been delivered; " \
          "and #{count(:dead_letters, "dead letter")}."
      end

      # @return [String] several lines
      def to_s
        [heading, *summary, *table, *list_members, *list_users, *list_events, *list_dead_letters].join("\n")
      end

      # @return [String] one line
      def to_json(*)
        JSON.generate({ store: @store, namespace: @namespace, **totals, partitions: @partitions,
                        members: @contents[:members], users: json_users, events: json_events(:events),
                        dead_letter_events: json_events(:dead_letters) }.compact)
      end

      private

      def sum(name) = @partitions.sum { |partition| partition[name] }
      def count(name, *words) = self.class.count(sum(name), *words)
      def times(number) = number == 1 ? "once" : "#{number} times"
      def cut(text, max) = text.size > max ? "#{text[0, max - 1]}…" : text
      def inspected(id) = cut(id.inspect, MAX_ID)

      def process_name(member)
        machine, colon, process = member[:name].rpartition(":")
        "#{cut(machine, MAX_NAME)}#{colon}#{process}"
      end

      def totals
        { online: sum(:online), waiting: sum(:waiting),
          oldest_waiting: @partitions.filter_map { |partition| partition[:oldest_waiting] }.max || 0.0,
          dead_letters: sum(:dead_letters), partitions_without_owner: without_owner.size }
      end

      def without_owner = @partitions.reject { |partition| partition[:lease_holder] }.map { |one| one[:number] }

      def summary
        online, waiting, oldest, dead_letters = totals.values_at(:online, :waiting, :oldest_waiting, :dead_letters)
        oldest = waiting.positive? ? ", the oldest for #{seconds(oldest)}" : nil
        ["online: #{online}", "waiting to be delivered: #{waiting}#{oldest}", "dead letters: #{dead_letters}",
         "members: #{members.size}", "partitions: #{@partitions.size}#{owners}"]
      end

      def owners
        ", #{without_owner.size} WITHOUT A LEASE HOLDER: #{without_owner.join(", ")}" unless without_owner.empty?
      end

      # @return [Array<String>] a line for each partition
      def table
        return [] if @partitions.empty?

        rows = [COLUMNS, *@partitions.map { |partition| row(partition) }]
        widths = rows.transpose.map { |cells| cells.map(&:size).max }
        rows.map { |cells| "  #{cells.zip(widths).map { |cell, width| cell.ljust(width) }.join("  ").rstrip}" }
      end

      def row(partition)
        machine, _, process = partition[:lease_holder]&.rpartition(":")
        machine = machine ? cut(machine, MAX_NAME) : NO_LEASE_HOLDER
        [*partition.values_at(:number, :online, :waiting), seconds(partition[:oldest_waiting]),
         partition[:dead_letters], machine, process || "-", seconds(partition[:lease_remaining]),
         seconds(partition[:hold].nonzero?), age(partition)].map(&:to_s)
      end

      # When the data began, and when they were last found to be older than a member knew.
      def age(partition)
        epoch, generation = partition.values_at(:epoch, :generation)
        return "-" if epoch.zero?

        generation.zero? ? moment(epoch) : "#{moment(epoch)}, went back #{moment(generation)}"
      end

      def moment(micros) = Time.at(micros / 1_000_000).utc.strftime("%F %T")

      def list_members
        @contents[:members].map do |member|
          "member: #{process_name(member)}, registered for another #{seconds(member[:remaining])}"
        end
      end

      def list_users
        users = @contents[:users] or return []

        ["users:", *users.sort_by(&:last).map { |id, ago| "  #{inspected(id)}, seen #{seconds(ago)} ago" }]
      end

      def list_events
        list("events", @contents[:events], sum(:waiting), "--events") { |event| describe(event) }
      end

      def list_dead_letters
        list("dead letters", @contents[:dead_letters], sum(:dead_letters), "--dead-letters") do |letter|
          "#{describe(letter)}#{", superseded" if letter[:superseded]}: #{letter[:error]}"
        end
      end

      def list(title, items, count, option, &describe)
        return ["#{title}: #{count}, listed with #{option}"] unless items
        return [] if items.empty?

        ["#{title}:", *items.map { |item| "  #{describe.call(item)}" }]
      end

      def describe(event)
        failed = ", failed #{times(event[:failures])}" if event[:failures].positive?
        "#{event[:transition]} #{inspected(event[:user_id])}, version #{event[:version]}#{failed}"
      end

      def seconds(number) = number ? "#{number.round(1)} s" : "-"

      def json_users
        @contents[:users]&.map { |id, ago| { **json_id(id), seen_ago: ago } }
      end

      def json_events(name)
        @contents[name]&.map do |event|
          texts = event.slice(:error).transform_values { |error| error.dup.force_encoding(Encoding::UTF_8).scrub }
          { **event, **json_id(event[:user_id]), **texts }
        end
      end

      # A String and a Symbol of the same letters are two users. JSON has no bytes: those are written as Ruby does.
      def json_id(id)
        type = id.class.name.downcase
        return { user_id: id, type: } if id.is_a?(Integer)

        text = id.to_s.encode(Encoding::UTF_8)
        { user_id: text.valid_encoding? ? text : id.to_s.dump, type: }
      rescue EncodingError
        { user_id: id.to_s.dump, type: }
      end
    end
  end
end
