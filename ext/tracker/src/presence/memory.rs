//! What keeps memory bounded by the users who are here now (rule 16).
//!
//! A user who leaves, or whose deadline is brought forward, leaves a key behind on the wheel, and a gap between the
//! strings. Whatever makes more of them takes a few away: no call takes long, and nothing has to run in the background.

use std::collections::VecDeque;

use super::Presence;
use crate::entry::{Entry, State};
use crate::id::{Id, is_valid_key};
use crate::table::Place;
use crate::wheel::Swept;

/// How many keys are taken from the wheel for each that is left behind, at most. A sweep of a wheel of which a third
/// does not count takes three for each.
const SWEPT_PER_KEY: usize = 8;

/// How many keys may be left behind, whatever the number of users.
const SPARE_KEYS: usize = 2;

/// How many units of strings are searched for each unit of a string that is removed. Chunks that are filled to more
/// than seven eighths are left alone, so this makes as many units free.
const UNITS_PER_UNIT: usize = 8;

impl Presence {
    /// Forgets the user at `place`.
    pub(super) fn forget(&mut self, place: Place) {
        if let Some(entry) = self.table.get(place) {
            let (key, state) = (entry.key, entry.state());
            self.forget_sessions(key, state != State::DEPARTING);
        }
        let units = self.table.remove(place);
        self.sweep_wheel();
        self.move_strings(units * UNITS_PER_UNIT);
    }

    /// Drops keys from the wheel that do not count any more, if there are more than half as many as users. Of the same
    /// keys in one slot the first is put into an earlier slot, so that the others do not count: the user is checked too
    /// early once, and put back.
    pub(super) fn sweep_wheel(&mut self) {
        let users = self.counts.present + self.counts.departing;
        for _ in 0..SWEPT_PER_KEY {
            if self.wheel.len() <= users + users / 2 + SPARE_KEYS {
                break;
            }
            let Some(Swept { key, is_last, ticks }) = self.wheel.sweep() else { continue };
            if let Some(place) = self.table.find_key(key)
                && let Some(entry) = self.table.get(place)
                && entry.state().is_online()
                && entry.is_on_wheel_in(&ticks)
            {
                let same = entry.wheel_tick_from_hand(self.wheel.hand());
                self.put_on_wheel(place, if is_last { same } else { Entry::wheel_tick_before(*ticks.start()) });
            }
        }
    }

    /// Moves strings out of chunks with gaps, if gaps take too much. Looks at `budget` units.
    fn move_strings(&mut self, mut budget: usize) {
        while let Some(key) = self.table.next_string_to_move(&mut budget) {
            if let Some(place) = self.table.find_key(key)
                && self.is_movable(place)
                && let Some(copy) = self.table.duplicate_string(key)
            {
                self.rekey_at(place, copy);
            }
        }
    }

    /// Gives the user with the key `old` the key `new`, which no user has; both are the caller's. Returns false, and
    /// changes nothing, if the user is in the due queue or a callback runs: somebody else knows the user by the old key
    /// then.
    pub fn rekey(&mut self, old: u64, new: u64) -> bool {
        debug_assert!(is_valid_key(old) && is_valid_key(new) && !self.is_known(Id::Key(new)));
        let place = self.table.find_key(old).filter(|place| self.is_movable(*place));
        place.is_some_and(|place| self.rekey_at(place, new).is_some())
    }

    /// Whether only the wheel knows the key of the user at `place`.
    fn is_movable(&self, place: Place) -> bool {
        !self.is_stopping && self.table.get(place).is_some_and(|entry| entry.state().is_online() && !entry.is_queued())
    }

    /// Gives the user at `place` another key. The old one stays on the wheel, and does not count any more.
    fn rekey_at(&mut self, place: Place, new: u64) -> Option<Place> {
        let Entry { key: old, .. } = *self.table.get(place)?;
        let tick = self.table.get(place)?.wheel_tick_from_hand(self.wheel.hand());
        let place = self.table.rekey(place, new)?;
        if let Some(overflow) = self.overflow.remove(old) {
            self.overflow.insert(new, overflow);
        }
        let sessions = self.sessions.take(old, true);
        self.sessions.put(new, sessions, true);
        self.put_on_wheel(place, tick);
        self.sweep_wheel();
        Some(place)
    }

    /// Forgets everybody and frees all memory, for good: no method may be called afterwards.
    pub(crate) fn free(&mut self) {
        self.table.free();
        self.overflow.free();
        self.sessions.free();
        self.session_keys.free();
        self.wheel.clear();
        self.drained = None;
        self.due = VecDeque::new();
        self.rejoining = VecDeque::new();
    }

    /// Returns how many entries, sessions, strings, keys on the wheel and keys in queues there are: 0 when all users
    /// have left and their wheel entries have come up.
    #[doc(hidden)]
    pub fn kept(&self) -> usize {
        let drained = self.drained.as_ref().map_or(0, |slot| slot.keys.len());
        let sessions = self.sessions.len() + self.session_keys.len();
        let queues = drained + self.due.len() + self.rejoining.len();
        self.table.len() + self.overflow.len() + sessions + self.wheel.len() + queues
    }

    /// Returns how many bytes the sessions of users with named ones take, without the strings of ids.
    #[doc(hidden)]
    pub fn session_bytes(&self) -> usize {
        self.sessions.bytes()
    }

    /// Returns how many keys are on the wheel.
    #[doc(hidden)]
    pub fn wheel_words(&self) -> usize {
        self.wheel.len()
    }

    /// Returns how many bytes are reserved for strings.
    #[doc(hidden)]
    pub fn string_bytes(&self) -> usize {
        self.table.string_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::StringId;
    use crate::presence::HeartbeatOutcome;

    #[test]
    fn nothing_is_kept_of_users_who_are_freed() {
        let mut presence = Presence::new(0, 5_000_000);
        let ids = [Id::Key(1), Id::String(StringId { bytes: b"ada", class: 0, label: 0 })];
        for id in ids {
            assert!(matches!(presence.heartbeat(id, 0, 1_000_000_000), HeartbeatOutcome::Announce(_)));
        }
        assert!(presence.string_bytes() > 0);
        presence.free();
        assert_eq!((presence.kept(), presence.string_bytes()), (0, 0));
    }
}
