//! Ids that are neither immediate values nor plain strings: floats, big integers, arrays, objects with their own `hash`
//! and `eql?`. Each gets a slot, and the tracker knows the user by the slot's number.
//!
//! The objects are in a Ruby Array, where the garbage collector finds them. The index is not a Ruby Hash, because a
//! Hash calls `hash` and `eql?` to delete a key: other threads would run when the user is already forgotten and the id
//! is not. Here a slot is released by its number. Then the object of the last slot moves into it, so that the Array is
//! no longer than there are users.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use magnus::rb_sys::{AsRawValue, FromRawValue};
use magnus::value::{Opaque, ReprValue};
use magnus::{Error, RArray, Ruby, Value};
use online_manager_tracker::invariant::violated;

use crate::protect::protect;

/// The key of slot 0. All slots' keys are multiples of eight from here on: no immediate value has such bits in any
/// version of Ruby.
const FIRST_KEY: u64 = 1 << 16;

/// The place of an object in the Array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

impl Slot {
    /// Returns the tracker's key of this slot.
    pub(crate) fn key(self) -> u64 {
        FIRST_KEY + (u64::from(self.0) << 3)
    }

    /// Returns the slot of a key, or `None` if the key is the bits of an immediate value.
    pub(crate) fn of_key(key: u64) -> Option<Slot> {
        let is_slot = key & 0b111 == 0 && key >= FIRST_KEY;
        if is_slot { u32::try_from((key - FIRST_KEY) >> 3).ok().map(Slot) } else { None }
    }
}

/// The slot of a known object. It is stale once the slot's version has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    slot: Slot,
    version: u64,
}

impl Found {
    /// Returns the slot, which may be another object's since.
    pub(crate) fn slot(self) -> Slot {
        self.slot
    }

    /// Returns the tracker's key of this slot.
    pub(crate) fn key(self) -> u64 {
        self.slot.key()
    }
}

/// The objects of one manager that are ids.
pub(crate) struct Objects {
    /// The object of each slot; nil where the slot is free.
    array: Opaque<RArray>,
    /// Locked for a few instructions, with the GVL held, and never while Ruby runs.
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    /// The first slot of each hash's chain.
    chains: HashMap<u64, Slot, RandomState>,
    slots: Vec<SlotEntry>,
    /// The slots that no object could be moved into, because the user of the last one was due or in a callback; and
    /// slots that have been dropped or taken since.
    free: BinaryHeap<Reverse<Slot>>,
    /// The number of changes. A search that has called Ruby compares it, and starts again if it differs.
    changes: u64,
}

/// A slot's part of the index.
#[derive(Clone, Copy, Default)]
struct SlotEntry {
    /// The hash of the object at the time it was added.
    hash: u64,
    /// The number of the change that took the slot; 0 if it is free.
    version: u64,
    /// The next slot in the chain of the same hash: the newest comes first.
    next: Option<Slot>,
}

/// How many objects one release moves: more than one, since there may be free slots that could not be filled before.
const MOVES_PER_RELEASE: usize = 64;

impl Objects {
    /// Returns an index without objects. They will be in `array`, which is empty, and which the caller has marked.
    pub(crate) fn new(array: RArray) -> Objects {
        Objects { array: array.into(), index: Mutex::default() }
    }

    /// Returns the Array, for the garbage collector to mark.
    pub(crate) fn array(&self) -> Opaque<RArray> {
        self.array
    }

    /// Returns the slot of an object equal to `value`. Calls `hash`, and `eql?` if need be; fails with what they raise.
    pub(crate) fn find(&self, ruby: &Ruby, value: Value) -> Result<Option<Found>, Error> {
        let hash = hash_of(value)?;
        self.find_hashed(ruby, value, hash)
    }

    /// Returns the slot of an object equal to `value`, or a new slot. Calls and fails as `find` does, and fails with a
    /// NoMemoryError if there are 2**32 slots.
    pub(crate) fn intern(&self, ruby: &Ruby, value: Value) -> Result<Slot, Error> {
        let value = owned(value)?;
        let hash = hash_of(value)?;
        match self.find_hashed(ruby, value, hash)? {
            // No Ruby code has run since the search, so nobody else has added the object.
            None => self.add(ruby, value, hash),
            Some(found) => Ok(found.slot),
        }
    }

    /// Returns what [`Objects::resolve`] needs, for a slot that was found just before: no Ruby may have run since.
    pub(crate) fn found(&self, slot: Slot) -> Found {
        Found { slot, version: self.index().entry(slot).version }
    }

