//! The ids that are strings, each stored once, at an address that is its index.
//!
//! The strings lie in chunks, one after the other: an allocation for each would cost every one of a million users 16
//! bytes and a pointer, and every heartbeat one more memory access. A string that is removed leaves a gap. When the
//! gaps are a fifth of the arena, the strings between them move into another chunk, and get another index.

use crate::id::{OwnedId, StringId};
use crate::invariant::violated;

/// The strings, each after a header with its class, its label and its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct StringArena {
    chunks: Vec<Chunk>,
    /// The chunk that is being filled, and its first free unit.
    filling: Option<(u32, u32)>,
    /// Units in all chunks, and those of them that strings are in.
    reserved: usize,
    used: usize,
    /// How many strings there are.
    count: usize,
    /// Where the search for strings to move goes on: a chunk, and a unit in it.
    cursor: (u32, u32),
}

#[derive(Clone, Debug, Default)]
struct Chunk {
    /// [`CHUNK_UNITS`] units, or a single longer string, or nothing in a chunk that is free.
    bytes: Box<[u8]>,
    /// How many units its strings take.
    used: usize,
}

/// What is at an address in a chunk.
enum Item {
    String { units: u32 },
    Gap { units: u32 },
    End,
}

/// Bytes in a unit. Addresses count units, so 32 bits address 32 GiB.
const UNIT_BYTES: usize = 8;
/// Units in a chunk (64 KiB): a power of two, so that shifts and masks turn an address into a chunk and a unit in it.
const CHUNK_UNITS: u32 = 1 << 13;
/// Units in the longest string that shares a chunk. A chunk that has no room left for it is nearly full.
const MAX_SHARED_UNITS: u32 = CHUNK_UNITS / 8;

/// Bytes before a string: class (1), label (2), mark (1), length (4).
const HEADER_BYTES: usize = 8;
/// The mark of a string. Where nothing was written yet it is 0.
const STRING: u8 = 1;
/// The mark of a string that was removed.
const GAP: u8 = 2;

impl StringArena {
    /// Copies `string` and returns its index, or `None` if no address is left for it.
    pub(crate) fn insert(&mut self, string: StringId<'_>) -> Option<u32> {
        let length = u32::try_from(string.bytes.len()).ok()?;
        let units = units_of(string.bytes.len())?;
        let index = self.reserve(units)?;
        let [low, high] = string.label.to_le_bytes();
        let [a, b, c, d] = length.to_le_bytes();
        let chunk = self.chunks.get_mut(chunk_of(index))?;
        let (header, bytes) = chunk.bytes.get_mut(offset_of(index)..)?.split_first_chunk_mut::<HEADER_BYTES>()?;
        *header = [string.class, low, high, STRING, a, b, c, d];
        bytes.get_mut(..string.bytes.len())?.copy_from_slice(string.bytes);
        chunk.used += units as usize;
        self.used += units as usize;
        self.count += 1;
        Some(index)
    }

    /// Returns how many strings there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Returns how many bytes the strings and the gaps between them take.
    pub(crate) fn bytes(&self) -> usize {
        self.reserved * UNIT_BYTES
    }

    /// Whether the string at `index` is `string`. The label is not compared.
    #[inline]
    pub(crate) fn matches(&self, index: u32, string: StringId<'_>) -> bool {
        self.at(index).is_some_and(|stored| stored.class == string.class && stored.bytes == string.bytes)
    }

    /// Returns a copy of the string at `index`.
    pub(crate) fn get(&self, index: u32) -> Option<OwnedId> {
        let StringId { bytes, class, label } = self.at(index)?;
        Some(OwnedId::String { bytes: bytes.into(), class, label })
    }

    /// Copies the string at `index` to another address and returns that one, or `None` if none is left.
    pub(crate) fn duplicate(&mut self, index: u32) -> Option<u32> {
        let StringId { bytes, class, label } = self.at(index)?;
        let bytes: Box<[u8]> = bytes.into();
        self.insert(StringId { bytes: &bytes, class, label })
    }

    /// Frees the string at `index`, which must be there. Returns how many units it took.
    pub(crate) fn remove(&mut self, index: u32) -> usize {
        let Some(units) = self.at(index).and_then(|string| units_of(string.bytes.len())) else {
            violated("a string that is removed is in the arena");
            return 0;
        };
        let units = units as usize;
        self.count -= 1;
        if self.count == 0 {
            // Otherwise the arena would keep the memory of its largest crowd.
            *self = StringArena::default();
            return units;
        }
        self.used -= units;
        let number = chunk_of(index);
        let Some(chunk) = self.chunks.get_mut(number) else { return units };
        chunk.used -= units;
        if chunk.used == 0 {
            self.reserved -= std::mem::take(chunk).bytes.len() / UNIT_BYTES;
            self.filling = self.filling.filter(|(filling, _)| *filling as usize != number);
            while self.chunks.last().is_some_and(|last| last.bytes.is_empty()) {
                self.chunks.pop();
            }
        } else if let Some([_, _, _, mark, ..]) = chunk.bytes.get_mut(offset_of(index)..) {
            *mark = GAP;
        }
        units
    }

