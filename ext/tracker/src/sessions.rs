//! The sessions of users who have named ones, beside the sixteen bytes of the user.
//!
//! A user without named sessions has nothing here: the deadline in the user's entry is that of the unnamed session. The
//! records are in parts, like the overflow entries and for the same reason.

mod keys;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::num::NonZero;

use foldhash::quality::RandomState;

pub(crate) use self::keys::SessionKeys;
use crate::entry::State;
use crate::id::{Id, OwnedId};
use crate::invariant::violated;
use crate::table::PARTS;
use crate::time::Nanos;

/// A number below `u64::MAX`, or none, in eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Optional(Option<NonZero<u64>>);

impl Optional {
    pub(crate) const NONE: Optional = Optional(None);

    pub(crate) fn some(number: u64) -> Optional {
        Optional(NonZero::new(number.saturating_add(1)))
    }

    pub(crate) fn get(self) -> Option<u64> {
        self.0.map(|above| above.get() - 1)
    }
}

impl From<Option<u64>> for Optional {
    fn from(number: Option<u64>) -> Optional {
        number.map_or(Optional::NONE, Optional::some)
    }
}

/// What distinguishes an entry in the record of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionId {
    /// The session of heartbeats that name none.
    Unnamed,
    /// A session with the caller's key.
    Key(u64),
    /// A session with a string: [`OwnedId::String`]. In a box, so that an integer does not take as much room.
    String(Box<OwnedId>),
    /// No session: the latest deadline of the sessions that were evicted (rule S16). Only a leave of the user lowers
    /// it. Its `seen` is the earliest heartbeat of these sessions.
    Floor,
    /// No session: the user's last heartbeat, whose session is over or was evicted (rule S13).
    Past,
}

impl SessionId {
    /// Returns the id of the session `id`; of the unnamed one for `None`.
    pub(crate) fn new(id: Option<Id<'_>>) -> SessionId {
        match id {
            None => SessionId::Unnamed,
            Some(Id::Key(key)) => SessionId::Key(key),
            Some(Id::String(string)) => SessionId::String(Box::new(OwnedId::String {
                bytes: string.bytes.into(),
                class: string.class,
                label: string.label,
            })),
        }
    }

    /// Whether this is the session `id`, or the unnamed one for `None`.
    #[inline]
    pub(crate) fn is(&self, id: Option<Id<'_>>) -> bool {
        match (self, id) {
            (SessionId::Unnamed, None) => true,
            (SessionId::Key(own), Some(Id::Key(key))) => *own == key,
            (SessionId::String(own), Some(Id::String(string))) => matches!(
                &**own,
                OwnedId::String { bytes, class, .. } if **bytes == *string.bytes && *class == string.class
            ),
            _ => false,
        }
    }

    /// Whether this is a session, and not a floor or a note.
    pub(crate) fn is_session(&self) -> bool {
        !matches!(self, SessionId::Floor | SessionId::Past)
    }

    /// Returns the id for the caller; `None` for the unnamed session.
    pub(crate) fn to_owned_id(&self) -> Option<OwnedId> {
        match self {
            SessionId::Key(key) => Some(OwnedId::Key(*key)),
            SessionId::String(string) => Some((**string).clone()),
            _ => None,
        }
    }
}

/// For how long a heartbeat of a session is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// `online` has returned. `deadline` is a tick; `left_at` is the time of the leave that has set it, if one has.
    /// `state` is that of the session's timeout.
    Deadline { deadline: u64, left_at: Optional, state: State },
    /// A callback runs, or `online` is to follow: the timeout in nanoseconds (none: [`crate::presence::Presence::announced`]
    /// brings it), and the tick of the earliest leave.
    Timeout { timeout: Optional, leave: Optional },
}

/// A session of a user.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// The clock's reading of the last heartbeat.
    pub(crate) seen: Nanos,
    pub(crate) promise: Promise,
}

impl Session {
    /// Returns the tick of the deadline, or `None` while there is none.
    pub(crate) fn deadline(&self) -> Option<u64> {
        match self.promise {
            Promise::Deadline { deadline, .. } if self.id != SessionId::Past => Some(deadline),
            _ => None,
        }
    }

    /// Returns the state of the session's timeout, which the timeouts count.
    pub(crate) fn state(&self) -> State {
        match self.promise {
            Promise::Deadline { state, .. } => state,
            Promise::Timeout { .. } => State::OVERFLOW,
        }
    }

    /// Whether it has a heartbeat that came during a callback.
    pub(crate) fn is_remembered(&self) -> bool {
        matches!(self.promise, Promise::Timeout { .. })
    }

    /// Returns from when on a stall counts for this session: the last heartbeat, or the leave after it (rule 14).
    pub(crate) fn heard_at(&self) -> Nanos {
        match self.promise {
            Promise::Deadline { left_at, .. } if self.id.is_session() => left_at.get().unwrap_or(self.seen),
            _ => self.seen,
        }
    }
}

/// The records of users with named sessions, by the user's key. No record is empty.
#[derive(Clone)]
pub(crate) struct Sessions {
    parts: Box<[Part]>,
    /// Chooses the part. Seeded at random, since an attacker may choose keys.
    hasher: RandomState,
    /// How many records there are.
    len: usize,
    /// How many of these users are online, and how many sessions they have.
    users: usize,
    sessions: usize,
}

type Part = HashMap<u64, Box<[Session]>, RandomState>;

