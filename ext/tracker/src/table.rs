//! The hash table of users: linear probing over sixteen-byte entries, in 64 parts that grow one by one.
//!
//! A table in one part would move every user at once when it grows, while a heartbeat waits.

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;

use foldhash::quality::RandomState;

use crate::entry::Entry;
use crate::id::{Id, StringId, VACANT, is_valid_key, short_hash, string_index, string_key};
use crate::invariant::violated;
use crate::string_arena::StringArena;

/// How many parts there are.
pub(crate) const PARTS: usize = 64;

const PART_BITS: u32 = PARTS.trailing_zeros();
/// The top bits of a hash choose the part, the bits below them the place in it.
const PART_SHIFT: u32 = u64::BITS - PART_BITS;
/// The length of a part with its first entry.
const SMALLEST: usize = 8;

/// How many entries are prefetched together: a processor tracks no more cache misses than that at once.
pub(crate) const PREFETCH_BATCH: usize = 16;

/// Where an entry is. Valid until an entry is inserted or removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    part: usize,
    index: usize,
}

/// The entries of all users, found by id or by key.
#[derive(Clone)]
pub(crate) struct Table {
    parts: Box<[Part]>,
    strings: StringArena,
    /// Seeded at random, since an attacker may choose ids. `foldhash::fast` would save one multiplication, but with one
    /// in a hundred of its seeds consecutive ids cluster.
    hasher: RandomState,
}

#[derive(Clone, Default)]
struct Part {
    /// Empty, or a power of two places, of which at least a quarter are vacant.
    entries: Vec<Entry>,
    /// How many places are in use.
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

    /// Returns where the user with this id is.
    pub(crate) fn find(&self, id: Id<'_>) -> Option<Place> {
        self.find_inlined(id)
    }

    /// [`Table::find`] for heartbeats: called, and not inlined, it adds a tenth to the instructions of a string's heartbeat.
    #[inline(always)]
    pub(crate) fn find_inlined(&self, id: Id<'_>) -> Option<Place> {
        match id {
            Id::Key(key) => {
                debug_assert!(
                    is_valid_key(key),
                    "the key {key:#x} ends in the bits 10, which mark the tracker's own keys"
                );
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

    /// Prefetches the entry at which a search for `string` begins; changes nothing. Before several searches the
    /// processor then waits for memory once, and not once for each.
    #[inline]
    pub(crate) fn prefetch_string(&self, string: StringId<'_>) {
        self.prefetch_one(self.hash_string(string));
    }

    /// Prefetches at every [`PREFETCH_BATCH`]th search of a long row: `keys` are those left after `number` of them.
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

    /// Returns where the user with this key is.
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

    /// Returns the entry with this key.
    #[inline]
    pub(crate) fn entry_mut(&mut self, key: u64) -> Option<&mut Entry> {
        let hash = self.hash_of(key);
        let part = self.parts.get_mut(part_of(hash))?;
        let index = part.probe(hash, |other| other == key)?;
        part.entries.get_mut(index)
    }

    /// Returns the key for a user who is not in the table. Copies a string, or returns `None` if there is no room for
    /// it.
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
            // Above a load of three quarters, the runs of linear probing become long.
            if (part.len + 1) * 4 > part.entries.len() * 3 {
                part.resize((part.entries.len() * 2).max(SMALLEST), hasher);
            }
            part.place(entry, hash);
            part.len += 1;
        } else {
            violated("each hash has a part");
        }
    }

    /// Removes the entry at `place`, and its string if the id is one. Returns how many units the string took.
    pub(crate) fn remove(&mut self, place: Place) -> usize {
        let Some(entry) = self.take(place) else {
            violated("a user who is removed is in the table");
            return 0;
        };
        string_index(entry.key).map_or(0, |index| self.strings.remove(index))
    }

    /// Gives the entry at `place` another key, which is not in the table. Its old string, if the id is one, is removed.
    /// Returns where the entry is then.
    pub(crate) fn rekey(&mut self, place: Place, key: u64) -> Option<Place> {
        let mut entry = self.take(place)?;
        if let Some(index) = string_index(std::mem::replace(&mut entry.key, key)) {
            self.strings.remove(index);
        }
        self.insert(entry);
        self.find_key(key)
    }

    /// Returns the key of a string that should move, see [`StringArena::next_to_move`].
    pub(crate) fn next_string_to_move(&mut self, budget: &mut usize) -> Option<u64> {
        let index = self.strings.next_to_move(budget)?;
        let crate::id::OwnedId::String { bytes, class, label } = self.strings.get(index)? else { return None };
        Some(string_key(self.hash_string(StringId { bytes: &bytes, class, label }), index))
    }

    /// Copies the string with this key and returns the copy's key, or `None` if there is no room for it.
    pub(crate) fn duplicate_string(&mut self, key: u64) -> Option<u64> {
        let copy = self.strings.duplicate(string_index(key)?)?;
        // The copy has the same hash, which is a part of the key.
        Some(string_key(key, copy))
    }

    /// Removes the entry at `place`, and leaves its string.
    fn take(&mut self, place: Place) -> Option<Entry> {
        let Table { parts, hasher, .. } = self;
        let part = parts.get_mut(place.part)?;
        let entry = part.entries.get(place.index).copied().filter(|entry| entry.key != VACANT)?;
        part.vacate(place.index, hasher);
        part.len -= 1;
        if part.len == 0 {
            *part = Part::default();
        } else if part.len * 8 < part.entries.len() {
            part.resize((part.entries.len() / 2).max(SMALLEST), hasher);
        }
        Some(entry)
    }

    /// Frees all memory, for good.
    pub(crate) fn free(&mut self) {
        self.parts = Box::default();
        self.strings = StringArena::default();
    }

    /// Returns the entries of one part, a number below [`PARTS`].
    pub(crate) fn part(&self, part: usize) -> impl Iterator<Item = &Entry> {
        self.parts.get(part).into_iter().flat_map(|part| &part.entries).filter(|entry| entry.key != VACANT)
    }

    /// Returns the place of the first wanted entry at `from` or after it.
    pub(crate) fn search(&self, from: Place, is_wanted: impl Fn(&Entry) -> bool) -> Option<Place> {
        let part = self.parts.get(from.part)?;
        let found = part.entries.iter().skip(from.index).position(|entry| entry.key != VACANT && is_wanted(entry));
        match found {
            Some(ahead) => Some(Place { part: from.part, index: from.index + ahead }),
            None => self.search(Place { part: from.part + 1, index: 0 }, is_wanted),
        }
    }

    /// Where a search through all of the table begins.
    pub(crate) const START: Place = Place { part: 0, index: 0 };

    /// Returns a copy of the string with this key.
    pub(crate) fn owned_string(&self, key: u64) -> Option<crate::id::OwnedId> {
        self.strings.get(string_index(key)?)
    }

    /// Returns how many entries and strings there are, together.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len).sum::<usize>() + self.strings.len()
    }