    /// Returns the index of a string that should move, so that its chunk becomes free, or `None` if gaps take less than
    /// a fifth of the arena. Looks at as many units as are left of `budget`, and at least at one string; the next call
    /// goes on there.
    pub(crate) fn next_to_move(&mut self, budget: &mut usize) -> Option<u32> {
        while *budget > 0 && self.reserved > self.used + self.used / 4 + 2 * CHUNK_UNITS as usize {
            let (number, unit) = self.cursor;
            let item = self.item_to_move(number, unit);
            let units = match item {
                Some(Item::String { units } | Item::Gap { units }) => units,
                Some(Item::End) | None => 0,
            };
            self.cursor = match item {
                Some(Item::String { .. } | Item::Gap { .. }) => (number, unit + units),
                Some(Item::End) => (number + 1, 0),
                None => (0, 0),
            };
            *budget = budget.saturating_sub((units as usize).max(1));
            if let Some(Item::String { .. }) = item {
                return Some(number * CHUNK_UNITS + unit);
            }
        }
        None
    }

    /// Returns what is at a unit of a chunk; the end if no string of that chunk needs to move; `None` after the last
    /// chunk.
    fn item_to_move(&self, number: u32, unit: u32) -> Option<Item> {
        let Chunk { bytes, used } = self.chunks.get(number as usize)?;
        let is_shared = bytes.len() == CHUNK_UNITS as usize * UNIT_BYTES;
        let is_filling = self.filling.is_some_and(|(filling, _)| filling == number);
        // Seven eighths are as much as a chunk is sure to be filled to.
        if !is_shared || is_filling || used * 8 > CHUNK_UNITS as usize * 7 {
            return Some(Item::End);
        }
        let header = bytes.get(unit as usize * UNIT_BYTES..).and_then(|bytes| bytes.first_chunk::<HEADER_BYTES>());
        let Some([_, _, _, mark, a, b, c, d]) = header else { return Some(Item::End) };
        let units = units_of(u32::from_le_bytes([*a, *b, *c, *d]) as usize)?;
        Some(match *mark {
            STRING => Item::String { units },
            GAP => Item::Gap { units },
            _ => Item::End,
        })
    }

    /// Returns the address of that many free units.
    fn reserve(&mut self, units: u32) -> Option<u32> {
        if units > MAX_SHARED_UNITS {
            return Some(self.add_chunk(units)? * CHUNK_UNITS);
        }
        let (chunk, unit) = match self.filling {
            Some((chunk, unit)) if unit + units <= CHUNK_UNITS => (chunk, unit),
            _ => (self.add_chunk(CHUNK_UNITS)?, 0),
        };
        self.filling = Some((chunk, unit + units));
        Some(chunk * CHUNK_UNITS + unit)
    }

    /// Adds a chunk and returns its number, or `None` if no address is left for it.
    fn add_chunk(&mut self, units: u32) -> Option<u32> {
        let free = self.chunks.iter().position(|chunk| chunk.bytes.is_empty()).unwrap_or(self.chunks.len());
        // Never the last address: its key would be that of a vacant place in the table.
        let number = u32::try_from(free).ok().filter(|number| *number < u32::MAX / CHUNK_UNITS)?;
        if free == self.chunks.len() {
            self.chunks.push(Chunk::default());
        }
        self.chunks.get_mut(free)?.bytes = vec![0; units as usize * UNIT_BYTES].into_boxed_slice();
        self.reserved += units as usize;
        Some(number)
    }

    #[inline]
    fn at(&self, index: u32) -> Option<StringId<'_>> {
        let chunk = self.chunks.get(chunk_of(index))?;
        let (header, rest) = chunk.bytes.get(offset_of(index)..)?.split_first_chunk::<HEADER_BYTES>()?;
        let [class, low, high, _, a, b, c, d] = *header;
        let bytes = rest.get(..u32::from_le_bytes([a, b, c, d]) as usize)?;
        Some(StringId { bytes, class, label: u16::from_le_bytes([low, high]) })
    }
}

/// Returns how many units a string of this length takes, with its header.
fn units_of(length: usize) -> Option<u32> {
    u32::try_from((HEADER_BYTES + length).div_ceil(UNIT_BYTES)).ok()
}

#[inline]
fn chunk_of(index: u32) -> usize {
    (index / CHUNK_UNITS) as usize
}

