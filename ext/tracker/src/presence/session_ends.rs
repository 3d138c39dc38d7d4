//! The deadlines of named sessions: which counts for the user, what ends a session, and what becomes of the sessions as
//! callbacks begin and end.

use super::{Presence, SLOW_ONLINE};
use crate::entry::{HORIZON, State};
use crate::overflow::OverflowEntry;
use crate::sessions::{Optional, Promise, Session, SessionId};
use crate::table::Place;
use crate::time::{Nanos, start_of, tick_of};

/// When a session that is over is checked again if it must not be dropped yet, in ticks: a quarter of a second, in
/// which the reactor shows that it is alive.
const RECHECK: u64 = 256;

impl Presence {
    /// Everything is known to have run until `moment`: any stall that is still to be found begins there or later. A
    /// session whose deadline is later is not dropped, since a stall may put its end off (rule 14). Without a call,
    /// nothing is in doubt.
    pub fn set_running_until(&mut self, moment: Nanos) {
        self.running_until = moment;
    }

    /// Returns the tick at which a session ends: the deadline, or until when stalls put it off; 0 without a deadline.
    pub(super) fn end_of(&self, session: &Session) -> u64 {
        let Some(deadline) = session.deadline() else { return 0 };
        // Rounded down, as in `put_off`.
        deadline.max(tick_of(self.stalls.put_off(session.heard_at(), start_of(deadline))))
    }

    /// Returns the sessions of the user at `place`, with floor and note.
    fn record_of(&self, place: Place) -> impl Iterator<Item = &Session> {
        self.table.get(place).and_then(|entry| self.sessions.get(entry.key)).into_iter().flatten()
    }

    /// Returns the latest deadline of the sessions (rule S1).
    pub(super) fn latest_deadline(&self, place: Place) -> Option<u64> {
        self.record_of(place).filter_map(Session::deadline).max()
    }

    /// Returns the tick until which stalls put off the end of a session; 0 if they do not.
    pub(super) fn latest_end(&self, place: Place) -> u64 {
        self.record_of(place).map(|session| self.end_of(session)).max().unwrap_or(0)
    }

    /// Returns when a leave has set the latest deadline, if one has (rule S13).
    pub(super) fn latest_left_at(&self, place: Place) -> Option<Nanos> {
        let latest = self.latest_deadline(place)?;
        self.record_of(place).find_map(|session| match session.promise {
            Promise::Deadline { left_at, .. } if session.deadline() == Some(latest) => left_at.get(),
            _ => None,
        })
    }

    /// Returns when the last heartbeat of any session came (rule S13).
    pub(super) fn latest_seen(&self, place: Place) -> Option<Nanos> {
        let sessions = self.record_of(place).filter(|session| session.id != SessionId::Floor);
        sessions.map(|session| session.seen).max()
    }

    /// Schedules the next check of a user with named sessions who is Online, unless there is an earlier one.
    pub(super) fn schedule_sessions(&mut self, place: Place, now: Nanos) {
        let next = self.next_check(place, now);
        if self.table.get(place).is_some_and(|entry| !entry.is_scheduled_by(next, tick_of(now))) {
            self.schedule(place, next, now);
        }
    }

    /// Drops the sessions that are over, unless all are. Returns the tick at which to check a user who is Online: the
    /// deadline if it has passed, otherwise the earliest deadline of a session (rule S15).
    pub(super) fn next_check(&mut self, place: Place, now: Nanos) -> u64 {
        let Some(key) = self.table.get(place).filter(|entry| entry.state() == State::SESSIONS).map(|entry| entry.key)
        else {
            return self.deadline_of(place, now);
        };
        let present = tick_of(now);
        let latest = self.latest_deadline(place).unwrap_or(present);
        if self.record_of(place).any(|session| session.deadline().is_none_or(|deadline| deadline <= present)) {
            let mut record = self.sessions.take(key, true);
            self.drop_over(&mut record, now);
            self.sessions.put(key, record, true);
        }
        self.forget_record_of_unnamed(place, now);
        if latest <= present {
            return latest;
        }
        // None if the record was forgotten.
        let next = self.record_of(place).filter_map(|session| match session.deadline()? {
            deadline if deadline > present => Some(deadline),
            _ => Some(self.end_of(session).max(present + RECHECK)),
        });
        next.min().unwrap_or(latest)
    }

