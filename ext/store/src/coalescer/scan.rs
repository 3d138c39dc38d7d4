//! One pass through the users of a part: which heartbeats are written, and who is forgotten.

use hashbrown::HashTable;
use online_manager_tracker::Nanos;

use super::entry::{ColdEntry, HotEntry, Tick};
use crate::outbox::Outbox;

/// The arguments of a pass.
pub(super) struct Scan {
    pub(super) now: Nanos,
    /// The time of the store's last success.
    pub(super) last_ok: Nanos,
    pub(super) common_timeout: Nanos,
    /// Whether the common timeout has changed since the last pass.
    pub(super) is_changed: bool,
}

impl Scan {
    /// Passes through a table, and removes users who have expired and whose last heartbeat is written. Returns what
    /// `describe` returns for them. `cold_of` finds the second entry of a user; it is called only where the first entry
    /// is not enough.
    pub(super) fn run<'a, K, D>(
        &self,
        table: &mut HashTable<HotEntry<K>>,
        describe: impl Fn(&K) -> D,
        cold_of: impl Fn(&D) -> Option<&'a ColdEntry>,
        outbox: &mut Outbox,
    ) -> Vec<D> {
        let tick = Tick::of(self.now);
        let mut forgotten = Vec::new();
        table.retain(|hot| {
            let needs_nothing = hot.has_common_timeout
                && !hot.is_expired(Tick::of(self.last_ok), self.common_timeout)
                && (!hot.is_unwritten || hot.is_quiet(tick));
            if needs_nothing && !self.is_changed {
                return true;
            }
            let described = describe(&hot.key);
            let is_kept = cold_of(&described).is_some_and(|cold| {
                // Who has left is checked in each pass: whether the user is over does not only depend on the timeout.
                hot.has_common_timeout = cold.timeout == self.common_timeout && !cold.is_left.get();
                hot.scan(cold, (self.now, self.last_ok), outbox)
            });
            if !is_kept {
                forgotten.push(described);
            }
            is_kept
        });
        forgotten
    }
}
