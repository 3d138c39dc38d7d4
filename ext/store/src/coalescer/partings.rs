//! Who is not known in this process, and left a moment ago in any process.

use std::collections::HashMap;

use online_manager_tracker::Nanos;
use parking_lot::Mutex;

use super::entry::is_recent;
use crate::id::UserId;
use crate::outbox::merge_leaves;

/// For how long a leave is kept at least, in nanoseconds: the user's process polls several times.
const KEPT: Nanos = 1_000_000_000;

/// The leave of a user who is not known here.
#[derive(Clone, Copy, Debug)]
struct Parting {
    /// When this process sent the leave or heard of it: a heartbeat that follows is later.
    known_at: Nanos,
    /// The leave that this process has sent, if it has, and how long after it the user is due. If the data are lost before the
    /// user's own process has heard of it, nobody else can write it again.
    own: Option<(Nanos, Nanos)>,
}

impl Parting {
    /// Whether it may be needed, after every event is delivered that was due before `settled_at`.
    fn is_kept(&self, now: Nanos, settled_at: Nanos) -> bool {
        let is_own_kept =
            |(at, after): (Nanos, Nanos)| now < at.saturating_add(KEPT) || at.saturating_add(after) >= settled_at;
        is_recent(self.known_at, now) || self.own.is_some_and(is_own_kept)
    }
}

/// Those users. Its lock is taken after that of a part of the table, and never together with the outbox's.
#[derive(Debug, Default)]
pub(super) struct Partings(Mutex<HashMap<UserId, Parting>>);

impl Partings {
    /// The user leaves in this process at `now`, and is due `after` that.
    pub(super) fn leave(&self, id: &UserId, now: Nanos, after: Nanos) {
        let mut partings = self.0.lock();
        let parting = partings.entry(id.clone()).or_insert(Parting { known_at: now, own: None });
        *parting = Parting { known_at: now, own: Some(merge_leaves(parting.own, (now, after))) };
    }

    /// This process hears at `now` that the user has left.
    pub(super) fn hear(&self, id: &UserId, now: Nanos) {
        self.0.lock().entry(id.clone()).or_insert(Parting { known_at: now, own: None }).known_at = now;
    }

    /// The user comes here. Returns when this process sent or heard of a leave, if it knows of one.
    pub(super) fn remove(&self, id: &UserId) -> Option<Nanos> {
        self.0.lock().remove(id).map(|parting| parting.known_at)
    }

    /// Forgets what is not needed any more.
    pub(super) fn forget(&self, now: Nanos, settled_at: Nanos) {
        self.0.lock().retain(|_, parting| parting.is_kept(now, settled_at));
    }

    /// Returns the leaves that this process has sent, each with its time and how long after it the user is due.
    pub(super) fn own_leaves(&self) -> Vec<(UserId, (Nanos, Nanos))> {
        self.0.lock().iter().filter_map(|(id, parting)| Some((id.clone(), parting.own?))).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}
