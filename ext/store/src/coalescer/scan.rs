//! One pass through the users of a table: who is written, and who is forgotten.

use hashbrown::HashTable;
use online_manager_tracker::Nanos;

use super::entry::{ColdEntry, HotEntry, tick_of};
use crate::outbox::Outbox;

/// A look at everybody.
pub(super) struct Scan {
    pub(super) now: Nanos,
    /// When the store was last last_ok.
    pub(super) last_ok: Nanos,
    pub(super) common_timeout: Nanos,
    pub(super) is_changed: bool,
}

impl Scan {
    /// Answers who is forgotten.
    pub(super) fn run<'a, K, D>(
        &self,
        hots: &mut HashTable<HotEntry<K>>,
        describe: impl Fn(&K) -> D,
        cold_of: impl Fn(&D) -> Option<&'a ColdEntry>,
        outbox: &mut Outbox,
    ) -> Vec<D> {
        let tick = tick_of(self.now);
        let mut forgotten = Vec::new();
        hots.retain(|hot| {
            let needs_nothing = hot.has_common_timeout
                && !hot.is_expired(tick_of(self.last_ok), self.common_timeout)
                && (!hot.is_unwritten || hot.is_quiet(tick));
            if needs_nothing && !self.is_changed {
                return true;
            }
            let described = describe(&hot.key);
            let is_kept = cold_of(&described).is_some_and(|cold| {
                hot.has_common_timeout = cold.timeout == self.common_timeout;
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