impl Sessions {
    pub(crate) fn new() -> Sessions {
        Sessions {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            hasher: RandomState::default(),
            len: 0,
            users: 0,
            sessions: 0,
        }
    }

    /// Whether the user has a record.
    #[inline]
    pub(crate) fn has(&self, key: u64) -> bool {
        self.get(key).is_some()
    }

    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<&[Session]> {
        if self.len == 0 {
            return None;
        }
        self.parts.get(self.part_of(key))?.get(&key).map(|record| &**record)
    }

    /// Returns the record to change it in place.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut [Session]> {
        if self.len == 0 {
            return None;
        }
        let part = self.part_of(key);
        self.parts.get_mut(part)?.get_mut(&key).map(|record| &mut **record)
    }

    /// Takes the record out, to change which sessions there are. `is_online` says whether the user is, which is what
    /// [`Sessions::put`] was called with. Returns no sessions if there is no record.
    pub(crate) fn take(&mut self, key: u64, is_online: bool) -> Vec<Session> {
        if self.len == 0 {
            return Vec::new();
        }
        let part = self.part_of(key);
        let Some(part) = self.parts.get_mut(part) else { return Vec::new() };
        let Some(record) = part.remove(&key) else { return Vec::new() };
        self.len -= 1;
        if is_online {
            self.users -= 1;
            self.sessions -= count(&record);
        }
        if part.len() * 8 <= part.capacity() {
            // Otherwise the map would keep the memory of its largest crowd.
            part.shrink_to(part.len() * 2);
        }
        record.into_vec()
    }

    /// Puts a record in for a user who has none; no record without sessions.
    pub(crate) fn put(&mut self, key: u64, record: Vec<Session>, is_online: bool) {
        if record.is_empty() {
            return;
        }
        let number = self.part_of(key);
        let Some(part) = self.parts.get_mut(number) else {
            return violated("each key has a part of the sessions");
        };
        self.len += 1;
        if is_online {
            self.users += 1;
            self.sessions += count(&record);
        }
        if part.insert(key, record.into_boxed_slice()).is_some() {
            violated("a record is put in for a user who has none");
        }
    }

    /// Returns by how much there are more sessions of users online than users online: each user without a record has
    /// one.
    pub(crate) fn surplus(&self) -> isize {
        self.sessions as isize - self.users as isize
    }

    /// Returns how many sessions, floors and notes there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().flat_map(HashMap::values).map(|record| record.len()).sum()
    }

    /// Returns how many bytes the records take, without the strings of ids.
    pub(crate) fn bytes(&self) -> usize {
        // A map has an eighth more places than it says, each with a byte of its own.
        let places: usize = self.parts.iter().map(|part| part.capacity() + part.capacity() / 7).sum();
        places * (size_of::<(u64, Box<[Session]>)>() + 1) + self.len() * size_of::<Session>()
    }

    /// Frees all memory, for good.
    pub(crate) fn free(&mut self) {
        *self = Sessions { parts: Box::default(), ..Sessions::new() };
    }

    #[inline]
    fn part_of(&self, key: u64) -> usize {
        self.hasher.hash_one(key) as usize % PARTS
    }
}

/// Returns how many sessions are in a record.
fn count(record: &[Session]) -> usize {
    record.iter().filter(|session| session.id.is_session()).count()
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.parts.iter().flatten()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::StringId;

    fn session(key: u64) -> Session {
        let promise = Promise::Deadline { deadline: key, left_at: Optional::NONE, state: State::OVERFLOW };
        Session { id: SessionId::Key(key), seen: key, promise }
    }

    #[test]
    fn a_session_is_48_bytes() {
        assert_eq!(size_of::<Session>(), 48);
    }

    #[test]
    fn an_optional_number_comes_back() {
        for number in [0, 1, u64::MAX - 1] {
            assert_eq!(Optional::some(number).get(), Some(number));
        }
        assert_eq!(Optional::NONE.get(), None);
        assert_eq!(Optional::from(Some(7)), Optional::some(7));
    }

    #[test]
    fn a_session_is_known_by_its_bytes_and_class() {
        let ada = StringId { bytes: b"ada", class: 1, label: 2 };
        let id = SessionId::new(Some(Id::String(ada)));
        assert!(id.is(Some(Id::String(StringId { label: 3, ..ada }))));
        assert!(!id.is(Some(Id::String(StringId { class: 2, ..ada }))));
        assert!(!id.is(Some(Id::String(StringId { bytes: b"adb", ..ada }))));
        assert!(!id.is(None) && !id.is(Some(Id::Key(1))));
        assert_eq!(id.to_owned_id(), Some(OwnedId::String { bytes: (*b"ada").into(), class: 1, label: 2 }));
    }

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let mut sessions = Sessions::new();
        for key in 0..64_000 {
            sessions.put(key, vec![session(key)], key % 2 == 0);
        }
        assert!(sessions.parts.iter().all(|part| (500..2_000).contains(&part.len())));
        assert_eq!((sessions.len(), sessions.surplus()), (64_000, 0));
        for key in 0..64_000 {
            assert_eq!(sessions.take(key, key % 2 == 0).len(), 1);
        }
        assert!(sessions.parts.iter().all(|part| part.capacity() == 0));
        assert_eq!((sessions.len(), sessions.bytes(), sessions.surplus()), (0, 0, 0));
    }
}
