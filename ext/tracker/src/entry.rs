//! The sixteen bytes of a user.
//!
//! ```text
//! | key: 64 bits | deadline: 32 bits | wheel tick: 27 bits | state: 5 bits |
//! ```
//!
//! Deadline and wheel tick are the low bits of ticks that go on for ever; they are read relative to
//! a tick nearby. While a callback runs there is no deadline, and its bits tell when the user was last
//! seen. What does not fit (an unusual timeout, a deadline weeks away, a heartbeat to remember) stands
//! in a extra beside the table, and the state says so.

use std::ops::RangeInclusive;

use crate::id::VACANT;

/// No deadline farther ahead than this (13 days) is kept in an entry. It is a quarter of what 32 bits
/// can tell apart; the rest is for what has passed, and is read right for 39 days.
pub(crate) const HORIZON: u64 = 1 << 30;

/// No wheel entry is put farther ahead than this (9.8 hours), a quarter of what 27 bits can tell apart.
pub(crate) const WHEEL_HORIZON: u64 = 1 << 25;

/// How many timeouts have a state of their own.
pub(crate) const MAX_TIMEOUTS: u8 = 28;

const STATE_BITS: u32 = 5;
const WHEEL_BITS: u32 = 27;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const WHEEL_MASK: u64 = (1 << WHEEL_BITS) - 1;
const DEADLINE_SHIFT: u32 = STATE_BITS + WHEEL_BITS;
const DEADLINE_MASK: u64 = (1 << (u64::BITS - DEADLINE_SHIFT)) - 1;
const LOW_MASK: u64 = (1 << DEADLINE_SHIFT) - 1;

/// The wheel tick of who stands in line for a claim. It cannot age into a tick of the wheel, as a tick
/// of the past would after 19 hours in line; the wheel has no entries for ticks that look like it.
const QUEUED: u64 = 0;

/// What a user is doing, as far as five bits can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u8);

impl State {
    /// Online, and a extra holds the deadline and the last heartbeat.
    pub(crate) const OVERFLOW: State = State(MAX_TIMEOUTS);
    /// Somebody is inside `online`; a extra holds what is to be remembered, if anything.
    pub(crate) const ANNOUNCING: State = State(MAX_TIMEOUTS + 1);
    /// Somebody is inside `offline`; a extra holds what is to be remembered, if anything.
    pub(crate) const DEPARTING: State = State(MAX_TIMEOUTS + 2);

    /// No user's.
    pub(crate) const NONE: State = State(MAX_TIMEOUTS + 3);

    /// Online, with the timeout of that number.
    #[inline]
    pub(crate) fn online(index: u8) -> State {
        debug_assert!(index < MAX_TIMEOUTS);
        State(index)
    }

    /// The number of the timeout, for those who are online without a extra.
    #[inline]
    pub(crate) fn timeout_index(self) -> Option<u8> {
        (self.0 < MAX_TIMEOUTS).then_some(self.0)
    }

    /// Whether this is the state Online of the rules, noted or not.
    #[inline]
    pub(crate) fn is_online(self) -> bool {
        self.0 <= MAX_TIMEOUTS
    }
}

/// A place in the table: a user, or vacant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The user's key, or [`VACANT`].
    pub(crate) key: u64,
    meta: u64,
}

impl Entry {
    pub(crate) const NONE: Entry = Entry { key: VACANT, meta: 0 };

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

    /// The deadline, or when the user was last seen, for a present tick of about `near`.
    #[inline]
    pub(crate) fn deadline(&self, near: u64) -> u64 {
        let latest = near.wrapping_add(HORIZON);
        latest.wrapping_sub(latest.wrapping_sub(self.meta >> DEADLINE_SHIFT) & DEADLINE_MASK)
    }

    #[inline]
    pub(crate) fn set_deadline(&mut self, deadline: u64) {
        self.meta = self.meta & LOW_MASK | deadline << DEADLINE_SHIFT;
    }

    /// Moves the deadline on, of the same timeout.
    #[inline]
    pub(crate) fn extend_deadline(&mut self, deadline: u64) {
        if !self.is_later_than(deadline) {
            self.set_deadline(deadline);
        }
    }

