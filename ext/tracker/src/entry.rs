//! The sixteen bytes of a user.
//!
//! ```text
//! | key: 64 bits | deadline: 32 bits | wheel tick: 27 bits | state: 5 bits |
//! ```
//!
//! The deadline and the wheel tick are the low bits of unbounded ticks; they are read relative to a tick nearby. While
//! a callback runs there is no deadline, and its bits hold when the user was last seen. What does not fit (a rare
//! timeout, a deadline weeks away, a heartbeat to remember) is in an overflow entry, and the state shows it.

use std::ops::RangeInclusive;

use crate::id::VACANT;

/// How many ticks ahead a deadline in an entry may be: 13 days. A quarter of what 32 bits distinguish; the other three
/// quarters are for ticks that have passed, which are read correctly for 39 days.
pub(crate) const HORIZON: u64 = 1 << 30;

/// How many ticks ahead a wheel entry may be: 9.8 hours, a quarter of what 27 bits distinguish.
pub(crate) const WHEEL_HORIZON: u64 = 1 << 25;

/// How many timeouts have a state of their own: what five bits leave after the five other states.
pub(crate) const MAX_TIMEOUTS: u8 = 27;

const STATE_BITS: u32 = 5;
const WHEEL_BITS: u32 = 27;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const WHEEL_MASK: u64 = (1 << WHEEL_BITS) - 1;
const DEADLINE_SHIFT: u32 = STATE_BITS + WHEEL_BITS;
const DEADLINE_MASK: u64 = (1 << (u64::BITS - DEADLINE_SHIFT)) - 1;
const LOW_MASK: u64 = (1 << DEADLINE_SHIFT) - 1;

/// The wheel tick of a user in the due queue. The wheel has no entries for ticks with these low bits, so it is never
/// mistaken for one; a tick of the past would be, after 19 hours in the queue.
const QUEUED: u64 = 0;

/// The state of a user, in five bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u8);

impl State {
    /// Online; an overflow entry holds the deadline and the last heartbeat.
    pub(crate) const OVERFLOW: State = State(MAX_TIMEOUTS);
    /// Online, with named sessions; a record of the sessions holds the deadlines and the last heartbeat.
    pub(crate) const SESSIONS: State = State(MAX_TIMEOUTS + 1);
    /// `online` is running; an overflow entry or a record of sessions holds what has to be remembered, if anything.
    pub(crate) const ANNOUNCING: State = State(MAX_TIMEOUTS + 2);
    /// `offline` is running, or has returned and the user is rejoining; an overflow entry holds what has to be
    /// remembered, if anything, and a record the sessions.
    pub(crate) const DEPARTING: State = State(MAX_TIMEOUTS + 3);
    /// The state of no user.
    pub(crate) const NONE: State = State(MAX_TIMEOUTS + 4);

    /// Returns the state Online with the timeout of that index, below [`MAX_TIMEOUTS`].
    #[inline]
    pub(crate) fn online(index: u8) -> State {
        debug_assert!(index < MAX_TIMEOUTS);
        State(index)
    }

    /// Returns the index of the timeout, or `None` in the states without one.
    #[inline]
    pub(crate) fn timeout_index(self) -> Option<u8> {
        (self.0 < MAX_TIMEOUTS).then_some(self.0)
    }

    /// Whether this is the state Online of the rules, with an overflow entry, with named sessions or with neither.
    #[inline]
    pub(crate) fn is_online(self) -> bool {
        self.0 <= State::SESSIONS.0
    }
}

/// A place in the table: a user, or vacancy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The user's key, or [`VACANT`].
    pub(crate) key: u64,
    /// The deadline, the wheel tick and the state, from the high bits to the low ones.
    meta: u64,
}

impl Entry {
    /// A vacant place.
    pub(crate) const NONE: Entry = Entry { key: VACANT, meta: 0 };

    /// Returns an entry that counts as queued: it has no wheel tick yet.
    pub(crate) fn new(key: u64, state: State, deadline: u64) -> Entry {
        let mut entry = Entry { key, meta: 0 };
        entry.set_state(state);
        entry.set_deadline(deadline);
        entry
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        State((self.meta & STATE_MASK) as u8)
    }

    #[inline]
    pub(crate) fn set_state(&mut self, state: State) {
        self.meta = self.meta & !STATE_MASK | u64::from(state.0);
    }