    /// Drops the sessions that are over, except the one with the latest deadline, and notes that no session needs any
    /// more.
    pub(super) fn drop_over(&mut self, record: &mut Vec<Session>, now: Nanos) {
        let latest = record.iter().filter_map(Session::deadline).max();
        let certain = self.running_until;
        let is_over = |presence: &Presence, session: &Session| {
            session.deadline().is_some_and(|deadline| {
                // A stall that is not found yet would put the end of the session off, and so the user's claim.
                Some(deadline) < latest && start_of(deadline) <= certain && presence.end_of(session) <= tick_of(now)
            })
        };
        let over: Vec<bool> = record
            .iter()
            .map(|session| match session.id {
                // It is noted again if no session has a later heartbeat.
                SessionId::Past => true,
                _ => is_over(self, session),
            })
            .collect();
        let mut over = over.into_iter();
        self.end_sessions(record, |_| over.next().unwrap_or(false));
    }

    /// Ends the sessions that are chosen. Keeps a note of the last heartbeat if its session is gone and others are left
    /// (rule S13).
    pub(super) fn end_sessions(&mut self, record: &mut Vec<Session>, mut is_meant: impl FnMut(&Session) -> bool) {
        let last_seen = latest_seen_in(record);
        record.retain(|session| {
            let is_meant = is_meant(session);
            if is_meant {
                self.timeouts.exit(session.state());
                self.session_keys.end(&session.id);
            }
            !is_meant
        });
        if record.iter().all(|session| session.id == SessionId::Past) {
            record.clear();
        } else {
            note_last_seen(record, last_seen);
        }
    }

    /// Evicts the sessions with the earliest deadlines if there are too many, and folds their deadlines into the floor
    /// (rule S16). During a callback only the sessions count whose heartbeat is remembered.
    pub(super) fn evict(&mut self, record: &mut Vec<Session>, now: Nanos, is_remembered: bool) {
        let counts = |session: &Session| session.id.is_session() && session.is_remembered() == is_remembered;
        while record.iter().filter(|session| counts(session)).count() > self.max_sessions {
            let last_seen = latest_seen_in(record);
            let candidates = record.iter().enumerate().filter(|(_, session)| counts(session));
            let Some((index, _)) = candidates.min_by_key(|(_, session)| self.expected_deadline(session, now)) else {
                return;
            };
            let evicted = record.remove(index);
            self.timeouts.exit(evicted.state());
            self.session_keys.end(&evicted.id);
            // One that left before the return of `online` has no deadline that could count.
            let has_left = |leave: Optional| leave.get().is_some_and(|leave| leave <= tick_of(now));
            if !matches!(evicted.promise, Promise::Timeout { leave, .. } if has_left(leave)) {
                fold(record, evicted);
            }
            note_last_seen(record, last_seen);
        }
    }

    /// Returns the deadline of a session; if `online` has not returned, the one that it would have if it did at `now`.
    fn expected_deadline(&self, session: &Session, now: Nanos) -> u64 {
        match session.promise {
            Promise::Deadline { deadline, .. } => deadline,
            Promise::Timeout { timeout, leave } => match timeout.get() {
                Some(timeout) => self.deadline_after(now, timeout).min(leave.get().unwrap_or(u64::MAX)),
                // Only the return of `online` shows it, unless the session has left by now.
                None => leave.get().filter(|leave| *leave <= tick_of(now)).unwrap_or(u64::MAX),
            },
        }
    }

