//! What an entry has no room for: unusual deadlines, and heartbeats and leaves to be remembered.

use std::collections::HashMap;

use crate::table::PARTS;
use crate::time::Nanos;

/// What is noted of one user. Which kind it is follows from the state in the entry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    /// Online, with a deadline that does not follow from the last heartbeat, or is far away; whether a leave has set
    /// it. It stays through `offline`, unless a heartbeat has to be remembered.
    Online { last_seen: Nanos, deadline: u64, is_left: bool },
    /// Heartbeats and leaves while somebody is inside `online`: the last timeout, the soonest leave.
    Announcing { timeout: Option<Nanos>, leave: Option<u64> },
    /// A heartbeat while somebody is inside `offline`, and whether that `offline` has returned.
    Departing { timeout: Nanos, is_waiting: bool },
}

/// The notes, by word. In parts, like the table: when a crowd leaves at once everybody gets a note, and
/// one map would have to move them all at once as it grows.
#[derive(Clone)]
pub(crate) struct Notes {
    parts: [Part; PARTS],
}

type Part = HashMap<u64, Note, foldhash::fast::RandomState>;

impl Notes {
    pub(crate) fn new() -> Notes {
        Notes { parts: std::array::from_fn(|_| Part::default()) }
    }

    pub(crate) fn get(&self, word: u64) -> Option<Note> {
        self.parts.get(part_of(word))?.get(&word).copied()
    }

    pub(crate) fn insert(&mut self, word: u64, note: Note) {
        if let Some(part) = self.parts.get_mut(part_of(word)) {
            part.insert(word, note);
        }
    }

    pub(crate) fn remove(&mut self, word: u64) -> Option<Note> {
        let part = self.parts.get_mut(part_of(word))?;
        let note = part.remove(&word);
        if part.is_empty() {
            // The memory goes with the last of them.
            part.shrink_to_fit();
        }
        note
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(HashMap::len).sum()
    }
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.parts.iter().flatten()).finish()
    }
}

/// Spreads words that follow each other as well as words of a hash (Fibonacci hashing).
fn part_of(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PARTS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_spread_and_leaves_no_memory_behind() {
        let mut notes = Notes::new();
        for number in 0..64_000 {
            notes.insert(number << 1 | 1, Note::Online { last_seen: number, deadline: 0, is_left: false });
        }
        assert!(notes.parts.iter().all(|part| (500..2_000).contains(&part.len())));
        assert_eq!(notes.len(), 64_000);
        assert!(matches!(notes.get(15), Some(Note::Online { last_seen: 7, .. })));
        for number in 0..64_000 {
            assert!(notes.remove(number << 1 | 1).is_some());
        }
        assert!(notes.remove(1).is_none());
        assert!(notes.parts.iter().all(|part| part.capacity() == 0));
    }
}