    /// Returns how many bytes are reserved for strings.
    pub(crate) fn string_bytes(&self) -> usize {
        self.strings.bytes()
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

/// Shows the entries without their places, which depend on the seed.
impl std::fmt::Debug for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries((0..PARTS).flat_map(|part| self.part(part))).finish()
    }
}

/// Returns the hash that decides where the entry with this key is. A string's key holds its own hash.
#[inline]
fn hash_of(key: u64, hasher: &RandomState) -> u64 {
    if string_index(key).is_some() { key } else { hasher.hash_one(key) }
}

/// Returns the part for entries with this hash.
#[inline]
fn part_of(hash: u64) -> usize {
    (hash >> PART_SHIFT) as usize
}

/// Returns the place at which a search for this hash begins, before it is masked to the part's length.
#[inline]
fn home(hash: u64) -> usize {
    // Of the bits that a string's key holds too, those that did not choose the part: 24, enough for a billion users.
    (short_hash(hash) & ((1 << (crate::id::HASH_BITS - PART_BITS)) - 1)) as usize
}

impl Part {
    /// Returns the index of the first entry with a wanted key, from the home of `hash` on.
    #[inline]
    fn probe(&self, hash: u64, is_wanted: impl Fn(u64) -> bool) -> Option<usize> {
        let entries = self.entries.as_slice();
        let mask = entries.len().wrapping_sub(1);
        let mut index = home(hash) & mask;
        loop {
            // `None` only in a part without entries: in any other the mask keeps the index inside.
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

    /// Puts `entry` at the first vacant place from the home of `hash` on. There must be one.
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
        violated("a part with a new entry has places");
    }

    /// Moves all entries into `length` places, a power of two.
    fn resize(&mut self, length: usize, hasher: &RandomState) {
        let old = std::mem::replace(&mut self.entries, vec![Entry::NONE; length]);
        for entry in old.into_iter().filter(|entry| entry.key != VACANT) {
            self.place(entry, hash_of(entry.key, hasher));
        }
    }

    /// Vacates the place `gap`, and moves entries up that the gap would cut off from their home.
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
