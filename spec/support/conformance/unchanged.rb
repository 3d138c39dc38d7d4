# frozen_string_literal: true

module Conformance
  # Checks that a refused call changes nothing.
  module Unchanged
    # @return [Hash] the users, their states, and when each was last seen, which determines the deadline
    def state_of(manager)
      { stats: manager.stats, users: manager.online_users.sort_by(&:inspect),
        seen: manager.online_users.to_h { |user| [user, manager.last_seen(user).to_f] } }
    end

    # Checks that the block does not change {#state_of} the manager.
    def expect_unchanged(manager)
      before = state_of(manager)
      yield
      seen = before.delete(:seen).transform_values { |time| be_within(0.03).of(time) }
      expect(state_of(manager)).to match(before.merge(seen:))
    end
  end
end
