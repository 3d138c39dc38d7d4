//! Who has beaten in this process, and whether the store has to hear of it.
//!
//! Over 400 lines: two tables that must agree about each user, and a third of it is their tests.
//!
//! The store is told of a user at most once per third of the timeout: of the first beat at once, of the last one always.
//! A beat in between only leaves its time here. Parts of the table have a lock each and grow alone, as in the tracker; and
//! as there, what a heartbeat touches is small: 24 bytes for an integer or a symbol. The rest is in a second table.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use online_manager_tracker::{Id, Nanos, StringId, TICK};
use parking_lot::Mutex;

use crate::id::UserId;
use crate::outbox::Outbox;

const PARTS: usize = 64;

/// No [`Id::Key`] ends in these bits.
const NO_KEY: u64 = 0b10;

/// How often within a timeout the store may be told of one user.
const WRITES_PER_TIMEOUT: u64 = 3;

/// What became of a heartbeat here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalesced {
    /// The user is known, and the store need not hear of it now.
    Known,
    /// The store must be told.
    WriteDue,
    /// Nobody known: see [`Coalescer::arrive`].
    Unknown,
}

/// What a heartbeat touches.
#[derive(Debug)]
struct Hot<K> {
    key: K,
    /// The tick of the last heartbeat. Ticks are cut to 32 bits, which tell 52 days apart.
    seen: u32,
    /// Before that tick the store need not be told again.
    quiet_until: u32,
    /// Whether the store has not been told of the last heartbeat.
    is_unwritten: bool,
    /// Whether the timeout is the part's common_timeout one.
    has_common_timeout: bool,
}

/// What is needed when the store is told.
#[derive(Debug)]
struct Cold {
    /// The caller's key for the id, or [`NO_KEY`] if it has none.
    key: u64,
    id: UserId,
    timeout: Nanos,
}

/// Those whose hashes have some bits in common.
#[derive(Debug, Default)]
struct Part {
    keys: HashTable<Hot<u64>>,
    strings: HashTable<Hot<UserId>>,
    cold: HashTable<Cold>,
    /// The timeout that nearly everybody has.
    common_timeout: Nanos,
}

