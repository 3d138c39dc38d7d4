//! Who has beaten in this process, and whether the store has to hear of it.
//!
//! The store is told of a user at most once per third of the timeout: of the first beat at once, of the last one always.
//! A beat in between only leaves its time here. Parts of the table have a lock each and grow alone, as in the tracker.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use online_manager_tracker::{Id, Nanos, Text};
use parking_lot::Mutex;

use crate::id::UserId;
use crate::outbox::Outbox;

const PARTS: usize = 64;

/// No [`Id::Word`] ends in these bits.
const NO_WORD: u64 = 0b10;

/// How often within a timeout the store may be told of one user.
const TELLS_PER_TIMEOUT: u64 = 3;

/// What became of a heartbeat here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The user is known, and the store need not hear of it now.
    Known,
    /// The store must be told.
    ToTell,
    /// Nobody known: see [`Beats::arrive`].
    Unknown,
}

/// A user who has beaten here.
#[derive(Debug)]
struct User {
    /// The caller's word for the id, or [`NO_WORD`].
    word: u64,
    id: UserId,
    seen: Nanos,
    timeout: Nanos,
    /// The beat that the store was told of last, or is about to be.
    told: Nanos,
    /// The store need not be told again before.
    rest_until: Nanos,
}

impl User {
    fn is_told(&self) -> bool {
        self.told >= self.seen
    }

    fn tell(&mut self, outbox: &mut Outbox, now: Nanos) {
        self.told = self.seen;
        self.rest_until = now.saturating_add(self.timeout / TELLS_PER_TIMEOUT);
        outbox.beat(self.id.clone(), self.seen, self.timeout);
    }
}

/// Who has beaten here.
pub struct Beats {
    hasher: RandomState,
    parts: [Mutex<HashTable<User>>; PARTS],
}

impl Default for Beats {
    fn default() -> Beats {
        Beats { hasher: RandomState::default(), parts: std::array::from_fn(|_| Mutex::new(HashTable::new())) }
    }
}

impl Beats {
    /// A heartbeat at `now`, good for `timeout`.
    #[inline]
    pub(crate) fn heartbeat(&self, id: Id<'_>, now: Nanos, timeout: Nanos, outbox: &Mutex<Outbox>) -> Heartbeat {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let Some(user) = part.find_mut(hash, |user| is_same(user, id)) else { return Heartbeat::Unknown };
        user.seen = user.seen.max(now);
        if now < user.rest_until && timeout == user.timeout {
            return Heartbeat::Known;
        }
        user.timeout = timeout;
        user.tell(&mut outbox.lock(), now);
        Heartbeat::ToTell
    }

    /// The first heartbeat of `user_id`, which the caller knows as `id`.
    #[cold]
    pub(crate) fn arrive(&self, id: Id<'_>, user_id: UserId, now: Nanos, timeout: Nanos, outbox: &Mutex<Outbox>) {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        let word = if let Id::Word(word) = id { word } else { NO_WORD };
        match part.entry(hash, |user| is_same(user, id), |user| self.hash_of(user)) {
            // Another thread was faster.
            Entry::Occupied(mut entry) => entry.get_mut().tell(&mut outbox.lock(), now),
            Entry::Vacant(entry) => {
                let mut user = User { word, id: user_id, seen: now, timeout, told: 0, rest_until: 0 };
                user.tell(&mut outbox.lock(), now);
                entry.insert(user);
            }
        }
    }

    /// Forgets the user, so that the next heartbeat is told at once. Answers whether there was one.
    pub(crate) fn forget(&self, id: Id<'_>) -> bool {
        let hash = self.hash(id);
        let mut part = self.part(hash).lock();
        part.find_entry(hash, |user| is_same(user, id)).map(hashbrown::hash_table::OccupiedEntry::remove).is_ok()
    }

    /// When the user last beat here, if that is less than its timeout ago.
    pub(crate) fn last_seen(&self, id: Id<'_>, now: Nanos) -> Option<Nanos> {
        let hash = self.hash(id);
        let part = self.part(hash).lock();
        let user = part.find(hash, |user| is_same(user, id))?;
        (now.saturating_sub(user.seen) < user.timeout).then_some(user.seen)
    }

    /// Puts into the outbox who has not been told and has rested long enough, and forgets who has been silent for a timeout.
    /// No lock is held for longer than one part takes. A part's lock comes before the outbox's, here and everywhere.
    pub(crate) fn look_through(&self, now: Nanos, outbox: &Mutex<Outbox>) {
        for part in &self.parts {
            let mut part = part.lock();
            let mut outbox = outbox.lock();
            part.retain(|user| {
                if !user.is_told() && now >= user.rest_until {
                    user.tell(&mut outbox, now);
                }
                !user.is_told() || now.saturating_sub(user.seen) < user.timeout
            });
        }
    }

    /// Tells the store of everybody anew: it has lost what it knew.
    pub(crate) fn tell_all(&self, now: Nanos, outbox: &Mutex<Outbox>) {
        for part in &self.parts {
            let mut part = part.lock();
            let mut outbox = outbox.lock();
            part.iter_mut().for_each(|user| user.tell(&mut outbox, now));
        }
    }

    fn part(&self, hash: u64) -> &Mutex<HashTable<User>> {
        // The table itself goes by the lowest and the highest bits.
        let number = (hash >> 40) as usize % PARTS;
        self.parts.get(number).unwrap_or(&self.parts[0])
    }

    #[inline]
    fn hash(&self, id: Id<'_>) -> u64 {
        match id {
            Id::Word(word) => self.hasher.hash_one(word),
            Id::Text(text) => self.hash_text(tag_of(text), text.bytes),
        }
    }