    /// `online` has returned: the deadlines of all sessions with a heartbeat count from now (rule S8). `timeout` is
    /// that of a first heartbeat without a session.
    pub(super) fn begin_deadlines(&mut self, place: Place, now: Nanos, timeout: Nanos) {
        let Some(key) = self.table.get(place).map(|entry| entry.key) else { return };
        let mut record = self.sessions.take(key, true);
        for session in &mut record {
            if let Promise::Timeout { timeout: own, leave } = session.promise {
                let timeout = own.get().unwrap_or(timeout);
                let deadline = self.deadline_after(now, timeout);
                session.promise = match leave.get() {
                    Some(leave) if leave < deadline => {
                        Promise::Deadline { deadline: leave, left_at: Optional::some(now), state: State::OVERFLOW }
                    }
                    _ => {
                        let state = match session.id {
                            SessionId::Floor => State::OVERFLOW,
                            _ => self.timeouts.state_for(timeout),
                        };
                        self.timeouts.enter(state);
                        Promise::Deadline { deadline, left_at: Optional::NONE, state }
                    }
                };
            }
        }
        self.sessions.put(key, record, true);
        if let Some(entry) = self.table.get_mut(place) {
            entry.set_state(State::SESSIONS);
        }
        let next = self.next_check(place, now);
        self.schedule(place, next, now);
    }

    /// The user is Departing: no deadline runs meanwhile. The sessions stay, since the claim may be taken back.
    pub(super) fn depart_sessions(&mut self, key: u64, now: Nanos) {
        let mut record = self.sessions.take(key, true);
        for session in &mut record {
            self.timeouts.exit(session.state());
            session.promise = match session.promise {
                Promise::Deadline { deadline, left_at, .. } => {
                    Promise::Deadline { deadline, left_at, state: State::OVERFLOW }
                }
                // A stop came during `online`.
                Promise::Timeout { .. } => {
                    Promise::Deadline { deadline: tick_of(now), left_at: Optional::NONE, state: State::OVERFLOW }
                }
            };
        }
        self.sessions.put(key, record, false);
    }

    /// `offline` has returned: only the heartbeats that came meanwhile are kept (rule S10).
    pub(super) fn keep_remembered(&mut self, key: u64) {
        let mut record = self.sessions.take(key, false);
        self.end_sessions(&mut record, |session| session.deadline().is_some());
        self.sessions.put(key, record, false);
    }

    /// The user is Announcing again after an `offline`. Returns false if there is no record.
    pub(super) fn rejoin_with_sessions(&mut self, key: u64) -> bool {
        let record = self.sessions.take(key, false);
        let has_sessions = !record.is_empty();
        self.sessions.put(key, record, true);
        has_sessions
    }

    /// A claim for `online` is taken back. Returns the timeout of a heartbeat that counts still: one without a leave
    /// since the claim. The others are forgotten.
    pub(super) fn unclaim_online_of_sessions(&mut self, key: u64) -> Option<Nanos> {
        let mut record = self.sessions.take(key, true);
        let is_over = |session: &Session| match session.promise {
            Promise::Timeout { timeout, leave } => timeout == Optional::NONE || leave != Optional::NONE,
            Promise::Deadline { .. } => session.id != SessionId::Past,
        };
        self.end_sessions(&mut record, is_over);
        let timeouts = record.iter().filter_map(|session| match session.promise {
            Promise::Timeout { timeout, .. } => timeout.get(),
            Promise::Deadline { .. } => None,
        });
        let timeout = timeouts.max();
        self.sessions.put(key, record, false);
        timeout
    }

    /// A claim for `offline` is taken back: the sessions are as before it, and due. Heartbeats since then count as ones
    /// before it (rule 2).
    pub(super) fn unclaim_offline_of_sessions(&mut self, place: Place, now: Nanos) {
        let Some(key) = self.table.get(place).map(|entry| entry.key) else { return };
        let mut record = self.sessions.take(key, false);
        for session in &mut record {
            session.promise = match session.promise {
                Promise::Deadline { deadline, left_at, state } => {
                    Promise::Deadline { deadline: deadline.min(tick_of(now)), left_at, state }
                }
                Promise::Timeout { timeout, .. } => {
                    let deadline = self.deadline_after(session.seen, timeout.get().unwrap_or(0));
                    Promise::Deadline { deadline, left_at: Optional::NONE, state: State::OVERFLOW }
                }
            };
        }
        self.drop_over(&mut record, now);
        self.evict(&mut record, now, false);
        self.sessions.put(key, record, true);
        self.overflow.remove(key);
        if let Some(entry) = self.table.get_mut(place) {
            entry.set_state(State::SESSIONS);
        }
    }

