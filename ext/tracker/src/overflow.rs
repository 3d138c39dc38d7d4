//! What an entry has no room for: unusual deadlines, and heartbeats and leaves to be remembered.

use std::collections::HashMap;

use crate::table::PARTS;
use crate::time::Nanos;

/// What is noted of one user. Which kind it is follows from the state in the entry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OverflowEntry {
    /// Online, with a deadline that does not follow from the last heartbeat, or is far away; whether a leave has set
    /// it. It stays through `offline`, unless a heartbeat has to be remembered.
    Online { last_seen: Nanos, deadline: u64, is_leave: bool },
    /// HeartbeatBatch and leaves while somebody is inside `online`: the last timeout, the soonest leave.
    Announcing { timeout: Option<Nanos>, leave: Option<u64> },
    /// A heartbeat while somebody is inside `offline`, and whether that `offline` has returned.
    Departing { timeout: Nanos, has_returned: bool },
}

/// The overflow, by key. In parts, like the table: when a crowd leaves at once everybody gets a entry, and
/// one map would have to move them all at once as it grows.
#[derive(Clone)]
pub(crate) struct Overflow {
    parts: [Part; PARTS],
}

type Part = HashMap<u64, OverflowEntry, foldhash::fast::RandomState>;

impl Overflow {
    pub(crate) fn new() -> Overflow {
        Overflow { parts: std::array::from_fn(|_| Part::default()) }
    }

    pub(crate) fn get(&self, key: u64) -> Option<OverflowEntry> {
        self.parts.get(part_of(key))?.get(&key).copied()
    }

    pub(crate) fn insert(&mut self, key: u64, entry: OverflowEntry) {
        if let Some(part) = self.parts.get_mut(part_of(key)) {
            part.insert(key, entry);
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<OverflowEntry> {
        let part = self.parts.get_mut(part_of(key))?;
        let entry = part.remove(&key);
        if part.is_empty() {
            // The memory goes with the last of them.
            part.shrink_to_fit();
        }
        entry
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(HashMap::len).sum()
    }
}

impl std::fmt::Debug for Overflow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.parts.iter().flatten()).finish()
    }
}

/// Spreads keys that follow each other as well as keys of a hash (Fibonacci hashing).
fn part_of(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PARTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_spread_and_leaves_no_memory_behind() {
        let mut overflow = Overflow::new();
        for number in 0..64_000 {
            overflow.insert(number << 1 | 1, OverflowEntry::Online { last_seen: number, deadline: 0, is_leave: false });
        }
        assert!(overflow.parts.iter().all(|part| (500..2_000).contains(&part.len())));
        assert_eq!(overflow.len(), 64_000);
        assert!(matches!(overflow.get(15), Some(OverflowEntry::Online { last_seen: 7, .. })));
        for number in 0..64_000 {
            assert!(overflow.remove(number << 1 | 1).is_some());
        }
        assert!(overflow.remove(1).is_none());
        assert!(overflow.parts.iter().all(|part| part.capacity() == 0));
    }
}
