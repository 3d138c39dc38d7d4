//! Named sessions, under the lock.

use super::{Clock, Signal, Tracker};
use crate::id::{Id, OwnedId};
use crate::presence::{HeartbeatOutcome, SessionLeaveOutcome};
use crate::time::Nanos;

impl<C: Clock, S: Signal> Tracker<C, S> {
    /// See [`Presence::session_heartbeat`](crate::presence::Presence::session_heartbeat); `now` is a reading of
    /// [`Tracker::now`] from just before.
    #[inline]
    pub fn session_heartbeat(&self, id: Id<'_>, session: Id<'_>, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        let mut presence = self.shared.lock();
        let outcome = presence.session_heartbeat(id, session, now, timeout);
        self.shared.release(presence);
        outcome
    }

    /// See [`Presence::leave_session`](crate::presence::Presence::leave_session).
    pub fn leave_session(&self, id: Id<'_>, session: Option<Id<'_>>, after: Nanos) -> SessionLeaveOutcome {
        self.with(|presence, now| presence.leave_session(id, session, now, after))
    }

    /// See [`Presence::session_ids`](crate::presence::Presence::session_ids).
    pub fn session_ids(&self, id: Id<'_>) -> Vec<Option<OwnedId>> {
        let presence = self.shared.lock();
        presence.session_ids(id, self.now())
    }

    /// See [`Presence::set_max_sessions`](crate::presence::Presence::set_max_sessions).
    pub fn set_max_sessions(&self, max: usize) {
        self.shared.lock().set_max_sessions(max);
    }

    /// See [`Presence::count_session_keys`](crate::presence::Presence::count_session_keys).
    pub fn count_session_keys(&self, is_counted: fn(u64) -> bool) {
        self.shared.lock().count_session_keys(is_counted);
    }

    /// See [`Presence::is_session_key_known`](crate::presence::Presence::is_session_key_known).
    pub fn is_session_key_known(&self, key: u64) -> bool {
        self.shared.lock().is_session_key_known(key)
    }

    /// See [`Presence::take_released_sessions`](crate::presence::Presence::take_released_sessions).
    pub fn take_released_sessions(&self) -> Vec<u64> {
        self.shared.lock().take_released_sessions()
    }
}
