# frozen_string_literal: true

module Conformance
  # Holds that what is refused changes nothing.
  module Unchanged
    # @return [Hash] the users and who is in which state, and when each has been seen, which tells the deadline
    def state_of(manager)
      { stats: manager.stats, users: manager.online_users.sort_by(&:inspect),
        seen: manager.online_users.to_h { |user| [user, manager.last_seen(user).to_f] } }
    end

    # Holds that the block changes nothing of it.
    def expect_unchanged(manager)
      before = state_of(manager)
      yield
      seen = before.delete(:seen).transform_values { |time| be_within(0.03).of(time) }
      expect(state_of(manager)).to match(before.merge(seen:))
    end
  end
end