/// Returns where a string begins in its chunk, in bytes.
#[inline]
fn offset_of(index: u32) -> usize {
    (index % CHUNK_UNITS) as usize * UNIT_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn string_id(bytes: &[u8]) -> StringId<'_> {
        StringId { bytes, class: 1, label: 515 }
    }

    #[test]
    fn a_string_comes_back_as_it_was_inserted() {
        let mut strings = StringArena::default();
        let index = strings.insert(string_id(b"ada")).unwrap();
        assert!(strings.matches(index, string_id(b"ada")));
        assert!(strings.matches(index, StringId { label: 9, ..string_id(b"ada") }));
        assert!(!strings.matches(index, StringId { class: 2, ..string_id(b"ada") }));
        assert!(!strings.matches(index, string_id(b"adb")));
        assert_eq!(strings.get(index), Some(OwnedId::String { bytes: (*b"ada").into(), class: 1, label: 515 }));
    }

    #[test]
    fn a_free_chunk_is_reused_and_the_last_ones_are_dropped() {
        let long = vec![b'x'; 10_000];
        let mut strings = StringArena::default();
        let indexes: Vec<u32> = (0..3).map(|_| strings.insert(string_id(&long)).unwrap()).collect();
        strings.remove(indexes[1]);
        assert_eq!(strings.insert(string_id(&long)), Some(indexes[1]));
        strings.remove(indexes[1]);
        strings.remove(indexes[2]);
        assert_eq!((strings.chunks.len(), strings.bytes()), (1, 10_008));
        assert!(strings.matches(indexes[0], string_id(&long)));
    }

    #[test]
    fn strings_between_gaps_have_to_move() {
        let mut strings = StringArena::default();
        let indexes: Vec<u32> =
            (0..50_000u32).map(|number| strings.insert(string_id(&number.to_le_bytes())).unwrap()).collect();
        assert_eq!(strings.next_to_move(&mut usize::MAX.clone()), None, "there are no gaps");
        let (stay, leave): (Vec<u32>, Vec<u32>) = indexes.into_iter().partition(|index| index % 100 == 0);
        leave.into_iter().for_each(|index| {
            strings.remove(index);
        });
        let mut left: std::collections::BTreeSet<u32> = stay.into_iter().collect();
        while let Some(index) = strings.next_to_move(&mut 1_000) {
            assert!(left.remove(&index), "{index} was removed, or moves twice");
            let other = strings.duplicate(index).unwrap();
            assert_eq!(strings.get(index), strings.get(other));
            strings.remove(index);
        }
        assert!(strings.bytes() <= 4 * CHUNK_UNITS as usize * UNIT_BYTES, "{}", strings.bytes());
    }

    #[test]
    fn the_search_for_strings_to_move_keeps_to_its_budget() {
        let mut strings = StringArena::default();
        let indexes: Vec<u32> =
            (0..50_000u32).map(|number| strings.insert(string_id(&number.to_le_bytes())).unwrap()).collect();
        indexes.into_iter().filter(|index| index % 1_000 != 0).for_each(|index| {
            strings.remove(index);
        });
        strings.cursor = (0, 2);
        let mut budget = 7;
        assert_eq!((strings.next_to_move(&mut budget), budget), (None, 0));
    }

    #[test]
    fn an_empty_arena_holds_no_memory() {
        let mut strings = StringArena::default();
        let kept: Vec<u32> =
            (0..10_000u32).map(|number| strings.insert(string_id(&number.to_le_bytes())).unwrap()).collect();
        kept.into_iter().for_each(|index| {
            strings.remove(index);
        });
        assert_eq!((strings.chunks.capacity(), strings.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn strings_of_all_lengths_do_not_overlap(
            steps in prop::collection::vec(
                (prop_oneof![0usize..100, 65_000usize..66_000, 100_000usize..300_000], any::<u8>(), any::<bool>()),
                1..60,
            ),
        ) {
            let mut strings = StringArena::default();
            let mut kept: Vec<(u32, Vec<u8>)> = Vec::new();
            for (length, byte, remove) in steps {
                if remove && !kept.is_empty() {
                    let (index, _) = kept.swap_remove(usize::from(byte) % kept.len());
                    strings.remove(index);
                } else {
                    let bytes = vec![byte; length];
                    let index = strings.insert(string_id(&bytes)).unwrap();
                    kept.push((index, bytes));
                }
                if let Some(index) = strings.next_to_move(&mut 1_000) {
                    let (moved, _) = kept.iter_mut().find(|(kept, _)| *kept == index).unwrap();
                    *moved = strings.duplicate(index).unwrap();
                    strings.remove(index);
                }
                for (index, bytes) in &kept {
                    prop_assert!(strings.matches(*index, string_id(bytes)));
                }
            }
        }
    }
}