    /// Whether the deadline that there is goes before `deadline`, of the same timeout, being no earlier. That
    /// is so when another thread read the clock later, and took the lock sooner. What seems to be later by
    /// more than the longest timeout is long past.
    #[inline]
    pub(crate) fn is_later_than(&self, deadline: u64) -> bool {
        (self.meta >> DEADLINE_SHIFT).wrapping_sub(deadline) & DEADLINE_MASK <= HORIZON / 2
    }

    /// The first tick from `tick` on that a wheel entry may be for.
    pub(crate) fn wheel_tick_from(tick: u64) -> u64 {
        if tick & WHEEL_MASK == QUEUED { tick + 1 } else { tick }
    }

    /// Records the tick of this user's wheel entry (rule 13).
    #[inline]
    pub(crate) fn set_wheel_tick(&mut self, tick: u64) {
        debug_assert!(tick & WHEEL_MASK != QUEUED);
        self.set_wheel_bits(tick & WHEEL_MASK);
    }

    /// Records that this user has no wheel entry, but stands in line for a claim.
    pub(crate) fn queue_due(&mut self) {
        self.set_wheel_bits(QUEUED);
    }

    /// Whether this user stands in line for a claim.
    pub(crate) fn is_queued(&self) -> bool {
        self.wheel_bits() == QUEUED
    }

    /// Whether the recorded wheel entry is one for `ticks`.
    pub(crate) fn is_on_wheel_in(&self, ticks: &RangeInclusive<u64>) -> bool {
        // Nothing but the distance from the first of them is right for slots of any length.
        let from_first = self.wheel_bits().wrapping_sub(*ticks.start()) & WHEEL_MASK;
        !self.is_queued() && from_first <= ticks.end() - ticks.start()
    }

    /// Whether somebody will look at this user at `deadline` or before, at a present tick of about `near`.
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

/// The tick whose low `bits` are `low`, nearest to `near`.
#[inline]
fn nearest(low: u64, bits: u32, near: u64) -> u64 {
    let spare = u64::BITS - bits;
    // Sign extension: the shift to the right is arithmetic.
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
        fn the_fields_do_not_touch_each_other(
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
        fn a_deadline_is_compared_with_the_wheel(near in HORIZON..1 << 50, wheel in 0..=WHEEL_HORIZON, deadline in 0..WHEEL_HORIZON) {
            let wheel_tick = Entry::wheel_tick_from(near + wheel);
            let mut entry = Entry::new(7, State::OVERFLOW, 0);
            entry.set_wheel_tick(wheel_tick);
            prop_assert_eq!(entry.is_scheduled_by(near + deadline, near), wheel_tick <= near + deadline);
        }

        #[test]
        fn a_wheel_entry_is_known_by_a_slot_of_any_length(tick in 1u64..1 << 50, bits in 0u32..=30) {
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
    fn a_deadline_is_overtaken_by_one_that_is_later_by_no_more_than_a_timeout() {
        let entry = Entry::new(7, State::online(0), HORIZON);
        assert!(entry.is_later_than(HORIZON - 1));
        assert!(entry.is_later_than(HORIZON));
        assert!(entry.is_later_than(HORIZON / 2));
        assert!(!entry.is_later_than(HORIZON / 2 - 1));
        assert!(!entry.is_later_than(HORIZON + 1));
        // In line for 39 days, with the longest timeout that there is a number for.
        assert!(!entry.is_later_than(HORIZON + 3 * HORIZON + HORIZON / 2 - 1));
    }

    #[test]
    fn no_wheel_entry_is_for_a_tick_that_looks_like_a_place_in_line() {
        assert_eq!(Entry::wheel_tick_from(1), 1);
        assert_eq!(Entry::wheel_tick_from(5 << WHEEL_BITS), (5 << WHEEL_BITS) + 1);
        assert_eq!(Entry::wheel_tick_from((5 << WHEEL_BITS) - 1), (5 << WHEEL_BITS) - 1);
    }
}
