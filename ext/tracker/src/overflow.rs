//! What does not fit into an entry: rare deadlines, and the heartbeats and leaves that came during a callback.

use std::collections::HashMap;

use crate::table::PARTS;
use crate::time::Nanos;

/// The overflow of one user. The state in the user's entry decides the variant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OverflowEntry {
    /// Online, with a deadline that does not follow from the last heartbeat or is beyond the horizon. `deadline` is a
    /// tick; `left_at` is the time of the leave that has set it, if one has. It stays through `offline` unless a heartbeat
    /// has to be remembered.
    Online { last_seen: Nanos, deadline: u64, left_at: Option<Nanos> },
    /// What came while `online` was running: the last heartbeat's timeout, and the tick of the earliest leave.
    Announcing { timeout: Option<Nanos>, leave: Option<u64> },
    /// A heartbeat that came while `offline` was running: its timeout, and whether that `offline` has returned.
    Departing { timeout: Nanos, has_returned: bool },
}

/// The overflow entries, by key. In parts, like the table: a crowd that leaves at once gets an entry each, and a single
/// map would move them all at once as it grows.
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
            // Otherwise the map would keep the memory of its largest crowd.
            part.shrink_to_fit();
        }
        entry
    }

    /// Returns how many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(HashMap::len).sum()
    }
}

impl std::fmt::Debug for Overflow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.parts.iter().flatten()).finish()
    }
}

/// Returns the part of a key. Fibonacci hashing spreads consecutive keys as well as hashed ones.
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
            overflow.insert(number << 1 | 1, OverflowEntry::Online { last_seen: number, deadline: 0, left_at: None });
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
