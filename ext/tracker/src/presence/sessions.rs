//! Users with named sessions: their heartbeats and leaves (rules S1 to S16).
//!
//! The record of such a user is in [`crate::sessions`], whatever the user's state; while Online the state is
//! [`State::SESSIONS`]. [`super::session_ends`] has the deadlines of sessions, and what ends them.

use super::session_ends::fold;
use super::{HeartbeatOutcome, LeaveOutcome, Presence, SessionLeaveOutcome, User};
use crate::entry::State;
use crate::id::{Id, OwnedId};
use crate::overflow::OverflowEntry;
use crate::sessions::{Optional, Promise, Session, SessionId};
use crate::table::Place;
use crate::time::{Nanos, TICK, start_of, tick_of};

impl Presence {
    /// Takes a heartbeat of a session of the user `id` at `now`, good for `timeout` nanoseconds; 0 counts as 1. The key of
    /// a session may be any number. A heartbeat of the unnamed session is a [`Presence::heartbeat`].
    pub fn session_heartbeat(&mut self, id: Id<'_>, session: Id<'_>, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        if self.is_stopping {
            return HeartbeatOutcome::Ignored;
        }
        let Some(place) = self.table.find(id) else {
            let outcome = self.add_user(id, now);
            if let HeartbeatOutcome::Announce(User(key)) = outcome {
                let first = self.new_session(Some(session), now, remembered(timeout));
                self.sessions.put(key, vec![first], true);
            }
            return outcome;
        };
        self.heartbeat_of_session(place, Some(session), now, timeout);
        HeartbeatOutcome::Known
    }

    /// Takes a heartbeat of a session of a known user; of the unnamed one for `None`.
    pub(super) fn heartbeat_of_session(&mut self, place: Place, session: Option<Id<'_>>, now: Nanos, timeout: Nanos) {
        let Some((key, state)) = self.table.get(place).map(|entry| (entry.key, entry.state())) else { return };
        if state == State::SESSIONS {
            match self.extend_session(key, session, now, timeout) {
                // It may be earlier than the end of another deadline that a stall has put off.
                Some(deadline) => {
                    if self.table.get(place).is_some_and(|entry| !entry.is_scheduled_by(deadline, tick_of(now))) {
                        self.schedule_sessions(place, now);
                    }
                }
                None => self.renew_session(place, session, now, timeout),
            }
        } else if state.is_online() {
            self.renew_session(place, session, now, timeout);
        } else {
            self.remember_heartbeat(place, session, now, timeout);
        }
    }

    /// Moves the deadline of a known session on, and returns it. Changes nothing if the heartbeat may do more.
    #[inline]
    fn extend_session(&mut self, key: u64, session: Option<Id<'_>>, now: Nanos, timeout: Nanos) -> Option<u64> {
        let later = self.deadline_after(now, timeout);
        let of_timeout = self.timeouts.state_for(timeout);
        let known = self.sessions.get_mut(key)?.iter_mut().find(|known| known.id.is(session))?;
        match &mut known.promise {
            Promise::Deadline { deadline, left_at, state }
                if known.seen <= now
                    && *left_at == Optional::NONE
                    && *state == of_timeout
                    && of_timeout != State::OVERFLOW =>
            {
                *deadline = later.max(*deadline);
                known.seen = now;
                Some(*deadline)
            }
            _ => None,
        }
    }

    /// Takes a heartbeat of a user who is Online.
    fn renew_session(&mut self, place: Place, session: Option<Id<'_>>, now: Nanos, timeout: Nanos) {
        let Some(key) = self.table.get(place).map(|entry| entry.key) else { return };
        let mut record = self.take_record(place, now);
        let state = self.timeouts.state_for(timeout);
        let promise = Promise::Deadline { deadline: self.deadline_after(now, timeout), left_at: Optional::NONE, state };
        match record.iter_mut().find(|known| known.id.is(session)) {
            // Rule S11: a heartbeat that was read later has come already.
            Some(known) if now < known.seen => {}
            Some(known) => {
                self.timeouts.enter(state);
                self.timeouts.exit(known.state());
                (known.seen, known.promise) = (now, promise);
            }
            None => {
                self.timeouts.enter(state);
                let new = self.new_session(session, now, promise);
                self.add_session(&mut record, new, now);
                self.evict(&mut record, now, false);
            }
        }
        if let Some(entry) = self.table.get_mut(place) {
            entry.set_state(State::SESSIONS);
        }
        self.sessions.put(key, record, true);
        self.schedule_sessions(place, now);
    }