    /// Returns the tick of the deadline, or when the user was last seen if a callback runs. `near` is a tick of about
    /// now.
    #[inline]
    pub(crate) fn deadline(&self, near: u64) -> u64 {
        let latest = near.wrapping_add(HORIZON);
        latest.wrapping_sub(latest.wrapping_sub(self.meta >> DEADLINE_SHIFT) & DEADLINE_MASK)
    }

    #[inline]
    pub(crate) fn set_deadline(&mut self, deadline: u64) {
        self.meta = self.meta & LOW_MASK | deadline << DEADLINE_SHIFT;
    }

    /// Sets the deadline unless a later one of the same timeout is there (see [`Entry::is_later_than`]).
    #[inline]
    pub(crate) fn extend_deadline(&mut self, deadline: u64) {
        if !self.is_later_than(deadline) {
            self.set_deadline(deadline);
        }
    }

    /// Whether the entry's deadline is at `deadline` or later, both of the same timeout. It is when another thread read
    /// the clock later but took the lock earlier. A difference of more than the longest timeout with a number is that
    /// of a deadline long past.
    #[inline]
    pub(crate) fn is_later_than(&self, deadline: u64) -> bool {
        (self.meta >> DEADLINE_SHIFT).wrapping_sub(deadline) & DEADLINE_MASK <= HORIZON / 2
    }

    /// Returns the first tick from `tick` on that a wheel entry may be for: `tick`, or the next one if it looks like
    /// [`QUEUED`].
    pub(crate) fn wheel_tick_from(tick: u64) -> u64 {
        if tick & WHEEL_MASK == QUEUED { tick + 1 } else { tick }
    }

    /// Returns the last tick before `tick` that a wheel entry may be for.
    pub(crate) fn wheel_tick_before(tick: u64) -> u64 {
        if (tick - 1) & WHEEL_MASK == QUEUED { tick - 2 } else { tick - 1 }
    }

    /// Returns the recorded tick of this user's wheel entry: the first one with its bits from the wheel's `hand` on.
    pub(crate) fn wheel_tick_from_hand(&self, hand: u64) -> u64 {
        hand + (self.wheel_bits().wrapping_sub(hand) & WHEEL_MASK)
    }

    /// Records the tick of this user's wheel entry (rule 13).
    #[inline]
    pub(crate) fn set_wheel_tick(&mut self, tick: u64) {
        debug_assert!(tick & WHEEL_MASK != QUEUED);
        self.set_wheel_bits(tick & WHEEL_MASK);
    }

    /// Records that this user is in the due queue, and not on the wheel.
    pub(crate) fn queue_due(&mut self) {
        self.set_wheel_bits(QUEUED);
    }

    /// Whether this user is in the due queue.
    pub(crate) fn is_queued(&self) -> bool {
        self.wheel_bits() == QUEUED
    }

    /// Whether the recorded wheel entry is for one of `ticks`.
    pub(crate) fn is_on_wheel_in(&self, ticks: &RangeInclusive<u64>) -> bool {
        // The distance from the first tick is correct for slots of any length; comparing both ends is not.
        let from_first = self.wheel_bits().wrapping_sub(*ticks.start()) & WHEEL_MASK;
        !self.is_queued() && from_first <= ticks.end() - ticks.start()
    }

    /// Whether this user is checked at the tick `deadline` or before: queued, or on the wheel. `near` is a tick of
    /// about now.
    pub(crate) fn is_scheduled_by(&self, deadline: u64, near: u64) -> bool {
        self.is_queued() || nearest(self.wheel_bits(), WHEEL_BITS, near) <= deadline
    }

    #[inline]
    fn wheel_bits(&self) -> u64 {
        self.meta >> STATE_BITS & WHEEL_MASK
    }

    #[inline]
    fn set_wheel_bits(&mut self, bits: u64) {
        self.meta = self.meta & !(WHEEL_MASK << STATE_BITS) | bits << STATE_BITS;
    }
}

