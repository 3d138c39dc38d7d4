//! Who has sent heartbeats in this process, and which heartbeats the store needs.
//!
//! The coalescer writes a user's heartbeats to the store at most once per third of the timeout: the first one at once,
//! the last one always. It only records the time of those in between.
//!
//! As in the tracker, each part of the table has its own lock and grows by itself, and a heartbeat touches little
//! memory: 24 bytes for an integer or a symbol. The rest of the user is in a second table.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use online_manager_tracker::{Id, Nanos, StringId};
use parking_lot::Mutex;

use crate::id::{Kind, UserId};
use crate::outbox::Outbox;

mod entry;
mod partings;
mod passes;
mod scan;
#[cfg(test)]
mod tests;

pub(crate) use entry::Heard;
#[cfg(test)]
pub(crate) use entry::RETURN_MARGIN;
use entry::{ColdEntry, HotEntry, NO_KEY, Tick, dated_after};
use partings::Partings;
use scan::Scan;

/// The number of parts: as many as the tracker's table has.
const PARTS: usize = 64;

/// What the coalescer has done with a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalesced {
    /// It has recorded the time; the store does not need the heartbeat now.
    Known,
    /// It has put the heartbeat into the outbox: the member's thread has to be woken.
    WriteDue,
    /// Nothing: the user is unknown. The caller calls [`Member::add_user`](crate::member::Member::add_user).
    Unknown,
}

/// The users whose hashes share some bits.
#[derive(Debug, Default)]
struct Part {
    /// The users whose id is a key: integers and symbols.
    keys: HashTable<HotEntry<u64>>,
    /// The users whose id is a string.
    strings: HashTable<HotEntry<UserId>>,
    /// The second table, of all users of the part.
    cold: HashTable<ColdEntry>,
    /// The timeout of most users, so that a heartbeat with it need not read the second table.
    common_timeout: Nanos,
}

/// The users who have sent heartbeats in this process.
pub(crate) struct Coalescer {
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
    /// The keys of users whose key does not follow from the id: symbols. Its lock is taken after a part's.
    named_keys: Mutex<HashMap<UserId, u64>>,
    /// Who is not known here, and left a moment ago in any process.
    partings: Partings,
}

impl Default for Coalescer {
    fn default() -> Coalescer {
        Coalescer {
            hasher: RandomState::default(),
            parts: std::array::from_fn(|_| Mutex::default()),
            named_keys: Mutex::default(),
            partings: Partings::default(),
        }
    }
}

impl Coalescer {
    /// Records a heartbeat at `now`, with the user's timeout, and puts it into the outbox if it is due.
    #[inline]
    pub(crate) fn heartbeat(
        &self,
        id: Id<'_>,
        now: Nanos,
        timeout: Nanos,
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) -> Coalesced {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let Part { keys, strings, cold, common_timeout } = &mut *part;
        match id {
            Id::Key(key) => match keys.find_mut(hash, |hot| hot.key == key) {
                Some(hot) => record_heartbeat(hot, cold, *common_timeout, (hash, id), (now, timeout), outbox),
                None => Coalesced::Unknown,
            },
            Id::String(string) => match strings.find_mut(hash, |hot| is_string(&hot.key, string)) {
                Some(hot) => record_heartbeat(hot, cold, *common_timeout, (hash, id), (now, timeout), outbox),
                None => Coalesced::Unknown,
            },
        }
    }