    /// Takes a heartbeat during a callback, or before the `online` that follows an `offline` (rules S8 and S10).
    fn remember_heartbeat(&mut self, place: Place, session: Option<Id<'_>>, now: Nanos, timeout: Nanos) {
        let Some((key, state)) = self.table.get(place).map(|entry| (entry.key, entry.state())) else { return };
        let mut record = self.take_record(place, now);
        match record.iter_mut().find(|known| known.id.is(session)) {
            // Rule S11.
            Some(known) if known.is_remembered() && now < known.seen => {}
            // Clears the leave of this session that came before, and no other (rule S9).
            Some(known) => {
                let before = std::mem::replace(&mut known.promise, remembered(timeout));
                known.seen = now;
                if state == State::DEPARTING && matches!(before, Promise::Deadline { .. }) {
                    // Should this heartbeat be cleared and the claim be taken back, the user is still due.
                    fold(&mut record, Session { id: SessionId::Floor, seen: now, promise: before });
                }
            }
            None => {
                let new = self.new_session(session, now, remembered(timeout));
                self.add_session(&mut record, new, now);
            }
        }
        self.evict(&mut record, now, true);
        self.sessions.put(key, record, state == State::ANNOUNCING);
        if let Some(entry) = self.table.get_mut(place) {
            entry.set_deadline(tick_of(now));
        }
        if state == State::DEPARTING {
            let has_returned =
                matches!(self.overflow.get(key), Some(OverflowEntry::Departing { has_returned: true, .. }));
            self.overflow.insert(key, OverflowEntry::Departing { timeout, has_returned });
        }
    }

    /// Adds a session, in the place of those that are over.
    fn add_session(&mut self, record: &mut Vec<Session>, new: Session, now: Nanos) {
        self.drop_over(record, now);
        // Most users have few sessions: no room for more than there are.
        record.reserve_exact(1);
        record.push(new);
    }

    fn new_session(&mut self, id: Option<Id<'_>>, seen: Nanos, promise: Promise) -> Session {
        let id = SessionId::new(id);
        self.session_keys.begin(&id);
        Session { id, seen, promise }
    }

    /// Takes the user's record out. A user without one gets one with the unnamed session, if that is there: what the
    /// entry and its overflow entry hold of it is then in the record only.
    fn take_record(&mut self, place: Place, now: Nanos) -> Vec<Session> {
        let Some((key, state)) = self.table.get(place).map(|entry| (entry.key, entry.state())) else {
            return Vec::new();
        };
        if self.sessions.has(key) {
            return self.sessions.take(key, state != State::DEPARTING);
        }
        let mut seen = self.unnamed_seen(place, now);
        let promise = match state {
            State::ANNOUNCING => match self.overflow.remove(key) {
                Some(OverflowEntry::Announcing { timeout, leave }) => {
                    Promise::Timeout { timeout: timeout.into(), leave: leave.into() }
                }
                _ => Promise::Timeout { timeout: Optional::NONE, leave: Optional::NONE },
            },
            State::DEPARTING => match self.overflow.get(key) {
                Some(OverflowEntry::Departing { timeout, .. }) => remembered(timeout),
                // Over, but still there if the claim is taken back.
                Some(OverflowEntry::Online { last_seen, deadline, left_at }) => {
                    seen = last_seen;
                    Promise::Deadline { deadline, left_at: left_at.into(), state: State::OVERFLOW }
                }
                _ => Promise::Deadline { deadline: tick_of(now), left_at: Optional::NONE, state: State::OVERFLOW },
            },
            _ => {
                let (deadline, left_at) = (self.deadline_of(place, now), self.left_at(place).into());
                if state == State::OVERFLOW {
                    self.overflow.remove(key);
                }
                Promise::Deadline { deadline, left_at, state }
            }
        };
        // Room for the session that it is made for.
        let mut record = Vec::with_capacity(2);
        record.push(Session { id: SessionId::Unnamed, seen, promise });
        record
    }