    fn hash_text(&self, tag: u8, bytes: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        tag.hash(&mut hasher);
        hasher.write(bytes);
        hasher.finish()
    }

    fn hash_of(&self, user: &User) -> u64 {
        match user.id.as_bytes().split_first() {
            _ if user.word != NO_WORD => self.hasher.hash_one(user.word),
            Some((tag, bytes)) => self.hash_text(*tag, bytes),
            None => 0,
        }
    }
}

/// The tag of an id that came as text. The three classes of strings have small numbers (as the tracker's have); any other
/// class is the tag itself.
#[inline]
fn tag_of(text: Text<'_>) -> u8 {
    match text.class {
        0 => b's',
        1 => b'u',
        2 => b'b',
        tag => tag,
    }
}

fn is_same(user: &User, id: Id<'_>) -> bool {
    match id {
        Id::Word(word) => user.word == word,
        Id::Text(text) => {
            user.word == NO_WORD && {
                let bytes = user.id.as_bytes();
                bytes.first() == Some(&tag_of(text)) && bytes.get(1..) == Some(text.bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Charset, Kind};
    use crate::store::{Beat, Message};

    const SECOND: Nanos = 1_000_000_000;

    fn text(bytes: &'static str) -> Id<'static> {
        Id::Text(Text { bytes: bytes.as_bytes(), class: 0, label: 1 })
    }

    fn user_id(name: &str) -> UserId {
        UserId::new(Kind::Text(Charset::Ascii), name.as_bytes())
    }

    struct Process {
        beats: Beats,
        outbox: Mutex<Outbox>,
    }

    impl Process {
        fn new() -> Process {
            Process { beats: Beats::default(), outbox: Mutex::default() }
        }

        fn beat(&self, now: Nanos, timeout: Nanos) -> Heartbeat {
            let heartbeat = self.beats.heartbeat(text("ada"), now, timeout, &self.outbox);
            if heartbeat == Heartbeat::Unknown {
                self.beats.arrive(text("ada"), user_id("ada"), now, timeout, &self.outbox);
            }
            heartbeat
        }

        /// The ages of what the store is told at `now`.
        fn told(&self, now: Nanos) -> Vec<Nanos> {
            self.beats.look_through(now, &self.outbox);
            let messages = self.outbox.lock().take(10).messages(now, 0);
            messages
                .into_iter()
                .map(|message| match message {
                    Message::Beat(Beat { age, .. }) => age,
                    Message::Leave(_) => panic!("nobody left"),
                })
                .collect()
        }
    }

    #[test]
    fn the_first_beat_is_told_at_once_and_the_last_one_always() {
        let process = Process::new();
        assert_eq!(process.beat(0, 3 * SECOND), Heartbeat::Unknown);
        assert_eq!(process.told(0), [0]);
        for now in [1, 2, 3] {
            assert_eq!(process.beat(now, 3 * SECOND), Heartbeat::Known);
        }
        assert_eq!(process.told(4), Vec::<Nanos>::new());
        assert_eq!(process.told(SECOND), [SECOND - 3]);
        assert_eq!(process.told(2 * SECOND), Vec::<Nanos>::new());
    }

    #[test]
    fn a_beat_after_a_third_of_the_timeout_is_told_at_once() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.told(0);
        assert_eq!(process.beat(SECOND, 3 * SECOND), Heartbeat::ToTell);
        assert_eq!(process.told(SECOND), [0]);
    }

    #[test]
    fn another_timeout_is_told_at_once() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.told(0);
        assert_eq!(process.beat(1, 2 * SECOND), Heartbeat::ToTell);
        assert_eq!(process.told(2), [1]);
    }

    #[test]
    fn who_has_been_silent_for_a_timeout_is_forgotten_but_not_before_it_was_told() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.told(0);
        process.beat(1, 3 * SECOND);
        assert_eq!(process.beats.last_seen(text("ada"), 2), Some(1));
        assert_eq!(process.beats.last_seen(text("ada"), 1 + 3 * SECOND), None);
        assert_eq!(process.told(5 * SECOND), [5 * SECOND - 1]);
        assert_eq!(process.beat(6 * SECOND, 3 * SECOND), Heartbeat::Unknown);
    }

    #[test]
    fn whoever_is_forgotten_is_told_anew() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.told(0);
        assert!(process.beats.forget(text("ada")));
        assert!(!process.beats.forget(text("ada")));
        assert_eq!(process.beat(1, 3 * SECOND), Heartbeat::Unknown);
        assert_eq!(process.told(1), [0]);
    }

    #[test]
    fn everybody_can_be_told_anew() {
        let process = Process::new();
        process.beat(0, 3 * SECOND);
        process.told(0);
        process.beats.tell_all(7, &process.outbox);
        assert_eq!(process.told(7), [7]);
    }

    #[test]
    fn ids_of_different_kinds_are_different_users() {
        let process = Process::new();
        let ids = [
            (Id::Word(3), UserId::new(Kind::Integer, b"1")),
            (text("1"), user_id("1")),
            (Id::Text(Text { bytes: b"1", class: b'S', label: 0 }), UserId::new(Kind::Symbol(Charset::Ascii), b"1")),
        ];
        for (id, user_id) in &ids {
            assert_eq!(process.beats.heartbeat(*id, 0, SECOND, &process.outbox), Heartbeat::Unknown);
            process.beats.arrive(*id, user_id.clone(), 0, SECOND, &process.outbox);
            assert_eq!(process.beats.heartbeat(*id, 0, SECOND, &process.outbox), Heartbeat::Known);
        }
        assert_eq!(process.told(0).len(), 3);
    }
}