/// Who has beaten here.
pub struct Coalescer {
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

impl Default for Coalescer {
    fn default() -> Coalescer {
        Coalescer { hasher: RandomState::default(), parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

#[inline]
fn tick_of(moment: Nanos) -> u32 {
    (moment / TICK) as u32
}

/// How many ticks a duration has at the least; as many as can be told from what has passed, if it is longer.
fn ticks_in(duration: Nanos) -> u32 {
    (duration / TICK).min(i32::MAX as u64 - 1) as u32
}

impl<K> Hot<K> {
    #[inline]
    fn is_quiet(&self, tick: u32) -> bool {
        (tick.wrapping_sub(self.quiet_until) as i32) < 0
    }

    /// Whether the timeout was over at a tick, which may lie before the last heartbeat.
    fn is_expired(&self, tick: u32, timeout: Nanos) -> bool {
        let since = tick.wrapping_sub(self.seen) as i32;
        // Not before the last moment of the tick that it was seen in is so long ago.
        since >= 0 && since as u32 > ticks_in(timeout)
    }

    /// When the last heartbeat was, at `now`.
    fn seen_at(&self, now: Nanos) -> Nanos {
        let ago = Nanos::from(tick_of(now).wrapping_sub(self.seen)) * TICK;
        (now / TICK * TICK).saturating_sub(ago)
    }

    /// When the last heartbeat was, unless that is longer ago than `timeout`.
    fn seen_within(&self, timeout: Nanos, now: Nanos) -> Option<Nanos> {
        (!self.is_expired(tick_of(now), timeout)).then(|| self.seen_at(now))
    }

    /// Somebody new, of whom the store is told.
    fn written(key: K, cold: &Cold, now: Nanos, has_common_timeout: bool, outbox: &mut Outbox) -> Hot<K> {
        let mut hot = Hot { key, seen: tick_of(now), quiet_until: 0, is_unwritten: false, has_common_timeout };
        hot.enqueue_write(cold, now, now, outbox);
        hot
    }

    /// Has the store told of the heartbeat at `at`.
    fn enqueue_write(&mut self, cold: &Cold, at: Nanos, now: Nanos, outbox: &mut Outbox) {
        self.is_unwritten = false;
        self.quiet_until = tick_of(now).wrapping_add(ticks_in(cold.timeout / WRITES_PER_TIMEOUT));
        outbox.heartbeat(cold.id.clone(), at, cold.timeout);
    }

    /// As if its rest were over, and its last heartbeat not told.
    fn mark_unwritten(&mut self, tick: u32) {
        self.is_unwritten = true;
        self.quiet_until = tick;
    }

    fn mark_unwritten_unless_expired(&mut self, tick: u32, last_ok: u32, timeout: Nanos) {
        if !self.is_expired(last_ok, timeout) {
            self.mark_unwritten(tick);
        }
    }

    /// A known heartbeat that is more than leaving its time.
    #[cold]
    fn update(
        &mut self,
        cold: &mut Cold,
        common_timeout: Nanos,
        (now, timeout): (Nanos, Nanos),
        outbox: &Mutex<Outbox>,
    ) -> Coalesced {
        if cold.timeout == timeout && self.is_quiet(tick_of(now)) {
            return Coalesced::Known;
        }
        cold.timeout = timeout;
        self.has_common_timeout = timeout == common_timeout;
        self.enqueue_write(cold, now, now, &mut outbox.lock());
        Coalesced::WriteDue
    }

    /// Answers whether the user is still to be kept.
    fn scan(&mut self, cold: &Cold, (now, last_ok): (Nanos, Nanos), outbox: &mut Outbox) -> bool {
        if self.is_unwritten && !self.is_quiet(tick_of(now)) {
            self.enqueue_write(cold, self.seen_at(now), now, outbox);
        }
        self.is_unwritten || !self.is_expired(tick_of(last_ok), cold.timeout)
    }
}

impl Coalescer {
    /// A heartbeat at `now`, good for `timeout`.
    #[inline]
    pub(crate) fn heartbeat(&self, id: Id<'_>, now: Nanos, timeout: Nanos, outbox: &Mutex<Outbox>) -> Coalesced {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let Part { keys, strings, cold, common_timeout } = &mut *part;
        let beat = (now, timeout);
        match id {
            Id::Key(key) => match keys.find_mut(hash, |hot| hot.key == key) {
                Some(hot) => heartbeat_known(hot, cold, *common_timeout, (hash, id), beat, outbox),
                None => Coalesced::Unknown,
            },
            Id::String(text) => match strings.find_mut(hash, |hot| is_text(&hot.key, text)) {
                Some(hot) => heartbeat_known(hot, cold, *common_timeout, (hash, id), beat, outbox),
                None => Coalesced::Unknown,
            },
        }
    }

    /// The first heartbeat of `user_id`, which the caller knows as `id`.
    #[cold]
    pub(crate) fn add_user(&self, id: Id<'_>, user_id: UserId, now: Nanos, timeout: Nanos, outbox: &Mutex<Outbox>) {
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
        let details = Cold { key, id: user_id.clone(), timeout };
        let has_common_timeout = timeout == *common_timeout;
        let mut outbox = outbox.lock();
        match id {
            Id::Key(key) => {
                let hot = Hot::written(key, &details, now, has_common_timeout, &mut outbox);
                keys.insert_unique(hash, hot, |hot| self.hasher.hash_one(hot.key));
            }
            Id::String(_) => {
                let hot = Hot::written(user_id, &details, now, has_common_timeout, &mut outbox);
                strings.insert_unique(hash, hot, |hot| self.hash_of(NO_KEY, &hot.key));
            }
        }
        cold.insert_unique(hash, details, |cold| self.hash_of(cold.key, &cold.id));
    }

    /// Forgets the user, so that the next heartbeat is told at once. Answers when the last one was, and for how long it
    /// was good.
    pub(crate) fn forget(&self, id: Id<'_>, now: Nanos) -> Option<(Nanos, Nanos)> {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let Part { keys, strings, cold, .. } = &mut *part;
        let timeout = remove(cold, hash, |cold| is_same(cold, id))?.timeout;
        let seen = match id {
            Id::Key(key) => remove(keys, hash, |hot| hot.key == key)?.seen_at(now),
            Id::String(text) => remove(strings, hash, |hot| is_text(&hot.key, text))?.seen_at(now),
        };
        Some((seen, timeout))
    }

    /// When the user last beat here, if that is less than its timeout ago.
    pub(crate) fn last_seen(&self, id: Id<'_>, now: Nanos) -> Option<Nanos> {
        let hash = self.hash(id);
        let part = self.part(hash).lock();
        let timeout = part.cold.find(hash, |cold| is_same(cold, id))?.timeout;
        match id {
            Id::Key(key) => part.keys.find(hash, |hot| hot.key == key)?.seen_within(timeout, now),
            Id::String(text) => part.strings.find(hash, |hot| is_text(&hot.key, text))?.seen_within(timeout, now),
        }
    }

    /// Puts into the outbox who has not been told and has rested long enough, and forgets who has been silent for a timeout
    /// by the time at which the store was last `last_ok`: should it come back without its data, nobody else knows them.
    /// `common_timeout` is the timeout of most heartbeats by now. No lock is held for longer than one part takes. A part's lock comes
    /// before the outbox's, here and everywhere.
    pub(crate) fn scan(&self, (now, last_ok): (Nanos, Nanos), common_timeout: Nanos, outbox: &Mutex<Outbox>) {
        self.parts.iter().for_each(|part| self.scan_part(&mut part.lock(), (now, last_ok), common_timeout, outbox));
    }

    fn scan_part(
        &self,
        part: &mut Part,
        (now, last_ok): (Nanos, Nanos),
        common_timeout: Nanos,
        outbox: &Mutex<Outbox>,
    ) {
        let mut outbox = outbox.lock();
        let Part { keys, strings, cold, common_timeout: known } = part;
        let scan = Scan { now, last_ok, common_timeout, is_changed: *known != common_timeout };
        *known = common_timeout;
        let of_key = |key: &u64| (self.hasher.hash_one(key), *key);
        for (hash, key) in scan.run(keys, of_key, |(hash, key)| cold.find(*hash, |cold| cold.key == *key), &mut outbox)
        {
            remove(cold, hash, |cold| cold.key == key);
        }
        let of_text = |id: &UserId| (self.hash_of(NO_KEY, id), id.clone());
        let is_text = |cold: &Cold, id: &UserId| cold.key == NO_KEY && cold.id == *id;
        for (hash, id) in
            scan.run(strings, of_text, |(hash, id)| cold.find(*hash, |cold| is_text(cold, id)), &mut outbox)
        {
            remove(cold, hash, |cold| is_text(cold, &id));
        }
    }

    /// Tells the store anew of everybody whose timeout was not over when it was last last_ok: it may have lost what it knew.
    ///
    /// # Arguments
    ///
    /// * `last_ok_of` - when that was, for a user; `None` for whom nothing is lost
    pub(crate) fn resend(&self, now: Nanos, last_ok_of: impl Fn(&UserId) -> Option<Nanos>, outbox: &Mutex<Outbox>) {
        let tick = tick_of(now);
        self.enqueue_where(now, outbox, |part| {
            let Part { keys, strings, cold, .. } = part;
            for Cold { key, id, timeout } in cold.iter() {
                let Some(last_ok) = last_ok_of(id).map(tick_of) else { continue };
                let hash = self.hash_of(*key, id);
                if let Some(hot) = keys.find_mut(hash, |hot| hot.key == *key) {
                    hot.mark_unwritten_unless_expired(tick, last_ok, *timeout);
                } else if let Some(hot) = strings.find_mut(hash, |hot| hot.key == *id) {
                    hot.mark_unwritten_unless_expired(tick, last_ok, *timeout);
                }
            }
        });
    }

    /// Tells the store of every heartbeat that it has not been told of, however short the last one is ago.
    pub(crate) fn enqueue_unwritten(&self, now: Nanos, outbox: &Mutex<Outbox>) {
        let tick = tick_of(now);
        self.enqueue_where(now, outbox, |Part { keys, strings, .. }| {
            keys.iter_mut().filter(|hot| hot.is_unwritten).for_each(|hot| hot.mark_unwritten(tick));
            strings.iter_mut().filter(|hot| hot.is_unwritten).for_each(|hot| hot.mark_unwritten(tick));
        });
    }

    fn enqueue_where(&self, now: Nanos, outbox: &Mutex<Outbox>, choose: impl Fn(&mut Part)) {
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
            Id::String(text) => self.hash_string(tag_of(text), text.bytes),
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

/// A look at everybody.
struct Scan {
    now: Nanos,
    /// When the store was last last_ok.
    last_ok: Nanos,
    common_timeout: Nanos,
    is_changed: bool,
}

impl Scan {
    /// Answers who is forgotten.
    fn run<'a, K, D>(
        &self,
        hots: &mut HashTable<Hot<K>>,
        describe: impl Fn(&K) -> D,
        cold_of: impl Fn(&D) -> Option<&'a Cold>,
        outbox: &mut Outbox,
    ) -> Vec<D> {
        let tick = tick_of(self.now);
        let mut gone = Vec::new();
        hots.retain(|hot| {
            let needs_nothing = hot.has_common_timeout
                && !hot.is_expired(tick_of(self.last_ok), self.common_timeout)
                && (!hot.is_unwritten || hot.is_quiet(tick));
            if needs_nothing && !self.is_changed {
                return true;
            }
            let described = describe(&hot.key);
            let is_kept = cold_of(&described).is_some_and(|cold| {
                hot.has_common_timeout = cold.timeout == self.common_timeout;
                hot.scan(cold, (self.now, self.last_ok), outbox)
            });
            if !is_kept {
                gone.push(described);
            }
            is_kept
        });
        gone
    }
}

/// A heartbeat of somebody known.
#[inline]
fn heartbeat_known<K>(
    hot: &mut Hot<K>,
    cold: &mut HashTable<Cold>,
    common_timeout: Nanos,
    (hash, id): (u64, Id<'_>),
    (now, timeout): (Nanos, Nanos),
    outbox: &Mutex<Outbox>,
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
fn remove<T>(table: &mut HashTable<T>, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<T> {
    table.find_entry(hash, is_it).map(|entry| entry.remove().0).ok()
}

/// The tag of an id that came as text. The three classes of strings have small numbers (as the tracker's have); any other
/// class is the tag itself.
#[inline]
fn tag_of(text: StringId<'_>) -> u8 {
    match text.class {
        0 => b's',
        1 => b'u',
        2 => b'b',
        tag => tag,
    }
}

#[inline]
fn is_text(id: &UserId, text: StringId<'_>) -> bool {
    let bytes = id.as_bytes();
    bytes.first() == Some(&tag_of(text)) && bytes.get(1..) == Some(text.bytes)
}

fn is_same(cold: &Cold, id: Id<'_>) -> bool {
    match id {
        Id::Key(key) => cold.key == key,
        Id::String(text) => cold.key == NO_KEY && is_text(&cold.id, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Charset, Kind};
    use crate::store::{Heartbeat, Write};

    const SECOND: Nanos = 1_000_000_000;

    fn text(bytes: &'static str) -> Id<'static> {
        Id::String(StringId { bytes: bytes.as_bytes(), class: 0, label: 1 })
    }

    fn user_id(name: &str) -> UserId {
        UserId::new(Kind::String(Charset::Ascii), name.as_bytes())
    }

    struct Process {
        coalescer: Coalescer,
        outbox: Mutex<Outbox>,
    }

    impl Process {
        fn new() -> Process {
            Process { coalescer: Coalescer::default(), outbox: Mutex::default() }
        }

        fn beat(&self, now: Nanos, timeout: Nanos) -> Coalesced {
            let heartbeat = self.coalescer.heartbeat(text("ada"), now, timeout, &self.outbox);
            if heartbeat == Coalesced::Unknown {
                self.coalescer.add_user(text("ada"), user_id("ada"), now, timeout, &self.outbox);
            }
            heartbeat
        }

        /// The ages of what the store is told at `now`.
        fn written(&self, now: Nanos) -> Vec<Nanos> {
            self.coalescer.scan((now, now), 3 * SECOND, &self.outbox);
            let messages = self.outbox.lock().take_batch(10).writes(now, 0);
            messages
                .into_iter()
                .map(|message| match message {
                    Write::Heartbeat(Heartbeat { age, .. }) => age,
                    Write::Leave(_) => panic!("nobody left"),
                })
                .collect()
        }
    }

    #[test]
    fn the_first_beat_is_told_at_once_and_the_last_one_always() {
        let process = Process::new();
        assert_eq!(process.beat(0, 3 * SECOND), Coalesced::Unknown);
        assert_eq!(process.written(0), [0]);
        for now in [1, 2, 3] {
            assert_eq!(process.beat(now, 3 * SECOND), Coalesced::Known);
        }
        assert_eq!(process.written(4), Vec::<Nanos>::new());
        assert_eq!(process.written(SECOND), [SECOND]);
        assert_eq!(process.written(2 * SECOND), Vec::<Nanos>::new());
    }

    #[test]
    fn a_beat_after_a_third_of_the_timeout_is_told_at_once() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.written(0);
        assert_eq!(process.beat(SECOND, 3 * SECOND), Coalesced::WriteDue);
        assert_eq!(process.written(SECOND), [0]);
    }

    #[test]
    fn another_timeout_is_told_at_once() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.written(0);
        assert_eq!(process.beat(1, 2 * SECOND), Coalesced::WriteDue);
        assert_eq!(process.written(2), [1]);
    }

    #[test]
    fn who_has_been_silent_for_a_timeout_is_forgotten_but_not_before_it_was_told() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.written(0);
        process.beat(1, 3 * SECOND);
        assert_eq!(process.coalescer.last_seen(text("ada"), 2), Some(0));
        assert_eq!(process.coalescer.last_seen(text("ada"), 3 * SECOND + TICK), None);
        assert_eq!(process.written(5 * SECOND), [5 * SECOND]);
        assert_eq!(process.beat(6 * SECOND, 3 * SECOND), Coalesced::Unknown);
    }

    #[test]
    fn whoever_is_forgotten_is_told_anew() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.written(0);
        assert_eq!(process.coalescer.forget(text("ada"), 0), Some((0, 3 * SECOND)));
        assert_eq!(process.coalescer.forget(text("ada"), 0), None);
        assert_eq!(process.beat(1, 3 * SECOND), Coalesced::Unknown);
        assert_eq!(process.written(1), [0]);
    }

    #[test]
    fn everybody_can_be_told_anew() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.written(0);
        process.coalescer.resend(7, |_| Some(7), &process.outbox);
        assert_eq!(process.written(7), [7]);
        process.coalescer.enqueue_unwritten(8, &process.outbox);
        assert_eq!(process.written(8), Vec::<Nanos>::new());
        process.beat(9, 3 * SECOND);
        process.coalescer.enqueue_unwritten(10, &process.outbox);
        assert_eq!(process.written(10), [10]);
    }

    #[test]
    fn nobody_is_forgotten_while_the_store_is_away() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.written(0);
        // Away since the first second: should the data be lost, nobody else knows of this user.
        process.coalescer.scan((9 * SECOND, SECOND), 3 * SECOND, &process.outbox);
        process.coalescer.resend(9 * SECOND, |_| Some(SECOND), &process.outbox);
        assert_eq!(process.written(9 * SECOND), [9 * SECOND]);
    }

    #[test]
    fn whose_timeout_was_over_before_the_store_went_away_is_not_told_again() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.written(0);
        process.coalescer.resend(4 * SECOND, |_| Some(4 * SECOND), &process.outbox);
        assert_eq!(process.written(4 * SECOND), Vec::<Nanos>::new());
        process.beat(5 * SECOND, 3 * SECOND);
        process.written(5 * SECOND);
        process.coalescer.resend(6 * SECOND, |_| None, &process.outbox);
        assert_eq!(process.written(6 * SECOND), Vec::<Nanos>::new(), "nothing of this one is lost");
    }

    #[test]
    fn a_timeout_that_all_have_by_now_becomes_the_usual_one() {
        let process = Process::new();
        process.beat(0, 2 * SECOND);
        // The pass through all of them takes 3 s for common_timeout.
        assert_eq!(process.written(0), [0]);
        assert_eq!(process.beat(1, 3 * SECOND), Coalesced::WriteDue);
        assert_eq!(process.written(1), [0]);
        for now in 2..5 {
            assert_eq!(process.beat(now, 3 * SECOND), Coalesced::Known);
        }
        // Beside it another one is just as good.
        assert_eq!(process.beat(5, SECOND), Coalesced::WriteDue);
        assert_eq!(process.beat(6, SECOND), Coalesced::Known);
        assert_eq!(process.written(6), [1]);
        assert_eq!(process.written(SECOND), [SECOND]);
        assert_eq!(process.written(SECOND + 2 * TICK), Vec::<Nanos>::new());
        assert_eq!(process.beat(SECOND + 3 * TICK, SECOND), Coalesced::Unknown);
    }

    #[test]
    fn ticks_may_be_cut() {
        let process = Process::new();
        let start = (1 << 32) * TICK - SECOND / 2;
        process.beat(start, 3 * SECOND);
        assert_eq!(process.written(start), [0]);
        assert_eq!(process.beat(start + SECOND / 2, 3 * SECOND), Coalesced::Known);
        assert_eq!(process.written(start + SECOND / 2), Vec::<Nanos>::new());
        let ages = process.written(start + 2 * SECOND);
        assert!(ages.len() == 1 && ages[0].abs_diff(3 * SECOND / 2) <= 2 * TICK, "{ages:?}");
        let seen = process.coalescer.last_seen(text("ada"), start + 2 * SECOND).unwrap();
        assert!(seen.abs_diff(start + SECOND / 2) <= TICK);
    }

    #[test]
    fn ids_of_different_kinds_are_different_users() {
        let process = Process::new();
        let ids = [
            (Id::Key(3), UserId::new(Kind::Integer, b"1")),
            (text("1"), user_id("1")),
            (
                Id::String(StringId { bytes: b"1", class: b'S', label: 0 }),
                UserId::new(Kind::Symbol(Charset::Ascii), b"1"),
            ),
        ];
        for (id, user_id) in &ids {
            assert_eq!(process.coalescer.heartbeat(*id, 0, SECOND, &process.outbox), Coalesced::Unknown);
            process.coalescer.add_user(*id, user_id.clone(), 0, SECOND, &process.outbox);
            assert_eq!(process.coalescer.heartbeat(*id, 0, SECOND, &process.outbox), Coalesced::Known);
        }
        assert_eq!(process.written(0).len(), 3);
    }
}
