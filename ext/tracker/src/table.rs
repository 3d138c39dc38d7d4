//! Where a user is kept: linear probing over sixteen-byte entries, in 64 parts that grow one by one.
//!
//! One table would have to move every user at once when it grows, with a heartbeat waiting.

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;

use foldhash::quality::RandomState;

use crate::entry::Entry;
use crate::id::{Id, StringId, VACANT, is_valid_key, short_hash, string_index, string_key};
use crate::string_arena::StringArena;

/// How many parts there are.
pub(crate) const PARTS: usize = 64;

const PART_BITS: u32 = PARTS.trailing_zeros();
/// The part is chosen by the top bits of the hash, the place within it by the bits below them.
const PART_SHIFT: u32 = u64::BITS - PART_BITS;
const SMALLEST: usize = 8;

/// How many entries are fetched from memory together: more than a processor keeps track of would be for nothing.
pub(crate) const PREFETCH_BATCH: usize = 16;

/// Where an entry is. Good until an entry is inserted or removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    part: usize,
    index: usize,
}

/// Every user's entry, found by id or by key.
#[derive(Clone)]
pub(crate) struct Table {
    parts: Box<[Part]>,
    strings: StringArena,
    /// Keyed at random: ids may be chosen by an attacker. Not the fast one, which is one multiplication less: under one in a
    /// hundred of its keys the ids of neighbours lie in heaps.
    hasher: RandomState,
}

#[derive(Clone, Default)]
struct Part {
    /// Empty, or of a length that is a power of two, with vacant places in it.
    entries: Vec<Entry>,
    len: usize,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            strings: StringArena::default(),
            hasher: RandomState::default(),
        }
    }

    /// Where the user of `id` is.
    #[inline]
    pub(crate) fn find(&self, id: Id<'_>) -> Option<Place> {
        match id {
            Id::Key(key) => {
                debug_assert!(is_valid_key(key), "{key:#x} is not the caller's to choose");
                self.find_key(key)
            }
            Id::String(string) => {
                let hash = self.hash_string(string);
                let key_of_hash = string_key(hash, 0);
                let hash_mask = !0 << (u64::BITS - crate::id::HASH_BITS);
                self.probe(hash, |key| {
                    (key ^ key_of_hash) & hash_mask == 0
                        && string_index(key).is_some_and(|index| self.strings.matches(index, string))
                })
            }
        }
    }

    /// Changes nothing, but makes it faster to find `string` soon: the processor fetches from memory what lies where the search
    /// will begin. It waits for several of them once, and not for one after the other.
    #[inline]
    pub(crate) fn prefetch_string(&self, string: StringId<'_>) {
        self.prefetch_one(self.hash_string(string));
    }

    /// The same before a long row of keys is sought: `keys` are those that are left after `number` of them.
    #[inline]
    pub(crate) fn prefetch<'a>(&self, number: usize, keys: impl IntoIterator<Item = &'a u64>) {
        if number.is_multiple_of(PREFETCH_BATCH) {
            keys.into_iter().take(PREFETCH_BATCH).for_each(|key| self.prefetch_one(self.hash_of(*key)));
        }
    }

    #[inline]
    fn prefetch_one(&self, hash: u64) {
        if let Some(part) = self.parts.get(part_of(hash)) {
            black_box(part.entries.get(home(hash) & part.entries.len().wrapping_sub(1)).map(|entry| entry.key));
        }
    }

    /// Where the user kept under `key` is.
    #[inline]
    pub(crate) fn find_key(&self, key: u64) -> Option<Place> {
        self.probe(self.hash_of(key), |other| other == key)
    }

    #[inline]
    fn probe(&self, hash: u64, is_wanted: impl Fn(u64) -> bool) -> Option<Place> {
        let part = part_of(hash);
        let index = self.parts.get(part)?.probe(hash, is_wanted)?;
        Some(Place { part, index })
    }

    #[inline]
    pub(crate) fn get(&self, place: Place) -> Option<&Entry> {
        self.parts.get(place.part)?.entries.get(place.index)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.parts.get_mut(place.part)?.entries.get_mut(place.index)
    }

    /// Finds the entry kept under `key` and lends it.
    #[inline]
    pub(crate) fn entry_mut(&mut self, key: u64) -> Option<&mut Entry> {
        let hash = self.hash_of(key);
        let part = self.parts.get_mut(part_of(hash))?;
        let index = part.probe(hash, |other| other == key)?;
        part.entries.get_mut(index)
    }

    /// The key under which a user who is not in the table will be kept. A string is copied.
    pub(crate) fn key_for(&mut self, id: Id<'_>) -> Option<u64> {
        match id {
            Id::Key(key) => Some(key),
            Id::String(string) => {
                let hash = self.hash_string(string);
                Some(string_key(hash, self.strings.insert(string)?))
            }
        }
    }

    /// Adds an entry whose key is not in the table.
    pub(crate) fn insert(&mut self, entry: Entry) {
        let hash = self.hash_of(entry.key);
        let Table { parts, hasher, .. } = self;
        if let Some(part) = parts.get_mut(part_of(hash)) {
            // Three quarters: beyond that the runs of linear probing become long.
            if (part.len + 1) * 4 > part.entries.len() * 3 {
                part.resize((part.entries.len() * 2).max(SMALLEST), hasher);
            }
            part.place(entry, hash);
            part.len += 1;
        }
    }

    /// Removes the entry at `place`, and the string that it was the key of.
    pub(crate) fn remove(&mut self, place: Place) {
        let Table { parts, strings, hasher } = self;
        let Some(part) = parts.get_mut(place.part) else { return };
        let Some(key) = part.entries.get(place.index).map(|entry| entry.key) else { return };
        if key == VACANT {
            return;
        }
        if let Some(index) = string_index(key) {
            strings.remove(index);
        }
        part.vacate(place.index, hasher);
        part.len -= 1;
        if part.len == 0 {
            *part = Part::default();
        } else if part.len * 8 < part.entries.len() {
            part.resize((part.entries.len() / 2).max(SMALLEST), hasher);
        }
    }

    /// The entries of one part, of which there are [`PARTS`].
    pub(crate) fn part(&self, part: usize) -> impl Iterator<Item = &Entry> {
        self.parts.get(part).into_iter().flat_map(|part| &part.entries).filter(|entry| entry.key != VACANT)
    }

    /// The first entry at `from` or behind it that is wanted, and its place.
    pub(crate) fn search(&self, from: Place, is_wanted: impl Fn(&Entry) -> bool) -> Option<Place> {
        let part = self.parts.get(from.part)?;
        let found = part.entries.iter().skip(from.index).position(|entry| entry.key != VACANT && is_wanted(entry));
        match found {
            Some(ahead) => Some(Place { part: from.part, index: from.index + ahead }),
            None => self.search(Place { part: from.part + 1, index: 0 }, is_wanted),
        }
    }

    /// Where a search through the whole table begins.
    pub(crate) const START: Place = Place { part: 0, index: 0 };

    /// A string's own copy, by its key.
    pub(crate) fn owned_string(&self, key: u64) -> Option<crate::id::OwnedId> {
        self.strings.get(string_index(key)?)
    }

    /// How many entries and strings there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len).sum::<usize>() + self.strings.len()
    }

    #[inline]
    fn hash_of(&self, key: u64) -> u64 {
        hash_of(key, &self.hasher)
    }

    #[inline]
    fn hash_string(&self, string: StringId<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(string.bytes);
        hasher.write_u8(string.class);
        hasher.finish()
    }
}