    /// Adds a user with its first heartbeat, which goes into the outbox. `user_id` is the same id as `id`, for the
    /// store. Does nothing if the user is known.
    #[cold]
    pub(crate) fn add_user(
        &self,
        id: Id<'_>,
        user_id: UserId,
        now: Nanos,
        timeout: Nanos,
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let Part { keys, strings, cold, common_timeout } = &mut *part;
        if cold.find(hash, |cold| is_same(cold, id)).is_some() {
            // Another thread has just added the user.
            return;
        }
        if cold.is_empty() {
            *common_timeout = timeout;
        }
        let key = if let Id::Key(key) = id { key } else { NO_KEY };
        let details = ColdEntry::new(key, user_id.clone(), timeout);
        let has_common_timeout = timeout == *common_timeout;
        let left_at = self.partings.remove(&user_id);
        let at = dated_after(left_at, now);
        let mut outbox = outbox.lock();
        let outbox = outbox.as_mut();
        match id {
            Id::Key(key) => {
                if integer_key(&user_id) != Some(key) {
                    self.named_keys.lock().insert(user_id, key);
                }
                let hot = HotEntry::new(key, &details, (at, now), has_common_timeout, outbox);
                keys.insert_unique(hash, hot, |hot| self.hasher.hash_one(hot.key));
            }
            Id::String(_) => {
                let hot = HotEntry::new(user_id, &details, (at, now), has_common_timeout, outbox);
                strings.insert_unique(hash, hot, |hot| self.hash_of(NO_KEY, &hot.key));
            }
        }
        cold.insert_unique(hash, details, |cold| self.hash_of(cold.key, &cold.id));
    }

    /// The user leaves in this process, and is due `after` nanoseconds from `now`. `user_id` is the same id as `id`, for the
    /// store.
    pub(crate) fn leave(
        &self,
        id: Id<'_>,
        user_id: UserId,
        (now, after): (Nanos, Nanos),
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let Part { keys, strings, cold, .. } = &mut *part;
        let Some(cold) = cold.find(hash, |cold| is_same(cold, id)) else {
            self.partings.leave(&user_id, now, after);
            outbox.lock().as_mut().leave(user_id, now, after);
            return;
        };
        let mut outbox = outbox.lock();
        match id {
            Id::Key(key) => {
                if let Some(hot) = keys.find_mut(hash, |hot| hot.key == key) {
                    hot.leave(cold, (now, after), outbox.as_mut());
                }
            }
            Id::String(string) => {
                if let Some(hot) = strings.find_mut(hash, |hot| is_string(&hot.key, string)) {
                    hot.leave(cold, (now, after), outbox.as_mut());
                }
            }
        }
    }

    /// Returns the time of the user's last heartbeat, if that is less than its timeout ago.
    pub(crate) fn last_seen(&self, id: Id<'_>, now: Nanos) -> Option<Nanos> {
        let hash = self.hash(id);
        let part = self.part(hash).lock();
        let cold = part.cold.find(hash, |cold| is_same(cold, id)).filter(|cold| !cold.is_left.get())?;
        let timeout = cold.timeout;
        match id {
            Id::Key(key) => part.keys.find(hash, |hot| hot.key == key)?.seen_within(timeout, now),
            Id::String(string) => part.strings.find(hash, |hot| is_string(&hot.key, string))?.seen_within(timeout, now),
        }
    }

    /// Whether this process knows that a user has left whom it knows, and is due; `None` if it does not know the user.
    #[cfg(test)]
    pub(crate) fn knows_leave(&self, id: Id<'_>, now: Nanos) -> Option<bool> {
        let hash = self.hash(id);
        let part = self.part(hash).lock();
        let cold = part.cold.find(hash, |cold| is_same(cold, id))?;
        let is_due = cold.leave.get().is_none_or(|(at, after)| at.saturating_add(after) <= now);
        Some(cold.is_left.get() && is_due)
    }

    /// Puts heartbeats into the outbox that are not written and are due by now, and forgets users whose timeout had
    /// passed at `last_ok`: every event that was due before then is delivered. Those who expired during an outage are kept: if
    /// the store comes back without its data, no other process knows them.
    ///
    /// `common_timeout` is the timeout of most heartbeats by now. Locks one part at a time. A part's lock is taken
    /// before the outbox's, here and everywhere: the other order could deadlock.
    pub(crate) fn scan(
        &self,
        (now, last_ok): (Nanos, Nanos),
        common_timeout: Nanos,
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) {
        self.parts.iter().for_each(|part| self.scan_part(&mut part.lock(), (now, last_ok), common_timeout, outbox));
        self.partings.forget(now, last_ok);
    }