    /// Returns when the last heartbeat of a user without named sessions came, or up to a tick earlier: were it later,
    /// the next heartbeat could seem to have been overtaken by it.
    fn unnamed_seen(&self, place: Place, now: Nanos) -> Nanos {
        let Some(entry) = self.table.get(place) else { return now };
        match entry.state() {
            State::ANNOUNCING | State::DEPARTING => start_of(entry.deadline(tick_of(now))),
            State::OVERFLOW => self.last_seen_of(place, now).unwrap_or(now),
            _ => self.last_seen_of(place, now).unwrap_or(now).saturating_sub(TICK - 1),
        }
    }

    /// Sets the deadlines of all sessions of a user with a record to the tick `leave` unless they are earlier already.
    /// During a callback it is remembered, or clears what is. See [`Presence::leave`].
    pub(super) fn leave_all_sessions(&mut self, place: Place, now: Nanos, leave: u64) -> LeaveOutcome {
        let Some((key, state)) = self.table.get(place).map(|entry| (entry.key, entry.state())) else {
            return LeaveOutcome { was_online: false, forgotten: None };
        };
        if state == State::DEPARTING {
            let forgotten = self.forget_remembered(place, |_| true);
            return LeaveOutcome { was_online: false, forgotten };
        }
        let mut record = self.sessions.take(key, true);
        for session in record.iter_mut().filter(|session| session.id != SessionId::Past) {
            self.leave_one(session, now, leave);
        }
        self.sessions.put(key, record, true);
        if state == State::SESSIONS {
            self.schedule_sessions(place, now);
        }
        LeaveOutcome { was_online: true, forgotten: None }
    }

    /// Sets the deadline of one session of the user `id` to `after` nanoseconds from `now` unless it is earlier already
    /// (rule S2); of the unnamed session for `None`. Another session's deadline stays, and so does a remembered leave
    /// of it.
    pub fn leave_session(
        &mut self,
        id: Id<'_>,
        session: Option<Id<'_>>,
        now: Nanos,
        after: Nanos,
    ) -> SessionLeaveOutcome {
        let unknown = SessionLeaveOutcome { was_there: false, forgotten: None };
        let Some(place) = self.table.find(id) else { return unknown };
        let Some((key, state)) = self.table.get(place).map(|entry| (entry.key, entry.state())) else { return unknown };
        if !self.sessions.has(key) {
            if session.is_some() {
                return unknown;
            }
            // The unnamed session is the only one.
            let was_there = self.is_unnamed_there(place, now);
            return SessionLeaveOutcome { was_there, forgotten: self.leave(id, now, after).forgotten };
        }
        if state == State::DEPARTING {
            let forgotten = self.forget_remembered(place, |known| known.id.is(session));
            return SessionLeaveOutcome { was_there: false, forgotten };
        }
        let leave = self.leave_tick(now, after);
        let mut record = self.sessions.take(key, true);
        let mut was_there = false;
        if let Some(known) = record.iter_mut().find(|known| known.id.is(session)) {
            was_there = self.is_there(known, now);
            self.leave_one(known, now, leave);
        }
        self.sessions.put(key, record, true);
        if state == State::SESSIONS {
            self.schedule_sessions(place, now);
        }
        SessionLeaveOutcome { was_there, forgotten: None }
    }

    /// Brings the deadline of a session forward to the tick `leave`, or remembers that. One that is over stays so.
    fn leave_one(&self, session: &mut Session, now: Nanos, leave: u64) {
        let end = self.end_of(session);
        match &mut session.promise {
            Promise::Deadline { deadline, left_at, .. } => {
                if leave < end {
                    *deadline = leave;
                    *left_at = Optional::some(now);
                    if session.id == SessionId::Floor {
                        // No stall before the leave puts it off.
                        session.seen = now;
                    }
                }
            }
            Promise::Timeout { leave: remembered, .. } => {
                *remembered = Optional::some(remembered.get().map_or(leave, |earlier| earlier.min(leave)));
            }
        }
    }