/// The entries. Where they are is of no interest.
impl std::fmt::Debug for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries((0..PARTS).flat_map(|part| self.part(part))).finish()
    }
}

/// The hash that tells where the entry of `key` lives: a string's key carries its own.
#[inline]
fn hash_of(key: u64, hasher: &RandomState) -> u64 {
    if string_index(key).is_some() { key } else { hasher.hash_one(key) }
}

/// The part that an entry of that hash is in.
#[inline]
fn part_of(hash: u64) -> usize {
    (hash >> PART_SHIFT) as usize
}

#[inline]
fn home(hash: u64) -> usize {
    // Only of the bits that a string's key carries too, without those that chose the part: 24 of
    // them, enough for a billion users in all.
    (short_hash(hash) & ((1 << (crate::id::HASH_BITS - PART_BITS)) - 1)) as usize
}

impl Part {
    /// The index of the first entry from its home on whose key is wanted.
    #[inline]
    fn probe(&self, hash: u64, is_wanted: impl Fn(u64) -> bool) -> Option<usize> {
        let entries = self.entries.as_slice();
        let mask = entries.len().wrapping_sub(1);
        let mut index = home(hash) & mask;
        loop {
            // None only in a part without entries; the mask keeps the index inside any other.
            let entry = entries.get(index)?;
            if is_wanted(entry.key) {
                return Some(index);
            }
            if entry.key == VACANT {
                return None;
            }
            index = (index + 1) & mask;
        }
    }

    /// Puts `entry` at the first vacant place from its home on. There must be one.
    fn place(&mut self, entry: Entry, hash: u64) {
        let mask = self.entries.len().wrapping_sub(1);
        let mut index = home(hash) & mask;
        while let Some(place) = self.entries.get_mut(index) {
            if place.key == VACANT {
                *place = entry;
                return;
            }
            index = (index + 1) & mask;
        }
    }

    fn resize(&mut self, length: usize, hasher: &RandomState) {
        let old = std::mem::replace(&mut self.entries, vec![Entry::NONE; length]);
        for entry in old.into_iter().filter(|entry| entry.key != VACANT) {
            self.place(entry, hash_of(entry.key, hasher));
        }
    }

    /// Vacates `gap` and moves up what the gap would cut off from its home.
    fn vacate(&mut self, mut gap: usize, hasher: &RandomState) {
        let mask = self.entries.len().wrapping_sub(1);
        let mut index = gap;
        loop {
            index = (index + 1) & mask;
            let Some(entry) = self.entries.get(index).copied() else { return };
            if entry.key == VACANT {
                break;
            }
            let from_home = index.wrapping_sub(home(hash_of(entry.key, hasher))) & mask;
            let from_gap = index.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                if let Some(place) = self.entries.get_mut(gap) {
                    *place = entry;
                }
                gap = index;
            }
        }
        if let Some(place) = self.entries.get_mut(gap) {
            *place = Entry::NONE;
        }
    }
}

#[cfg(test)]
mod flooding;
#[cfg(test)]
mod tests;
