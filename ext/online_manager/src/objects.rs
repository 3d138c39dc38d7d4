//! Ids that are neither immediate nor plain strings: floats, big integers, arrays, objects with their
//! own `hash` and `eql?`. Each gets a slot, and the slot's number is what the tracker knows.
//!
//! The objects are in a Ruby Array, where the garbage collector finds them. The index is ours and not
//! a Ruby Hash, because a Hash calls `hash` and `eql?` to delete: other threads would run in the
//! middle of it, when the user is gone and the id is not. Here a slot is given back by its number.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::value::{Opaque, ReprValue};
use magnus::{Error, RArray, Ruby, Value};

/// A slot's key is a multiple of eight at `FIRST` or above, which no immediate value is in any Ruby version.
const FIRST: u64 = 1 << 16;

/// The number of an object that is an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    /// What the tracker knows the slot by.
    pub(crate) fn key(self) -> u64 {
        FIRST + (u64::from(self.0) << 3)
    }

    /// The slot that `key` stands for, if it is not the bits of an immediate value.
    pub(crate) fn of_key(key: u64) -> Option<Slot> {
        let is_slot = key & 0b111 == 0 && key >= FIRST;
        if is_slot { u32::try_from((key - FIRST) >> 3).ok().map(Slot) } else { None }
    }
}

/// The slot of an object that is known, for as long as it is not given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    slot: Slot,
    times: u64,
}

impl Found {
    /// What the tracker knows the slot by.
    pub(crate) fn key(self) -> u64 {
        self.slot.key()
    }
}

/// All such ids of one manager.
pub(crate) struct Objects {
    /// The objects, each at its slot's number; nil where the slot is free.
    array: Opaque<RArray>,
    /// Held for a few instructions with the GVL held, and never while Ruby runs.
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    /// Of the objects of one hash, the slot of the one that came last.
    latest: HashMap<u64, Slot, RandomState>,
    slots: Vec<Given>,
    free: Vec<Slot>,
    /// Goes up with each change, so that who has called Ruby meanwhile can tell.
    version: u64,
}

/// What is known of a slot.
#[derive(Clone, Copy, Default)]
struct Given {
    /// The hash of its object as it was when it came.
    hash: u64,
    /// How often the slot was given out and given back.
    times: u64,
    /// The one of the same hash that came before.
    earlier: Option<Slot>,
}

impl Objects {
    pub(crate) fn new(ruby: &Ruby) -> Objects {
        Objects { array: ruby.ary_new().into(), index: Mutex::default() }
    }

    /// The Array that has to be marked.
    pub(crate) fn array(&self) -> Opaque<RArray> {
        self.array
    }

    /// The object in a slot.
    pub(crate) fn get(&self, ruby: &Ruby, slot: Slot) -> Value {
        self.at(ruby, slot)
    }

    /// The slot of an object equal to `value`. Calls `hash`, and `eql?` if need be; what they raise is the error.
    pub(crate) fn find(&self, ruby: &Ruby, value: Value) -> Result<Option<Found>, Error> {
        let hash = hash_of(value)?;
        self.find_hashed(ruby, value, hash)
    }

    /// The slot of an object equal to `value`, a new one if there is none. Calls what `find` calls.
    pub(crate) fn intern(&self, ruby: &Ruby, value: Value) -> Result<Slot, Error> {
        let value = kept(value)?;
        let hash = hash_of(value)?;
        match self.find_hashed(ruby, value, hash)? {
            // Between the search and this no Ruby code has run.
            None => self.add(ruby, value, hash),
            Some(found) => Ok(found.slot),
        }
    }

    /// The slot, unless it was given back since it was found.
    pub(crate) fn still(&self, found: Found) -> Option<Slot> {
        (self.index().given(found.slot).times == found.times).then_some(found.slot)
    }

    fn find_hashed(&self, ruby: &Ruby, value: Value, hash: u64) -> Result<Option<Found>, Error> {
        let mut looked_at: Option<(Found, u64)> = None;
        loop {
            let index = self.index();
            let next = match looked_at {
                Some((found, version)) if index.version == version => index.given(found.slot).earlier,
                // The first one; or `eql?` let another thread run, and it has taken or given back a slot.
                _ => index.latest.get(&hash).copied(),
            };
            let Some(slot) = next else { return Ok(None) };
            let found = Found { slot, times: index.given(slot).times };
            looked_at = Some((found, index.version));
            drop(index);
            let known = self.at(ruby, slot);
            if (known.as_raw() == value.as_raw() || eql(value, known)?) && self.still(found).is_some() {
                return Ok(Some(found));
            }
        }
    }

