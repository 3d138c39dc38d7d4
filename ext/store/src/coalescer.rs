//! Who has beaten in this process, and whether the store has to hear of it.
//!
//! The store is told of a user at most once per third of the timeout: of the first beat at once, of the last one always.
//! A beat in between only leaves its time here. Parts of the table have a lock each and grow alone, as in the tracker; and
//! as there, what a heartbeat touches is small: 24 bytes for an integer or a symbol. The rest is in a second table.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use online_manager_tracker::{Id, Nanos, StringId};
use parking_lot::Mutex;

use crate::id::UserId;
use crate::outbox::Outbox;

mod entry;
mod scan;
#[cfg(test)]
mod tests;

use entry::{ColdEntry, HotEntry, NO_KEY, tick_of};
use scan::Scan;

const PARTS: usize = 64;

/// What became of a heartbeat here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalesced {
    /// The user is known, and the store need not hear of it now.
    Known,
    /// The store must be told.
    WriteDue,
    /// Nobody known: see [`Member::add_user`](crate::member::Member::add_user).
    Unknown,
}

/// Those whose hashes have some bits in common.
#[derive(Debug, Default)]
struct Part {
    keys: HashTable<HotEntry<u64>>,
    strings: HashTable<HotEntry<UserId>>,
    cold: HashTable<ColdEntry>,
    /// The timeout that nearly everybody has.
    common_timeout: Nanos,
}

/// Who has beaten here.
pub(crate) struct Coalescer {
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

impl Default for Coalescer {
    fn default() -> Coalescer {
        Coalescer { hasher: RandomState::default(), parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Coalescer {
    /// A heartbeat at `now`, good for `timeout`.
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
        let now_and_timeout = (now, timeout);
        match id {
            Id::Key(key) => match keys.find_mut(hash, |hot| hot.key == key) {
                Some(hot) => record_heartbeat(hot, cold, *common_timeout, (hash, id), now_and_timeout, outbox),
                None => Coalesced::Unknown,
            },
            Id::String(string) => match strings.find_mut(hash, |hot| is_string(&hot.key, string)) {
                Some(hot) => record_heartbeat(hot, cold, *common_timeout, (hash, id), now_and_timeout, outbox),
                None => Coalesced::Unknown,
            },
        }
    }

    /// The first heartbeat of `user_id`, which the caller knows as `id`.
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
            // Another thread was faster, and told the store.
            return;
        }
        if cold.is_empty() {
            *common_timeout = timeout;
        }
        let key = if let Id::Key(key) = id { key } else { NO_KEY };
        let details = ColdEntry::new(key, user_id.clone(), timeout);
        let has_common_timeout = timeout == *common_timeout;
        let mut outbox = outbox.lock();
        let outbox = outbox.as_mut();
        match id {
            Id::Key(key) => {
                let hot = HotEntry::new(key, &details, now, has_common_timeout, outbox);
                keys.insert_unique(hash, hot, |hot| self.hasher.hash_one(hot.key));
            }
            Id::String(_) => {
                let hot = HotEntry::new(user_id, &details, now, has_common_timeout, outbox);
                strings.insert_unique(hash, hot, |hot| self.hash_of(NO_KEY, &hot.key));
            }
        }
        cold.insert_unique(hash, details, |cold| self.hash_of(cold.key, &cold.id));
    }

    /// The user leaves in this process, and is due `after` nanoseconds from `now`. Returns whether the user is known here, and
    /// has put the leave into the outbox then.
    pub(crate) fn leave(&self, id: Id<'_>, (now, after): (Nanos, Nanos), outbox: &Mutex<impl AsMut<Outbox>>) -> bool {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let Part { keys, strings, cold, .. } = &mut *part;
        let Some(cold) = cold.find(hash, |cold| is_same(cold, id)) else { return false };
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
        true
    }

    /// When the user last beat here, if that is less than its timeout ago.
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

    /// Puts into the outbox who has not been told and has rested long enough, and forgets who has been silent for a timeout
    /// by the time at which the store was last `last_ok`: should it come back without its data, nobody else knows them.
    /// `common_timeout` is the timeout of most heartbeats by now. No lock is held for longer than one part takes. A part's lock comes
    /// before the outbox's, here and everywhere.
    pub(crate) fn scan(
        &self,
        (now, last_ok): (Nanos, Nanos),
        common_timeout: Nanos,
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) {
        self.parts.iter().for_each(|part| self.scan_part(&mut part.lock(), (now, last_ok), common_timeout, outbox));
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
            remove(cold, hash, |cold| cold.key == key);
        }
        let describe_string = |id: &UserId| (self.hash_of(NO_KEY, id), id.clone());
        let is_string = |cold: &ColdEntry, id: &UserId| cold.key == NO_KEY && cold.id == *id;
        for (hash, id) in
            scan.run(strings, describe_string, |(hash, id)| cold.find(*hash, |cold| is_string(cold, id)), outbox)
        {
            remove(cold, hash, |cold| is_string(cold, &id));
        }
    }

