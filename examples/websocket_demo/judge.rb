# frozen_string_literal: true

module WebSocketDemo
  # Reads the journal of a finished run and names every transition that is missing, doubled or early. It measures from
  # the heartbeats that the server received, not from those that the clients sent, so a slow network or a busy machine
  # makes no transition early.
  class Judge
    # @param expected [Hash{String => Symbol}] what has to set each user offline: :timeout or :shutdown
    # @param timeout [Numeric] seconds without a heartbeat after which a user is offline
    def initialize(journal, expected:, timeout:)
      @journal = journal
      @expected = expected
      @timeout = timeout
    end

    # @return [Array<String>] one sentence for each fault; empty if there is none
    def faults
      unexpected + @expected.flat_map do |user, cause|
        transitions = @journal.transitions.select { |transition| transition.user == user }
        missing(user, cause, transitions) + doubled(user, transitions) + early(user, cause, transitions)
      end
    end

    private

    def unexpected
      users = @journal.transitions.map(&:user).uniq - @expected.keys
      users.map { |user| "unexpected: transitions of #{user}, who has no client" }
    end

    def missing(user, cause, transitions)
      faults = (%i[online offline] - transitions.map(&:state)).map { |state| "missing: #{user} never came #{state}" }
      offline = transitions.find { |transition| transition.state == :offline }
      if offline && cause == :timeout && @journal.by_shutdown?(offline)
        faults << "missing: #{user} was not set offline by the timeout, only by the shutdown"
      end
      faults
    end

    def doubled(user, transitions)
      transitions.group_by(&:state).filter_map do |state, same|
        "doubled: #{user} came #{state} #{same.size} times#{busy_machine(user)}" if same.size > 1
      end
    end

    def early(user, cause, transitions)
      swapped = transitions.map(&:state).first(2) == %i[offline online]
      leads = swapped ? ["offline before online"] : []
      leads += transitions.filter_map do |transition|
        lead = lead_of(transition, cause)
        "#{transition.state} #{lead}" if lead
      end
      leads.map { |lead| "early: #{user} came #{lead}" }
    end

    # @return [String, nil] how much too early the transition came; nil if it did not
    def lead_of(transition, cause)
      last = @journal.last_heartbeat(transition.user, before: transition.at)
      return "without a heartbeat" unless last
      return if transition.state == :online || @journal.by_shutdown?(transition)

      silence = transition.at - last
      if silence < @timeout
        "#{silence.round(3)} s after the last heartbeat, the timeout is #{@timeout} s"
      elsif cause == :shutdown
        "before the shutdown#{busy_machine(transition.user)}"
      end
    end

    # If the machine blocked a client for longer than the timeout, its offline is correct, and the gem is not at fault.
    def busy_machine(user)
      gap = @journal.heartbeats(user).each_cons(2).map { |one, other| other - one }.max
      return "" if gap.nil? || gap < @timeout

      format(" (but the server saw no heartbeat for %.2f s: is this machine very busy?)", gap)
    end
  end
end