    /// Whether there are no objects.
    pub(crate) fn is_empty(&self) -> bool {
        self.index().slots.is_empty()
    }

    /// Returns the slot, unless it was released since it was found.
    pub(crate) fn resolve(&self, found: Found) -> Option<Slot> {
        (self.index().entry(found.slot).version == found.version).then_some(found.slot)
    }

    /// Searches the chain of a hash. Starts again when another thread has changed the index during an `eql?`.
    fn find_hashed(&self, ruby: &Ruby, value: Value, hash: u64) -> Result<Option<Found>, Error> {
        let mut tried: Option<(Found, u64)> = None;
        loop {
            let index = self.index();
            let next = match tried {
                Some((found, changes)) if index.changes == changes => index.entry(found.slot).next,
                // The first slot of the chain. Or `eql?` has let another thread run, which has taken or released a
                // slot.
                _ => index.chains.get(&hash).copied(),
            };
            let Some(slot) = next else { return Ok(None) };
            let found = Found { slot, version: index.entry(slot).version };
            tried = Some((found, index.changes));
            drop(index);
            let known = self.get(ruby, slot);
            if (known.as_raw() == value.as_raw() || is_eql(value, known)?) && self.resolve(found).is_some() {
                return Ok(Some(found));
            }
        }
    }

    /// Adds an object that is not known.
    fn add(&self, ruby: &Ruby, value: Value, hash: u64) -> Result<Slot, Error> {
        let slot = {
            let mut index = self.index();
            match index.take_free() {
                Some(slot) => slot,
                None => Slot(u32::try_from(index.slots.len()).map_err(|_| {
                    Error::new(
                        ruby.exception_no_mem_error(),
                        "there are more than 2**32 ids other than Integers and Strings; use Integers or Strings",
                    )
                })?),
            }
        };
        // First the part that can fail: there may be no memory.
        ruby.get_inner(self.array).store(slot.0 as isize, value)?;
        let mut index = self.index();
        index.link(slot, hash);
        Ok(slot)
    }

    /// Releases the slot of a key, if the key is one of a slot, because the user is forgotten. Must be called before
    /// Ruby runs again. `rekey` gives a user another key, and returns false if that is not possible now.
    pub(crate) fn release(&self, ruby: &Ruby, key: u64, rekey: impl Fn(u64, u64) -> bool) {
        let Some(slot) = Slot::of_key(key) else { return };
        let array = ruby.get_inner(self.array);
        let mut index = self.index();
        if !index.unlink(slot) {
            return;
        }
        // None of this can fail: the Array has these places and is not frozen. It only becomes shorter, which runs no
        // Ruby.
        check(array.store(slot.0 as isize, ruby.qnil()));
        for _ in 0..MOVES_PER_RELEASE {
            index.drop_last_slots();
            let (Some(free), Some(last)) = (index.take_free(), index.last()) else { break };
            if !rekey(last.key(), free.key()) {
                index.free.push(Reverse(free));
                break;
            }
            let hash = index.entry(last).hash;
            index.unlink(last);
            index.link(free, hash);
            check(array.entry::<Value>(last.0 as isize).and_then(|object| array.store(free.0 as isize, object)));
        }
        index.drop_last_slots();
        // Ruby gives memory back when more than sixteen places go at once, and sometimes when one is popped.
        if array.len() > index.slots.len() + 16 {
            check(array.resize(index.slots.len()));
        }
        while array.len() > index.slots.len() && array.pop::<Value>().is_ok() {}
        index.shrink();
    }

    /// Forgets all ids. They are those of the process that this one was forked from.
    pub(crate) fn clear(&self, ruby: &Ruby) {
        let mut index = self.index();
        *index = Index { changes: index.changes + 1, ..Index::default() };
        drop(index);
        check(ruby.get_inner(self.array).clear());
    }

