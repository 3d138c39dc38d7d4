# frozen_string_literal: true

require "json"
require_relative "log"

module Stores
  # Reads the log of an application and reports its faults. Without repeats (the same version of the same user), each
  # user's transitions must alternate, begin with online and end as the script says; versions must grow; and the
  # sessions must be exactly those of the script. It is its own process:
  #
  #   ruby judge.rb LOG SCRIPT
  #
  # prints a {#report} in JSON. The script is JSON too, with ids as tokens (see {Log.token}):
  #
  # - `sessions`: the number of each user's sessions;
  # - `online`: the users who are online at the end;
  # - `repeats`: "at kills", if only a killed or paused process explains repeats, and at most one batch of them; or
  #   "anywhere".
  class Judge
    # The maximum number of transitions that are delivered twice when a process is killed.
    BATCH = 256

    # A user: the last delivery of each version, the latest transition, the number of sessions, and which transitions
    # may be repeated once, since the store has lost its data or has older ones.
    User = Struct.new(:deliveries, :latest, :sessions, :repeatable)

    # The transitions that a user may have once more after a line of this kind: an online, since the processes write
    # again everyone who is online; and an offline of a user who is online in older data.
    REPEATABLE = { lost: %i[online], restored: %i[online offline] }.freeze

    # @param lines [Array<String>] of the log
    # @param script [Hash{String => Object}]
    def initialize(lines, script)
      @script = script
      @faults = []
      @lines = lines.filter_map { |text| Log.parse(text) || (@faults << "no line: #{text.inspect}" and nil) }
      @users = Hash.new { |users, id| users[id] = User.new({}, nil, 0, []) }
      # The processes that explain repeats, and how many.
      @interrupted = @lines.select { |line| %i[killed stopped].include?(line.kind) }.to_h { |line| [line.pid, 0] }
      @repeats = 0
    end

    # @return [Hash{Symbol => Object}] `:faults`, a sentence for each; the numbers of `:transitions` (without repeats)
    #   and of `:repeats`; the repeats by the pid of the process that explains them (`:repeats_of`); and the number of
    #   processes that were killed at each point (`:kills`)
    def report
      @lines.each { |line| line.transition? ? transition(line) : lose(line) }
      @users.keys.union(@script.fetch("sessions").keys).each { |id| check_end(id) }
      check_batches
      { faults: @faults, transitions: @users.each_value.sum { |user| user.deliveries.size }, repeats: @repeats,
        repeats_of: @interrupted, kills: @lines.select { |line| line.kind == :killed }.map(&:detail).tally }
    end

    private

    def lose(line)
      repeatable = REPEATABLE[line.kind] or return
      @users.each_value { |user| user.repeatable = repeatable }
    end

    def transition(line)
      user = @users[line.id]
      if (earlier = user.deliveries[line.version])
        repeat(line, earlier)
      else
        check_order(line, user.latest, user.repeatable)
        user.sessions += 1 if line.kind == :online && user.latest&.kind != :online
        user.latest = line
        user.repeatable = []
      end
      user.deliveries[line.version] = line
    end

    def check_order(line, latest, repeatable)
      if latest.nil?
        @faults << "order: #{line.id} begins with offline #{line.version}" if line.kind == :offline
      else
        if line.version <= latest.version
          @faults << "version: #{line.id} has #{line.kind} #{line.version} after #{latest.kind} #{latest.version}"
        end
        if line.kind == latest.kind && !repeatable.include?(line.kind)
          @faults << "order: #{line.id} is #{line.kind} twice, #{latest.version} and #{line.version}"
        end
      end
    end

    # Either the first process was interrupted before its commit, or the current process was, and has not noticed yet
    # that it is too late.
    def repeat(line, earlier)
      @repeats += 1
      if line.kind != earlier.kind
        @faults << "version: #{line.id} is both #{earlier.kind} and #{line.kind} at #{line.version}"
      elsif (pid = [earlier.pid, line.pid].find { |one| @interrupted.key?(one) })
        @interrupted[pid] += 1
      elsif @script.fetch("repeats", "at kills") == "at kills"
        @faults << "repeat: #{line.id} is #{line.kind} #{line.version} by #{earlier.pid} and by #{line.pid}, " \
                   "and neither was killed"
      end
    end

    def check_end(id)
      user = @users[id]
      played = @script.fetch("sessions")[id]
      if played.nil?
        @faults << "stranger: #{id} is not in the script"
      elsif user.sessions != played
        @faults << "sessions: #{id} had #{user.sessions}, the script played #{played}"
      end
      ends = user.latest&.kind || :offline
      wanted = @script.fetch("online", []).include?(id) ? :online : :offline
      @faults << "end: #{id} is #{ends}, not #{wanted}" unless ends == wanted
    end

    def check_batches
      @interrupted.each do |pid, repeats|
        @faults << "repeat: #{repeats} because of process #{pid}, a batch is #{BATCH}" if repeats > BATCH
      end
    end
  end
end

if $PROGRAM_NAME == __FILE__
  lines = File.readlines(ARGV.fetch(0), chomp: true, encoding: "UTF-8")
  puts JSON.generate(Stores::Judge.new(lines, JSON.parse(File.read(ARGV.fetch(1)))).report)
end
