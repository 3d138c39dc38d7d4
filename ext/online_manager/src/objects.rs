//! Ids that are neither immediate values nor plain strings: floats, big integers, arrays, objects with their own `hash`
//! and `eql?`. Each gets a slot, and the tracker knows the user by the slot's number.
//!
//! The objects are in a Ruby Array, where the garbage collector finds them. The index is not a Ruby Hash, because a
//! Hash calls `hash` and `eql?` to delete a key: other threads would run when the user is already forgotten and the id
//! is not. Here a slot is released by its number.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::value::{Opaque, ReprValue};
use magnus::{Error, RArray, Ruby, Value};

/// The key of slot 0. All slots' keys are multiples of eight from here on: no immediate value has such bits in any
/// version of Ruby.
const FIRST_KEY: u64 = 1 << 16;

/// The place of an object in the Array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    free: Vec<Slot>,
    /// The number of changes. A search that has called Ruby compares it, and starts again if it differs.
    changes: u64,
}

/// A slot's part of the index.
#[derive(Clone, Copy, Default)]
struct SlotEntry {
    /// The hash of the object at the time it was added.
    hash: u64,
    /// How often the slot was taken or released.
    version: u64,
    /// The next slot in the chain of the same hash: the newest comes first.
    next: Option<Slot>,
}

impl Objects {
    pub(crate) fn new(ruby: &Ruby) -> Objects {
        Objects { array: ruby.ary_new().into(), index: Mutex::default() }
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
            let index = self.index();
            match index.free.last() {
                Some(slot) => *slot,
                None => Slot(u32::try_from(index.slots.len()).map_err(|_| {
                    Error::new(
                        ruby.exception_no_mem_error(),
                        "more than 2**32 users have ids other than Integers and Strings; use Integers or Strings",
                    )
                })?),
            }
        };
        // First the part that can fail: there may be no memory.
        ruby.get_inner(self.array).store(slot.0 as isize, value)?;
        let mut index = self.index();
        index.free.pop();
        if index.slots.len() <= slot.0 as usize {
            index.slots.push(SlotEntry::default());
        }
        let next = index.chains.insert(hash, slot);
        if let Some(entry) = index.entry_mut(slot) {
            *entry = SlotEntry { hash, version: entry.version + 1, next };
        }
        index.changes += 1;
        Ok(slot)
    }

    /// Releases the slot of a key, if the key is one of a slot, because the user is forgotten. Must be called before
    /// Ruby runs again.
    pub(crate) fn release(&self, ruby: &Ruby, key: u64) {
        let Some(slot) = Slot::of_key(key) else { return };
        let mut index = self.index();
        if !index.unlink(slot) {
            return;
        }
        index.free.push(slot);
        index.changes += 1;
        if index.chains.is_empty() {
            index.chains = HashMap::default();
        }
        drop(index);
        // This cannot fail: the Array has that index, and is not frozen.
        let _stored = ruby.get_inner(self.array).store(slot.0 as isize, ruby.qnil());
    }

    /// Forgets all ids. They are those of the process that this one was forked from.
    pub(crate) fn clear(&self, ruby: &Ruby) {
        let mut index = self.index();
        *index = Index { changes: index.changes + 1, ..Index::default() };
        drop(index);
        // This cannot fail: the Array is not frozen.
        let _cleared = ruby.get_inner(self.array).clear();
    }

    /// Returns the object in a slot; nil if the slot is free.
    pub(crate) fn get(&self, ruby: &Ruby, slot: Slot) -> Value {
        let array = ruby.get_inner(self.array);
        array.entry(slot.0 as isize).unwrap_or_else(|_| ruby.qnil().as_value())
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

    /// Removes a slot from its chain. Returns false if it is in none, because it is free.
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
            *entry = SlotEntry { version: entry.version + 1, ..SlotEntry::default() };
        }
        true
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
        protect(|| rb_sys::rb_hash(value.as_raw()))
    }
}

/// Calls `eql?`, as a Ruby Hash does.
fn is_eql(value: Value, known: Value) -> Result<bool, Error> {
    // SAFETY: both are alive. `protect` catches what `eql?` raises; it returns a VALUE, so the result is made one.
    protect(|| unsafe { rb_sys::VALUE::from(rb_sys::rb_eql(value.as_raw(), known.as_raw()) != 0) })
        .map(|answer| answer != 0)
}

/// Returns the object to keep: a frozen copy of a String, and any other object itself, even one of a subclass of
/// String.
fn owned(value: Value) -> Result<Value, Error> {
    // SAFETY: the value is alive, and a String when it is copied.
    unsafe {
        if !is_string(value) || rb_sys::rb_obj_class(value.as_raw()) != rb_sys::rb_cString {
            return Ok(value);
        }
        protect(|| rb_sys::rb_str_new_frozen(value.as_raw())).map(|frozen| Value::from_raw(frozen))
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