    /// Returns the object in a slot; nil if the slot is free.
    pub(crate) fn get(&self, ruby: &Ruby, slot: Slot) -> Value {
        let array = ruby.get_inner(self.array);
        array.entry(slot.0 as isize).unwrap_or_else(|error| {
            check(Err(error));
            ruby.qnil().as_value()
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn entry(&self, slot: Slot) -> SlotEntry {
        self.slots.get(slot.0 as usize).copied().unwrap_or_default()
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut SlotEntry> {
        self.slots.get_mut(slot.0 as usize)
    }

    fn last(&self) -> Option<Slot> {
        u32::try_from(self.slots.len()).ok()?.checked_sub(1).map(Slot)
    }

    /// Takes the first free slot from the list.
    fn take_free(&mut self) -> Option<Slot> {
        while let Some(Reverse(slot)) = self.free.pop() {
            if self.slots.get(slot.0 as usize).is_some_and(|entry| entry.version == 0) {
                return Some(slot);
            }
        }
        None
    }

    /// Takes a slot that is free and not in the list, or one more, for an object with this hash.
    fn link(&mut self, slot: Slot, hash: u64) {
        if self.slots.len() <= slot.0 as usize {
            self.slots.push(SlotEntry::default());
        }
        self.changes += 1;
        let entry = SlotEntry { hash, version: self.changes, next: self.chains.insert(hash, slot) };
        match self.entry_mut(slot) {
            Some(place) => *place = entry,
            None => violated("a slot that is taken is one of those that there are, or the next one"),
        }
    }

    /// Drops the last slots as far as they are free.
    fn drop_last_slots(&mut self) {
        while self.slots.pop_if(|entry| entry.version == 0).is_some() {}
    }

    /// Gives back memory that the largest crowd needed.
    fn shrink(&mut self) {
        if self.slots.len() * 4 <= self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        if self.free.len() > self.slots.len() + 64 {
            let Index { free, slots, .. } = self;
            free.retain(|Reverse(slot)| slots.get(slot.0 as usize).is_some_and(|entry| entry.version == 0));
            free.shrink_to(slots.len());
        }
        if self.chains.len() * 8 <= self.chains.capacity() {
            self.chains.shrink_to(self.chains.len() * 2);
        }
    }

    /// Frees a slot, and removes it from its chain. Returns false if it is in none, because it is free already.
    fn unlink(&mut self, slot: Slot) -> bool {
        let SlotEntry { hash, next, .. } = self.entry(slot);
        let Some(first) = self.chains.get(&hash).copied() else { return false };
        if first == slot {
            match next {
                Some(next) => self.chains.insert(hash, next),
                None => self.chains.remove(&hash),
            };
        } else {
            let mut previous = first;
            while let Some(next) = self.entry(previous).next.filter(|next| *next != slot) {
                previous = next;
            }
            match self.entry_mut(previous) {
                Some(previous) if previous.next == Some(slot) => previous.next = next,
                _ => return false,
            }
        }
        if let Some(entry) = self.entry_mut(slot) {
            *entry = SlotEntry::default();
        }
        self.free.push(Reverse(slot));
        self.changes += 1;
        true
    }
}

/// Counts an operation on the Array of ids that has failed: it is not frozen, and has the places.
fn check(result: Result<(), Error>) {
    if result.is_err() {
        violated("the Array of ids has a place for each slot, and can be changed");
    }
}

/// Returns a hash that is equal for equal Hash keys. Like a Ruby Hash, it never calls the `hash` of a String; a Symbol
/// has the hash of its name. Fails with what the value's `hash` raises.
fn hash_of(value: Value) -> Result<u64, Error> {
    // SAFETY: the value is alive. `protect` catches what its `hash` raises.
    unsafe {
        if is_string(value) {
            return Ok(rb_sys::rb_str_hash(value.as_raw()));
        }
        if is_symbol(value) {
            return Ok(rb_sys::rb_str_hash(rb_sys::rb_sym2str(value.as_raw())));
        }
        protect(|| Ok(rb_sys::rb_hash(value.as_raw())))
    }
}

/// Calls `eql?`, as a Ruby Hash does.
fn is_eql(value: Value, known: Value) -> Result<bool, Error> {
    // SAFETY: both are alive. `protect` catches what `eql?` raises.
    protect(|| Ok(unsafe { rb_sys::rb_eql(value.as_raw(), known.as_raw()) != 0 }))
}

/// Returns the object to keep: a frozen copy of a String, and any other object itself, even one of a subclass of
/// String.
fn owned(value: Value) -> Result<Value, Error> {
    // SAFETY: the value is alive, and a String when it is copied.
    unsafe {
        if !is_string(value) || rb_sys::rb_obj_class(value.as_raw()) != rb_sys::rb_cString {
            return Ok(value);
        }
        protect(|| Ok(Value::from_raw(rb_sys::rb_str_new_frozen(value.as_raw()))))
    }
}

fn is_string(value: Value) -> bool {
    // SAFETY: the value is alive.
    unsafe { rb_sys::RB_TYPE_P(value.as_raw(), rb_sys::ruby_value_type::RUBY_T_STRING) }
}

fn is_symbol(value: Value) -> bool {
    // SAFETY: the value is alive.
    unsafe { rb_sys::RB_TYPE_P(value.as_raw(), rb_sys::ruby_value_type::RUBY_T_SYMBOL) }
}