    fn add(&self, ruby: &Ruby, value: Value, hash: u64) -> Result<Slot, Error> {
        let slot = {
            let index = self.index();
            match index.free.last() {
                Some(slot) => *slot,
                None => Slot(u32::try_from(index.slots.len()).map_err(|_| {
                    Error::new(
                        ruby.exception_no_mem_error(),
                        "more than 2**32 user ids that are neither Integers nor Strings: use Integers or Strings",
                    )
                })?),
            }
        };
        // First the part that can fail, for want of memory.
        ruby.get_inner(self.array).store(slot.0 as isize, value)?;
        let mut index = self.index();
        index.free.pop();
        if index.slots.len() <= slot.0 as usize {
            index.slots.push(Given::default());
        }
        let earlier = index.latest.insert(hash, slot);
        if let Some(given) = index.given_mut(slot) {
            *given = Given { hash, times: given.times + 1, earlier };
        }
        index.version += 1;
        Ok(slot)
    }

    /// Gives back the slot that `key` stands for, if it stands for one: its user is forgotten. Must be
    /// called before Ruby runs again.
    pub(crate) fn release(&self, ruby: &Ruby, key: u64) {
        let Some(slot) = Slot::of_key(key) else { return };
        let mut index = self.index();
        if !index.unlink(slot) {
            return;
        }
        index.free.push(slot);
        index.version += 1;
        if index.latest.is_empty() {
            index.latest = HashMap::default();
        }
        drop(index);
        // Nothing to do about an error: the Array has that index, and is not frozen.
        let _stored = ruby.get_inner(self.array).store(slot.0 as isize, ruby.qnil());
    }

    /// Forgets every id: those of the process that this one was forked from.
    pub(crate) fn clear(&self, ruby: &Ruby) {
        let mut index = self.index();
        *index = Index { version: index.version + 1, ..Index::default() };
        drop(index);
        // Nothing to do about an error: the Array is ours, and not frozen.
        let _cleared = ruby.get_inner(self.array).clear();
    }

    fn at(&self, ruby: &Ruby, slot: Slot) -> Value {
        let array = ruby.get_inner(self.array);
        array.entry(slot.0 as isize).unwrap_or_else(|_| ruby.qnil().as_value())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn given(&self, slot: Slot) -> Given {
        self.slots.get(slot.0 as usize).copied().unwrap_or_default()
    }

    fn given_mut(&mut self, slot: Slot) -> Option<&mut Given> {
        self.slots.get_mut(slot.0 as usize)
    }

    /// Takes a slot out of those of its hash. Answers false if it is in none: it is free.
    fn unlink(&mut self, slot: Slot) -> bool {
        let Given { hash, earlier, .. } = self.given(slot);
        let Some(latest) = self.latest.get(&hash).copied() else { return false };
        if latest == slot {
            match earlier {
                Some(earlier) => self.latest.insert(hash, earlier),
                None => self.latest.remove(&hash),
            };
        } else {
            let mut later = latest;
            while let Some(next) = self.given(later).earlier.filter(|next| *next != slot) {
                later = next;
            }
            match self.given_mut(later) {
                Some(later) if later.earlier == Some(slot) => later.earlier = earlier,
                _ => return false,
            }
        }
        if let Some(given) = self.given_mut(slot) {
            *given = Given { times: given.times + 1, ..Given::default() };
        }
        true
    }
}

/// The hash that a Ruby Hash goes by: of a string its text's, whatever `hash` its class has, and of a symbol its name's.
fn hash_of(value: Value) -> Result<u64, Error> {
    // SAFETY: the value is alive; what its `hash` raises is caught by `protect`.
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

fn eql(value: Value, known: Value) -> Result<bool, Error> {
    // SAFETY: both are alive; what `eql?` raises is caught by `protect`. The answer is made a VALUE,
    // since that is what `protect` hands through.
    protect(|| unsafe { rb_sys::VALUE::from(rb_sys::rb_eql(value.as_raw(), known.as_raw()) != 0) })
        .map(|answer| answer != 0)
}

/// What to keep of a key: a copy of a String, and all else as it is, subclasses of String too.
fn kept(value: Value) -> Result<Value, Error> {
    // SAFETY: the value is alive, and a String where it is copied.
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
