//! What does not fit into an entry: rare deadlines, and the heartbeats and leaves that came during a callback.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::invariant::violated;
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
    parts: Box<[Part]>,
    /// Chooses the part. Seeded at random, since an attacker may choose keys: were they all in one part, a single leave
    /// would move a million entries.
    hasher: RandomState,
}

type Part = HashMap<u64, OverflowEntry, RandomState>;

impl Overflow {
    pub(crate) fn new() -> Overflow {
        Overflow { parts: (0..PARTS).map(|_| Part::default()).collect(), hasher: RandomState::default() }
    }

    pub(crate) fn get(&self, key: u64) -> Option<OverflowEntry> {
        self.parts.get(self.part_of(key))?.get(&key).copied()
    }

    pub(crate) fn insert(&mut self, key: u64, entry: OverflowEntry) {
        let part = self.part_of(key);
        if let Some(part) = self.parts.get_mut(part) {
            part.insert(key, entry);
        } else {
            violated("each key has a part of the overflow");
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<OverflowEntry> {
        let part = self.part_of(key);
        let part = self.parts.get_mut(part)?;
        let entry = part.remove(&key);
        if part.len() * 8 <= part.capacity() {
            // Otherwise the map would keep the memory of its largest crowd.
            part.shrink_to(part.len() * 2);
        }
        entry
    }

    /// Frees all memory, for good.
    pub(crate) fn free(&mut self) {
        self.parts = Box::default();
    }

    fn part_of(&self, key: u64) -> usize {
        self.hasher.hash_one(key) as usize % PARTS
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

    #[test]
    fn chosen_keys_do_not_share_a_part() {
        // 0x9e37_79b9_7f4a_7c15 is the multiplier of Fibonacci hashing, and this its inverse: the products are small.
        let inverse = 0xf1de_83e1_9937_733du64;
        assert_eq!(inverse.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1);
        let chosen =
            [inverse, 1 << 8, 1 << 32, 1 << 48].map(|step| (0..64_000).map(move |n: u64| n.wrapping_mul(step) | 1));
        for keys in chosen {
            let mut overflow = Overflow::new();
            let entry = OverflowEntry::Online { last_seen: 0, deadline: 0, left_at: None };
            keys.for_each(|key| overflow.insert(key, entry));
            let mean = overflow.len() / PARTS;
            assert!(overflow.parts.iter().all(|part| (mean / 2..2 * mean).contains(&part.len())), "not spread");
        }
    }

    #[test]
    fn a_part_shrinks_with_its_crowd() {
        let mut overflow = Overflow::new();
        for number in 0..64_000 {
            overflow.insert(number << 1 | 1, OverflowEntry::Online { last_seen: number, deadline: 0, left_at: None });
        }
        for number in 1_000..64_000 {
            overflow.remove(number << 1 | 1);
        }
        let capacity: usize = overflow.parts.iter().map(HashMap::capacity).sum();
        assert!(capacity <= 8 * 1_000, "{capacity} places");
        assert!((0..1_000).all(|number| overflow.get(number << 1 | 1).is_some()));
    }
}