    fn scan_part(
        &self,
        part: &mut Part,
        (now, last_ok): (Nanos, Nanos),
        common_timeout: Nanos,
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) {
        let mut outbox = outbox.lock();
        let outbox = outbox.as_mut();
        let Part { keys, strings, cold, common_timeout: known_timeout } = part;
        let scan = Scan { now, last_ok, common_timeout, is_changed: *known_timeout != common_timeout };
        *known_timeout = common_timeout;
        let describe_key = |key: &u64| (self.hasher.hash_one(key), *key);
        for (hash, key) in scan.run(keys, describe_key, |(hash, key)| cold.find(*hash, |cold| cold.key == *key), outbox)
        {
            if let Some(cold) = remove(cold, hash, |cold| cold.key == key)
                && integer_key(&cold.id) != Some(key)
            {
                self.named_keys.lock().remove(&cold.id);
            }
        }
        let describe_string = |id: &UserId| (self.hash_of(NO_KEY, id), id.clone());
        let is_user = |cold: &ColdEntry, id: &UserId| cold.key == NO_KEY && cold.id == *id;
        for (hash, id) in
            scan.run(strings, describe_string, |(hash, id)| cold.find(*hash, |cold| is_user(cold, id)), outbox)
        {
            remove(cold, hash, |cold| is_user(cold, &id));
        }
    }

    /// A user's deadline was moved forward: this process writes its next heartbeat at once, and its last one if that is not
    /// written. If the user did not leave, it does so only if it would not write in time anyway.
    ///
    /// A symbol may be here twice: without a key while Ruby could collect it, and with one since.
    pub(crate) fn hear(&self, heard: &Heard, now: Nanos, outbox: &Mutex<impl AsMut<Outbox>>) {
        let id = &heard.id;
        let mut is_known = false;
        if let Some(key) = self.key_of(id) {
            let hash = self.hasher.hash_one(key);
            let mut part = self.part(hash).lock();
            let Part { keys, cold, .. } = &mut *part;
            if let Some(cold) = cold.find(hash, |cold| cold.key == key && cold.id == *id)
                && let Some(hot) = keys.find_mut(hash, |hot| hot.key == key)
            {
                hot.hear(cold, heard, now, outbox.lock().as_mut());
                is_known = true;
            }
        }
        let hash = self.hash_of(NO_KEY, id);
        let mut part = self.part(hash).lock();
        let Part { strings, cold, .. } = &mut *part;
        if let Some(cold) = cold.find(hash, |cold| cold.key == NO_KEY && cold.id == *id)
            && let Some(hot) = strings.find_mut(hash, |hot| hot.key == *id)
        {
            hot.hear(cold, heard, now, outbox.lock().as_mut());
        } else if !is_known && heard.left.is_some() {
            self.partings.hear(id, now);
        }
    }

    /// Returns the key under which this process may know a user. Calls no Ruby: the member's thread must not.
    fn key_of(&self, id: &UserId) -> Option<u64> {
        integer_key(id).or_else(|| self.named_keys.lock().get(id).copied())
    }

    /// Puts every heartbeat into the outbox that is not written, even if it is not due. Forgets users who have expired.
    pub(crate) fn enqueue_unwritten(&self, now: Nanos, outbox: &Mutex<impl AsMut<Outbox>>) {
        let tick = Tick::of(now);
        self.enqueue_where(now, outbox, |Part { keys, strings, .. }| {
            keys.iter_mut().filter(|hot| hot.is_unwritten).for_each(|hot| hot.mark_unwritten(tick));
            strings.iter_mut().filter(|hot| hot.is_unwritten).for_each(|hot| hot.mark_unwritten(tick));
        });
    }