    /// Puts everyone into the outbox whose timeout was not over at a moment: the store may have lost what it knew.
    ///
    /// # Arguments
    ///
    /// * `settled_at` - that moment for a user; `None` for users of partitions that lost nothing
    /// * `is_resend` - see [`Heartbeat::is_resend`](crate::store::Heartbeat::is_resend)
    pub(crate) fn resend(
        &self,
        now: Nanos,
        settled_at: impl Fn(&UserId) -> Option<Nanos>,
        is_resend: bool,
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) {
        for part in &self.parts {
            let mut part = part.lock();
            let mut outbox = outbox.lock();
            let Part { keys, strings, cold, .. } = &mut *part;
            for cold in cold.iter() {
                let Some(settled_at) = settled_at(&cold.id).map(tick_of) else { continue };
                let hash = self.hash_of(cold.key, &cold.id);
                if let Some(hot) = keys.find_mut(hash, |hot| hot.key == cold.key) {
                    if !hot.is_expired(settled_at, cold.timeout) {
                        hot.enqueue_write(cold, (hot.seen_at(now), now), is_resend, outbox.as_mut());
                    }
                } else if let Some(hot) = strings.find_mut(hash, |hot| hot.key == cold.id)
                    && !hot.is_expired(settled_at, cold.timeout)
                {
                    hot.enqueue_write(cold, (hot.seen_at(now), now), is_resend, outbox.as_mut());
                }
            }
        }
    }

    /// A user left in some process: this one writes its next heartbeat at once, and its last one if that is not written.
    pub(crate) fn mark_left(&self, id: &UserId, now: Nanos, outbox: &Mutex<impl AsMut<Outbox>>) {
        for part in &self.parts {
            let mut part = part.lock();
            let Part { keys, strings, cold, .. } = &mut *part;
            let Some(cold) = cold.iter().find(|cold| cold.id == *id) else { continue };
            let hash = self.hash_of(cold.key, &cold.id);
            let mut outbox = outbox.lock();
            if let Some(hot) = keys.find_mut(hash, |hot| hot.key == cold.key) {
                hot.mark_left(cold, now, outbox.as_mut());
            } else if let Some(hot) = strings.find_mut(hash, |hot| hot.key == *id) {
                hot.mark_left(cold, now, outbox.as_mut());
            }
            return;
        }
    }

    /// Tells the store of every heartbeat that it has not been told of, however short the last one is ago.
    pub(crate) fn enqueue_unwritten(&self, now: Nanos, outbox: &Mutex<impl AsMut<Outbox>>) {
        let tick = tick_of(now);
        self.enqueue_where(now, outbox, |Part { keys, strings, .. }| {
            keys.iter_mut().filter(|hot| hot.is_unwritten).for_each(|hot| hot.mark_unwritten(tick));
            strings.iter_mut().filter(|hot| hot.is_unwritten).for_each(|hot| hot.mark_unwritten(tick));
        });
    }

    fn enqueue_where(&self, now: Nanos, outbox: &Mutex<impl AsMut<Outbox>>, choose: impl Fn(&mut Part)) {
        for part in &self.parts {
            let mut part = part.lock();
            choose(&mut part);
            let common_timeout = part.common_timeout;
            self.scan_part(&mut part, (now, now), common_timeout, outbox);
        }
    }

    fn part(&self, hash: u64) -> &Mutex<Part> {
        // The tables themselves go by the lowest and the highest bits.
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

    fn hash_of(&self, key: u64, id: &UserId) -> u64 {
        match id.as_bytes().split_first() {
            _ if key != NO_KEY => self.hasher.hash_one(key),
            Some((tag, bytes)) => self.hash_string(*tag, bytes),
            None => 0,
        }
    }
}

/// A heartbeat of somebody known.
#[inline]
fn record_heartbeat<K>(
    hot: &mut HotEntry<K>,
    cold: &mut HashTable<ColdEntry>,
    common_timeout: Nanos,
    (hash, id): (u64, Id<'_>),
    (now, timeout): (Nanos, Nanos),
    outbox: &Mutex<impl AsMut<Outbox>>,
) -> Coalesced {
    let tick = tick_of(now);
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

/// Answers what there was.
fn remove<T>(table: &mut HashTable<T>, hash: u64, is_match: impl FnMut(&T) -> bool) -> Option<T> {
    table.find_entry(hash, is_match).map(|entry| entry.remove().0).ok()
}

/// The tag of an id that came as text. The three classes of strings have small numbers (as the tracker's have); any other
/// class is the tag itself.
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

fn is_same(cold: &ColdEntry, id: Id<'_>) -> bool {
    match id {
        Id::Key(key) => cold.key == key,
        Id::String(string) => cold.key == NO_KEY && is_string(&cold.id, string),
    }
}