    /// Forgets the record of a user whose only session is the unnamed one: sixteen bytes are enough again (rule S5).
    fn forget_record_of_unnamed(&mut self, place: Place, now: Nanos) {
        let Some(key) = self.table.get(place).map(|entry| entry.key) else { return };
        let Some([Session { id: SessionId::Unnamed, seen, promise: Promise::Deadline { deadline, left_at, state } }]) =
            self.sessions.get(key)
        else {
            return;
        };
        let (seen, deadline, left_at, state) = (*seen, *deadline, left_at.get(), *state);
        // The last heartbeat is derived from the deadline, if that is exact enough. Otherwise both need an overflow
        // entry.
        let derived = self
            .timeouts
            .timeout_of(state)
            .and_then(|timeout| start_of(deadline).checked_sub(timeout.saturating_add(self.jitter))?.checked_sub(seen));
        let is_plain = left_at.is_none() && derived.is_some_and(|later| later < SLOW_ONLINE);
        let online = if is_plain { state } else { State::OVERFLOW };
        self.sessions.take(key, true);
        let Some(entry) = self.table.get_mut(place) else { return };
        entry.set_state(online);
        entry.set_deadline(deadline.min(tick_of(now) + HORIZON));
        if !is_plain {
            self.timeouts.exit(state);
            self.overflow.insert(key, OverflowEntry::Online { last_seen: seen, deadline, left_at });
        }
    }

    /// Forgets the record of a user who is forgotten.
    pub(super) fn forget_sessions(&mut self, key: u64, is_online: bool) {
        let mut record = self.sessions.take(key, is_online);
        self.end_sessions(&mut record, |_| true);
    }
}

/// Returns when the last heartbeat came.
fn latest_seen_in(record: &[Session]) -> Option<Nanos> {
    record.iter().filter(|session| session.id != SessionId::Floor).map(|session| session.seen).max()
}

/// Keeps a note of the last heartbeat if its session is gone (rule S13).
fn note_last_seen(record: &mut Vec<Session>, last_seen: Option<Nanos>) {
    if let Some(seen) = last_seen
        && latest_seen_in(record).is_none_or(|latest| latest < seen)
    {
        record.retain(|session| session.id != SessionId::Past);
        let promise = Promise::Deadline { deadline: 0, left_at: Optional::NONE, state: State::OVERFLOW };
        record.push(Session { id: SessionId::Past, seen, promise });
    }
}

/// Folds the deadline of an evicted session into the floor: of both the later deadline, and the earlier heartbeat, so
/// that a stall puts the floor off for as long as it would the session.
pub(super) fn fold(record: &mut Vec<Session>, evicted: Session) {
    let is_floor =
        |session: &Session| session.id == SessionId::Floor && session.is_remembered() == evicted.is_remembered();
    let heard_at = evicted.heard_at();
    let Some(floor) = record.iter_mut().find(|session| is_floor(session)) else {
        let promise = match evicted.promise {
            Promise::Deadline { deadline, left_at, .. } => {
                Promise::Deadline { deadline, left_at, state: State::OVERFLOW }
            }
            promise => promise,
        };
        record.push(Session { id: SessionId::Floor, seen: heard_at, promise });
        return;
    };
    floor.seen = match floor.promise {
        Promise::Deadline { .. } => floor.seen.min(heard_at),
        // There is no deadline yet that a stall could put off; but if the claim is taken back, it counts from here.
        Promise::Timeout { .. } => floor.seen.max(heard_at),
    };
    match (&mut floor.promise, evicted.promise) {
        (
            Promise::Deadline { deadline, left_at, .. },
            Promise::Deadline { deadline: other, left_at: other_left, .. },
        ) if other > *deadline => {
            (*deadline, *left_at) = (other, other_left);
        }
        (Promise::Timeout { timeout, leave }, Promise::Timeout { timeout: other, leave: other_leave }) => {
            *timeout = timeout.get().max(other.get()).into();
            // The later leave, or none.
            *leave = leave.get().and_then(|own| Some(own.max(other_leave.get()?))).into();
        }
        _ => {}
    }
}