    /// Lets `choose` mark entries of each part as unwritten, and puts those into the outbox.
    fn enqueue_where(&self, now: Nanos, outbox: &Mutex<impl AsMut<Outbox>>, choose: impl Fn(&mut Part)) {
        for part in &self.parts {
            let mut part = part.lock();
            choose(&mut part);
            let common_timeout = part.common_timeout;
            self.scan_part(&mut part, (now, now), common_timeout, outbox);
        }
    }

    fn part(&self, hash: u64) -> &Mutex<Part> {
        // The hash tables use the lowest and the highest bits, so the parts use others.
        let number = (hash >> 40) as usize % PARTS;
        self.parts.get(number).unwrap_or(&self.parts[0])
    }

    #[inline]
    fn hash(&self, id: Id<'_>) -> u64 {
        match id {
            Id::Key(key) => self.hasher.hash_one(key),
            Id::String(string) => self.hash_string(tag_of(string), string.bytes),
        }
    }

    #[inline]
    fn hash_string(&self, tag: u8, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        tag.hash(&mut hasher);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Returns the same hash as [`Coalescer::hash`], for the parts of an entry.
    fn hash_of(&self, key: u64, id: &UserId) -> u64 {
        match id.as_bytes().split_first() {
            _ if key != NO_KEY => self.hasher.hash_one(key),
            Some((tag, bytes)) => self.hash_string(*tag, bytes),
            None => 0,
        }
    }
}

/// Records a heartbeat of a known user. Reads the second table only if the heartbeat is due or has an unusual timeout.
#[inline]
fn record_heartbeat<K>(
    hot: &mut HotEntry<K>,
    cold: &mut HashTable<ColdEntry>,
    common_timeout: Nanos,
    (hash, id): (u64, Id<'_>),
    (now, timeout): (Nanos, Nanos),
    outbox: &Mutex<impl AsMut<Outbox>>,
) -> Coalesced {
    let tick = Tick::of(now);
    hot.seen = tick;
    hot.is_unwritten = true;
    if hot.has_common_timeout && timeout == common_timeout && hot.is_quiet(tick) {
        return Coalesced::Known;
    }
    match cold.find_mut(hash, |cold| is_same(cold, id)) {
        Some(cold) => hot.update(cold, common_timeout, (now, timeout), outbox),
        None => Coalesced::Unknown,
    }
}

/// Returns the key of an integer, which is twice the number plus one, as Ruby keeps it. `None` for other ids and for
/// integers beyond 63 bits, which have no key.
fn integer_key(id: &UserId) -> Option<u64> {
    let (Kind::Integer, digits) = id.parts()? else { return None };
    let number: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number.checked_mul(2)? | 1) as u64)
}

/// Removes an entry and returns it.
fn remove<T>(table: &mut HashTable<T>, hash: u64, is_match: impl FnMut(&T) -> bool) -> Option<T> {
    table.find_entry(hash, is_match).map(|entry| entry.remove().0).ok()
}

/// Returns the tag of a string. The binding numbers three classes of strings, as the tracker does; any other class is
/// the tag itself.
#[inline]
fn tag_of(string: StringId<'_>) -> u8 {
    match string.class {
        0 => b's',
        1 => b'u',
        2 => b'b',
        tag => tag,
    }
}

#[inline]
fn is_string(id: &UserId, string: StringId<'_>) -> bool {
    let bytes = id.as_bytes();
    bytes.first() == Some(&tag_of(string)) && bytes.get(1..) == Some(string.bytes)
}

/// Whether an entry is of the user of `id`.
fn is_same(cold: &ColdEntry, id: Id<'_>) -> bool {
    match id {
        Id::Key(key) => cold.key == key,
        Id::String(string) => cold.key == NO_KEY && is_string(&cold.id, string),
    }
}
