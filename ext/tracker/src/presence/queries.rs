//! Who is online, since when, and how many.

use super::{Counts, Presence};
use crate::entry::State;
use crate::id::{Id, OwnedId};
use crate::invariant::violated;
use crate::overflow::OverflowEntry;
use crate::table::{PARTS, PREFETCH_BATCH, Place};
use crate::time::{Nanos, start_of, tick_of};

impl Presence {
    /// Whether `id` is online: from the heartbeat that announces the user to the claim for `offline`.
    pub fn is_online(&self, id: Id<'_>) -> bool {
        let entry = self.table.find(id).and_then(|place| self.table.get(place));
        entry.is_some_and(|entry| entry.state() != State::DEPARTING)
    }

    /// Whether `id` has an entry: the user is online, or inside `offline`, or rejoining.
    pub fn is_known(&self, id: Id<'_>) -> bool {
        self.table.find(id).is_some()
    }

    /// Returns when the last heartbeat of `id` came, exact to a tick and the clock's jitter, or `None` if the user is
    /// not online. For a first heartbeat it is the return of `online`, unless `online` took 10 ms or more.
    pub fn last_seen(&self, id: Id<'_>, now: Nanos) -> Option<Nanos> {
        self.last_seen_of(self.table.find(id)?, now)
    }

    /// See [`Presence::last_seen`].
    pub(super) fn last_seen_of(&self, place: Place, now: Nanos) -> Option<Nanos> {
        let entry = self.table.get(place)?;
        let last_seen = match entry.state() {
            State::DEPARTING => return None,
            State::ANNOUNCING => start_of(entry.deadline(tick_of(now))),
            State::OVERFLOW => match self.overflow.get(entry.key) {
                Some(OverflowEntry::Online { last_seen, .. }) => last_seen,
                _ => {
                    violated("a user whose state is in an overflow entry has one");
                    return None;
                }
            },
            State::SESSIONS => self.latest_seen(place)?,
            state => {
                let timeout = self.timeouts.timeout_of(state)?;
                start_of(entry.deadline(tick_of(now))).saturating_sub(timeout.saturating_add(self.jitter))
            }
        };
        Some(last_seen.min(now))
    }

    /// Whether the user at `place` is Online with named sessions.
    pub(super) fn has_sessions(&self, place: Place) -> bool {
        self.table.get(place).is_some_and(|entry| entry.state() == State::SESSIONS)
    }

    /// Returns how many users are in which state.
    pub fn counts(&self) -> Counts {
        let sessions = self.counts.present.saturating_add_signed(self.sessions.surplus());
        Counts { due: self.due.len(), sessions, ..self.counts }
    }

    /// Returns the users online in one part of the table, a number below [`Presence::PARTS`]: reading all parts at once
    /// would hold the lock for too long.
    pub fn online_users(&self, part: usize) -> Vec<OwnedId> {
        let online = self.table.part(part).filter(|entry| entry.state() != State::DEPARTING);
        online.map(|entry| self.owned_id(entry.key)).collect()
    }

    /// How many parts the table has, for [`Presence::online_users`].
    pub const PARTS: usize = PARTS;

    /// For how many users a caller should [`prefetch`](Presence::prefetch) before it takes the first of their
    /// heartbeats.
    pub const PREFETCH_BATCH: usize = PREFETCH_BATCH;

    pub(super) fn owned_id(&self, key: u64) -> OwnedId {
        if crate::id::is_valid_key(key) {
            return OwnedId::Key(key);
        }
        self.table.owned_string(key).unwrap_or_else(|| {
            violated("the string of each user is in the arena");
            // Its callback is called all the same, so that the user does not stay in the table for ever.
            OwnedId::String { bytes: Box::default(), class: 0, label: 0 }
        })
    }
}
