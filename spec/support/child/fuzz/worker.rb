# frozen_string_literal: true

require "set"
require_relative "actions"

module Fuzz
  # A thread of a stress run, with users of its own.
  class Worker
    # @return [Hash{Object => Symbol}] its own users, and whether each should be :online or :offline
    attr_reader :model

    # @param cases [Range] the cases of the run; the worker takes every `threads`th
    def initialize(manager, config, cases, number, threads)
      @manager = manager
      @heartbeat = config.heartbeat
      @number = number
      @cases = cases.begin.step(cases.end - 1).select { |one| one % threads == number }
      @own = own_ids(Random.new(SEED + cases.begin), number, threads)
      @model = Hash.new(:offline)
      @has_left = Set.new
      @unsettled = Set.new
    end

    def run
      @cases.each do |number|
        Judge.at(number, @number)
        Thread.current.thread_variable_set(:random, @random = Random.new((SEED << 32) + number))
        attempt { @random.rand(3).zero? ? act_on_own : act }
        settle if @random.rand(300).zero?
        collect if @random.rand(3_000).zero?
      end
    rescue Exception => e # rubocop:disable Lint/RescueException -- reported, whatever it is
      Judge.fail("in the judge", e)
    ensure
      Thread.current.thread_variable_set(:random, nil)
    end

    # Waits until the reactor has no more pending callbacks for its own users.
    def settle
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 60
      @unsettled.each do |id|
        until @manager.online?(id) == (@model[id] == :online)
          Judge.demand(Process.clock_gettime(Process::CLOCK_MONOTONIC) < deadline, "#{id.inspect} is not #{@model[id]}")
          sleep 0.001
        end
      end
      @unsettled.clear
    end

    private

    # @return [Array<Proc>] each creates an id anew; no other worker has an equal id
    def own_ids(random, number, threads)
      first = {}
      Array.new(400) do |index|
        maker = Values::REGULAR.sample(random:)
        argument = random.rand(1_000)
        make = -> { maker.call(argument) }
        make if (first[make.call] ||= index) % threads == number
      end.compact
    end

    def seconds = Values.seconds(@random)
    def rarely = @random.rand(10).zero? && yield
    def ids = Values.ids(@random, Array.new(@random.rand(6)) { any_id })

    # Recent ids, also those of all workers.
    def any_id
      @recent ||= []
      case @random.rand(8)
      when 0..3 then @recent[@random.rand(64)] = Values.hostile(@random)
      when 4..5 then @recent[@random.rand(64)] || :none
      else Values.shared(@random)
      end
    end

    # @return [Boolean] whether the block returned; the judge checks what it raises
    def attempt
      is_done = false
      catch(:fuzz) do
        yield
        is_done = true
      end
      is_done
    rescue Exception => e # rubocop:disable Lint/RescueException -- hostile objects raise anything
      Judge.exception(e)
      false
    end

    def act
      return wrong_arguments if @random.rand(20).zero?

      method = Actions::WEIGHTS.sample(random: @random)
      instance_exec(any_id, &Actions::ALL.fetch(method).sample(random: @random))
    end

    def wrong_arguments
      return Lifecycle.of_class(%i[new run setup].sample(random: @random), @random) if @random.rand(5).zero?

      method = (Actions::ALL.keys - %i[stop setup run new current]).sample(random: @random)
      keywords = [{}, { timeout: seconds }, { after: seconds }, { bogus: 1 }, { "timeout" => 1 }]
      keywords = keywords.sample(random: @random)
      @manager.public_send(method, *Array.new(@random.rand(4)) { any_id }, **keywords) { nil }
    end

    def act_on_own
      id = @own.sample(random: @random).call
      case @random.rand(12)
      when 0..3 then send_heartbeat(id)
      when 4..6 then leave(id)
      when 7..8 then ask(id)
      when 9 then send_heartbeats(Array.new(@random.rand(1..8)) { @own.sample(random: @random).call })
      else refuse(id)
      end
    end

    # EventMachine's reactor crashes after a compaction, with or without our gem: it does not mark the Hash of its
    # connections.
    def collect = EM.reactor_running? || @random.rand(2).zero? ? GC.start : GC.compact

    def online?(id) = @model[id] == :online
    def settled?(id) = !@unsettled.include?(id)

    def send_heartbeat(id)
      answer = nil
      if attempt { answer = Actions::HEARTBEATS.sample(random: @random).call(@manager, @heartbeat, id) }
        Judge.demand(answer == true, "a heartbeat answered #{answer.inspect}")
        is_online(id)
      else
        # `online` is not called for a user who is online, so nothing was raised.
        Judge.demand(!(online?(id) && settled?(id)), "a heartbeat of #{id.inspect} did not return")
        @model[id] = :offline
        @unsettled.delete(id)
      end
    end

    def send_heartbeats(ids)
      # If one `online` fails, the remaining new users stay offline.
      Thread.current.thread_variable_set(:calm, true)
      answer = @manager.seen_all(ids, timeout: [nil, *Values::GOOD_SECONDS].sample(random: @random))
      Judge.demand(answer == true, "heartbeats answered #{answer.inspect}")
      ids.each { |id| is_online(id) }
    ensure
      Thread.current.thread_variable_set(:calm, nil)
    end

    def is_online(id)
      return if online?(id)

      @model[id] = :online
      # A heartbeat that comes while `offline` runs is remembered.
      @unsettled << id if @has_left.include?(id)
    end

    def leave(id)
      return @manager.leave(id, after: Values::GOOD_SECONDS.sample(random: @random)) if @random.rand(4).zero?

      was_online = @manager.leave(id)
      Judge.demand(was_online == online?(id), "leave answered #{was_online}") if settled?(id)
      @unsettled << id if online?(id)
      @has_left << id
      @model[id] = :offline
    end

    def ask(id)
      return unless settled?(id)

      Judge.demand(@manager.online?(id) == online?(id), "online? is not #{online?(id)} of #{id.inspect}")
      Judge.demand(@manager.last_seen(id).is_a?(Time) == online?(id), "last_seen of #{id.inspect}") if online?(id)
      return unless @random.rand(20).zero?

      Judge.demand(@manager.online_users.any? { |user| id.eql?(user) } == online?(id), "online_users and #{id.inspect}")
    end

    # Values that are no number of seconds change nothing.
    def refuse(id)
      bad = Values::BAD_SECONDS.sample(random: @random)
      is_done = attempt do
        @random.rand(2).zero? ? @manager.seen(id, timeout: bad) : @manager.leave(id, after: bad)
      end
      Judge.demand(!is_done, "a bad number of seconds was taken")
      ask(id)
    end
  end
end