/// Returns the tick nearest to `near` whose low `bits` are `low`.
#[inline]
fn nearest(low: u64, bits: u32, near: u64) -> u64 {
    let spare = u64::BITS - bits;
    // An arithmetic shift: it extends the sign.
    let distance = (low.wrapping_sub(near) << spare) as i64 >> spare;
    near.wrapping_add_signed(distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_sixteen_bytes() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    proptest! {
        #[test]
        fn the_fields_do_not_overlap(
            near in HORIZON..1 << 50,
            ahead in 0..=HORIZON,
            behind in 0..3 * HORIZON,
            wheel_ahead in 0..=WHEEL_HORIZON,
            index in 0..MAX_TIMEOUTS,
        ) {
            let wheel_tick = Entry::wheel_tick_from(near + wheel_ahead);
            let mut entry = Entry::new(7, State::online(index), near + ahead);
            entry.set_wheel_tick(wheel_tick);
            prop_assert_eq!(entry.state().timeout_index(), Some(index));
            prop_assert_eq!(entry.deadline(near), near + ahead);
            prop_assert!(entry.is_on_wheel_in(&(wheel_tick..=wheel_tick)));
            prop_assert_eq!(entry.wheel_tick_from_hand(wheel_tick - wheel_ahead), wheel_tick);
            entry.set_state(State::DEPARTING);
            entry.set_deadline(near.wrapping_sub(behind));
            prop_assert_eq!(entry.deadline(near), near.wrapping_sub(behind));
            prop_assert!(entry.is_on_wheel_in(&(wheel_tick..=wheel_tick)));
            entry.queue_due();
            prop_assert!(entry.is_queued());
            prop_assert_eq!(entry.deadline(near), near.wrapping_sub(behind));
            prop_assert_eq!(entry.state(), State::DEPARTING);
        }

        #[test]
        fn a_deadline_is_compared_with_the_wheel(
            near in HORIZON..1 << 50,
            wheel in 0..=WHEEL_HORIZON,
            deadline in 0..WHEEL_HORIZON,
        ) {
            let wheel_tick = Entry::wheel_tick_from(near + wheel);
            let mut entry = Entry::new(7, State::OVERFLOW, 0);
            entry.set_wheel_tick(wheel_tick);
            prop_assert_eq!(entry.is_scheduled_by(near + deadline, near), wheel_tick <= near + deadline);
        }

        #[test]
        fn a_wheel_entry_is_found_in_a_slot_of_any_length(tick in 1u64..1 << 50, bits in 0u32..=30) {
            let tick = Entry::wheel_tick_from(tick);
            let mut entry = Entry::new(7, State::OVERFLOW, 0);
            entry.set_wheel_tick(tick);
            let first = tick >> bits << bits;
            prop_assert!(entry.is_on_wheel_in(&(first..=first + (1 << bits) - 1)));
            if bits < WHEEL_BITS {
                prop_assert!(!entry.is_on_wheel_in(&(first + (1 << bits)..=first + (2 << bits) - 1)));
            }
            entry.queue_due();
            prop_assert!(!entry.is_on_wheel_in(&(first..=first + (1 << bits) - 1)));
            prop_assert!(entry.is_scheduled_by(0, tick));
        }
    }

    #[test]
    fn a_deadline_is_later_only_by_up_to_the_longest_timeout() {
        let entry = Entry::new(7, State::online(0), HORIZON);
        assert!(entry.is_later_than(HORIZON - 1));
        assert!(entry.is_later_than(HORIZON));
        assert!(entry.is_later_than(HORIZON / 2));
        assert!(!entry.is_later_than(HORIZON / 2 - 1));
        assert!(!entry.is_later_than(HORIZON + 1));
        // Queued for 39 days, with the longest timeout that has a number.
        assert!(!entry.is_later_than(HORIZON + 3 * HORIZON + HORIZON / 2 - 1));
    }

    #[test]
    fn no_wheel_entry_is_for_a_tick_that_looks_queued() {
        assert_eq!(Entry::wheel_tick_from(1), 1);
        assert_eq!(Entry::wheel_tick_from(5 << WHEEL_BITS), (5 << WHEEL_BITS) + 1);
        assert_eq!(Entry::wheel_tick_from((5 << WHEEL_BITS) - 1), (5 << WHEEL_BITS) - 1);
        assert_eq!(Entry::wheel_tick_before((5 << WHEEL_BITS) + 2), (5 << WHEEL_BITS) + 1);
        assert_eq!(Entry::wheel_tick_before((5 << WHEEL_BITS) + 1), (5 << WHEEL_BITS) - 1);
    }
}