    /// Forgets the remembered heartbeats, chosen by `is_meant`, of a user who is Departing or rejoining. Returns the
    /// user if that removed the entry: no heartbeat is left, and `offline` has returned.
    fn forget_remembered(&mut self, place: Place, is_meant: impl Fn(&Session) -> bool) -> Option<User> {
        let key = self.table.get(place)?.key;
        let mut record = self.sessions.take(key, false);
        self.end_sessions(&mut record, |session| session.is_remembered() && is_meant(session));
        let is_any_left = record.iter().any(Session::is_remembered);
        self.sessions.put(key, record, false);
        if is_any_left {
            return None;
        }
        let Some(OverflowEntry::Departing { has_returned, .. }) = self.overflow.get(key) else { return None };
        self.overflow.remove(key);
        has_returned.then(|| {
            self.remove_departed(place);
            User(key)
        })
    }

    /// Returns the sessions of `id` that are there, `None` for the unnamed one (rule S12). Empty between the deadline
    /// and the claim, while `offline` runs, and until `online` is called after it.
    pub fn session_ids(&self, id: Id<'_>, now: Nanos) -> Vec<Option<OwnedId>> {
        let Some(place) = self.table.find(id) else { return Vec::new() };
        match self.table.get(place) {
            Some(entry) if entry.state() == State::DEPARTING => Vec::new(),
            Some(entry) if self.sessions.has(entry.key) => {
                let record = self.sessions.get(entry.key).into_iter().flatten();
                let there = record.filter(|session| session.id.is_session() && self.is_there(session, now));
                there.map(|session| session.id.to_owned_id()).collect()
            }
            Some(_) if self.is_unnamed_there(place, now) => vec![None],
            _ => Vec::new(),
        }
    }

    /// Whether a session of a user online is not over.
    fn is_there(&self, session: &Session, now: Nanos) -> bool {
        match session.promise {
            Promise::Deadline { .. } => self.end_of(session) > tick_of(now),
            Promise::Timeout { leave, .. } => leave.get().is_none_or(|leave| leave > tick_of(now)),
        }
    }

    /// Whether the only session of a user without named ones is not over.
    fn is_unnamed_there(&self, place: Place, now: Nanos) -> bool {
        let Some(entry) = self.table.get(place) else { return false };
        match entry.state() {
            State::DEPARTING => false,
            State::ANNOUNCING => match self.overflow.get(entry.key) {
                Some(OverflowEntry::Announcing { leave: Some(leave), .. }) => leave > tick_of(now),
                _ => true,
            },
            _ => self.deadline_of(place, now).max(self.put_off(place, now)) > tick_of(now),
        }
    }

    /// Limits the sessions of each user to `max`, at least 1; 100 if this is never called (rule S16).
    pub fn set_max_sessions(&mut self, max: usize) {
        self.max_sessions = max.max(1);
    }

    /// From now on counts the uses of the session keys for which `is_counted` returns true, and returns those that no
    /// session has any more from [`Presence::take_released_sessions`]. For keys that stand for objects of the caller's.
    pub fn count_session_keys(&mut self, is_counted: fn(u64) -> bool) {
        self.session_keys.count(is_counted);
    }

    /// Whether a session has this counted key, or it waits for [`Presence::take_released_sessions`]. Otherwise the caller may
    /// release it at once.
    pub fn is_session_key_known(&self, key: u64) -> bool {
        self.session_keys.is_known(key)
    }

    /// Takes the counted session keys that no session of any user has any more, each once. A key that was released and
    /// is used again before this is called is not among them.
    pub fn take_released_sessions(&mut self) -> Vec<u64> {
        self.session_keys.take_released()
    }
}

/// Returns the promise of a heartbeat that comes while there is no deadline.
fn remembered(timeout: Nanos) -> Promise {
    Promise::Timeout { timeout: Optional::some(timeout), leave: Optional::NONE }
}
