//! The ids that are strings, each stored once, at an address that is its index.
//!
//! The strings lie in chunks, one after the other: an allocation for each would cost every one of a million users 16
//! bytes and a pointer, and every heartbeat one more memory access.

use std::collections::HashMap;

use crate::id::{OwnedId, StringId};

/// The strings, each after a header with its class, its label and its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct StringArena {
    /// Chunks of [`CHUNK_UNITS`] units, except those that hold a single longer string.
    chunks: Vec<Box<[u8]>>,
    /// The chunk that is being filled, and its first free unit.
    filling: Option<(u32, u32)>,
    /// Freed addresses, by their number of units.
    free: HashMap<u32, Vec<u32>>,
    /// Chunks whose single string was freed.
    free_chunks: Vec<u32>,
    /// How many strings there are.
    count: usize,
}

/// Bytes in a unit. Addresses count units, so 32 bits address 32 GiB.
const UNIT_BYTES: usize = 8;
/// Units in a chunk (64 KiB): a power of two, so that shifts and masks turn an address into a chunk and a unit in it.
const CHUNK_UNITS: u32 = 1 << 13;

/// Bytes before a string: class (1), label (2), unused (1), length (4).
const HEADER_BYTES: usize = 8;

impl StringArena {
    /// Copies `string` and returns its index, or `None` if no address is left for it.
    pub(crate) fn insert(&mut self, string: StringId<'_>) -> Option<u32> {
        let length = u32::try_from(string.bytes.len()).ok()?;
        let units = u32::try_from((HEADER_BYTES + string.bytes.len()).div_ceil(UNIT_BYTES)).ok()?;
        let index = self.reserve(units)?;
        let [low, high] = string.label.to_le_bytes();
        let [a, b, c, d] = length.to_le_bytes();
        let (header, bytes) = self.at_mut(index)?.split_first_chunk_mut::<HEADER_BYTES>()?;
        *header = [string.class, low, high, 0, a, b, c, d];
        bytes.get_mut(..string.bytes.len())?.copy_from_slice(string.bytes);
        self.count += 1;
        Some(index)
    }

    /// Returns how many strings there are.
    pub(crate) fn len(&self) -> usize {
        self.count
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

    /// Frees the string at `index`, which must be there.
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(length) = self.at(index).map(|string| string.bytes.len()) else { return };
        self.count -= 1;
        if self.count == 0 {
            // Otherwise the arena would keep the memory of its largest crowd.
            *self = StringArena::default();
            return;
        }
        let units = (HEADER_BYTES + length).div_ceil(UNIT_BYTES) as u32;
        if units <= CHUNK_UNITS {
            self.free.entry(units).or_default().push(index);
        } else if let Some(chunk) = self.chunks.get_mut((index / CHUNK_UNITS) as usize) {
            *chunk = Box::default();
            self.free_chunks.push(index / CHUNK_UNITS);
        }
    }

    /// Returns the address of that many free units.
    fn reserve(&mut self, units: u32) -> Option<u32> {
        if let Some(index) = self.free.get_mut(&units).and_then(Vec::pop) {
            return Some(index);
        }
        if units > CHUNK_UNITS {
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
        let chunk = vec![0; units as usize * UNIT_BYTES].into_boxed_slice();
        if let Some(number) = self.free_chunks.pop() {
            *self.chunks.get_mut(number as usize)? = chunk;
            return Some(number);
        }
        // Never the last address: its key would be that of a vacant place in the table.
        let number = u32::try_from(self.chunks.len()).ok().filter(|number| *number < u32::MAX / CHUNK_UNITS)?;
        self.chunks.push(chunk);
        Some(number)
    }

    #[inline]
    fn at(&self, index: u32) -> Option<StringId<'_>> {
        let chunk = self.chunks.get((index / CHUNK_UNITS) as usize)?;
        let (header, rest) =
            chunk.get((index % CHUNK_UNITS) as usize * UNIT_BYTES..)?.split_first_chunk::<HEADER_BYTES>()?;
        let [class, low, high, _, a, b, c, d] = *header;
        let bytes = rest.get(..u32::from_le_bytes([a, b, c, d]) as usize)?;
        Some(StringId { bytes, class, label: u16::from_le_bytes([low, high]) })
    }

    fn at_mut(&mut self, index: u32) -> Option<&mut [u8]> {
        self.chunks.get_mut((index / CHUNK_UNITS) as usize)?.get_mut((index % CHUNK_UNITS) as usize * UNIT_BYTES..)
    }
}

#[cfg(test)]
mod tests {
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
    fn a_freed_address_is_reused() {
        let mut strings = StringArena::default();
        let first = strings.insert(string_id(b"bob")).unwrap();
        let second = strings.insert(string_id(b"a longer one")).unwrap();
        strings.remove(first);
        assert_ne!(strings.insert(string_id(b"another that is longer")), Some(first));
        assert_eq!(strings.insert(string_id(b"cyd")), Some(first));
        assert!(strings.matches(second, string_id(b"a longer one")));
    }

    #[test]
    fn an_empty_arena_holds_no_memory() {
        let mut strings = StringArena::default();
        let kept: Vec<u32> =
            (0..10_000u32).map(|number| strings.insert(string_id(&number.to_le_bytes())).unwrap()).collect();
        kept.into_iter().for_each(|index| strings.remove(index));
        assert_eq!(strings.chunks.capacity() + strings.free.capacity(), 0);
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
                for (index, bytes) in &kept {
                    prop_assert!(strings.matches(*index, string_id(bytes)));
                }
            }
        }
    }
}
