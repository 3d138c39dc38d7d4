//! What the naive model says of users, sessions and deadlines.

use std::collections::BTreeMap;

use online_manager_tracker::{Counts, Nanos, TICK};

use super::session::{Due, LastSeen, Session, Sessions};
use super::{Naive, Source, UserIndex, UserState};

impl Naive {
    pub(crate) fn is_online(&self, index: UserIndex) -> bool {
        matches!(self.users.get(&index), Some(UserState::Announcing { .. } | UserState::Online { .. }))
    }

    /// Returns the sessions of a user that may be there, and whether that is certain.
    pub(crate) fn session_ids(&self, index: UserIndex, now: Nanos) -> BTreeMap<Source, bool> {
        let sources: Vec<Source> = match self.users.get(&index) {
            Some(UserState::Announcing { notes, .. }) => notes.keys().copied().collect(),
            Some(UserState::Online { sessions, .. }) => sessions.keys().copied().collect(),
            _ => Vec::new(),
        };
        let sessions = sources.into_iter().filter(|source| *source != Source::Floor);
        let there = sessions.map(|source| (source, self.is_there(index, source, now)));
        there.filter(|(_, is_there)| *is_there != Some(false)).map(|(id, is_there)| (id, is_there.is_some())).collect()
    }

    /// Returns how many sessions the users online have, over or not.
    pub(crate) fn session_count(&self) -> usize {
        let is_session = |source: &&Source| **source != Source::Floor;
        let counts = self.users.values().map(|state| match state {
            UserState::Announcing { notes, .. } => notes.keys().filter(is_session).count(),
            UserState::Online { sessions, .. } => sessions.keys().filter(is_session).count(),
            UserState::Departing { .. } => 0,
        });
        counts.sum()
    }

    /// Whether a session may still count: the binding must not release its id.
    pub(crate) fn is_in_use(&self, source: Source, now: Nanos) -> bool {
        self.users.iter().any(|(index, state)| match state {
            UserState::Departing { notes, .. } => notes.contains_key(&source),
            _ => self.is_there(*index, source, now) == Some(true),
        })
    }

    /// Returns whether a session is there, or `None` if it may be or not.
    pub(super) fn is_there(&self, index: UserIndex, source: Source, now: Nanos) -> Option<bool> {
        let due = match self.users.get(&index) {
            Some(UserState::Announcing { notes, .. }) => match notes.get(&source) {
                Some(note) => note.leave.unwrap_or(Due::now(Nanos::MAX)),
                None => return Some(false),
            },
            Some(UserState::Online { sessions, .. }) => match sessions.get(&source) {
                // Whether a leave came before the deadline is not known, so neither is which stalls count.
                Some(Session { left_at: Some(left_at), .. }) if left_at.earliest < left_at.latest => return None,
                Some(session) => self.put_off(session),
                None => return Some(false),
            },
            _ => return Some(false),
        };
        match due {
            due if due.by <= now => Some(false),
            due if due.from > now => Some(true),
            _ => None,
        }
    }

    pub(crate) fn last_seen(&self, index: UserIndex) -> Option<LastSeen> {
        match self.users.get(&index)? {
            UserState::Announcing { seen, .. } | UserState::Online { seen, .. } => Some(*seen),
            UserState::Departing { .. } => None,
        }
    }

    /// Returns when the user was last seen, also within a callback.
    pub(crate) fn last_seen_in_callback(&self, index: UserIndex) -> LastSeen {
        match self.users[&index] {
            UserState::Announcing { seen, .. } | UserState::Online { seen, .. } => seen,
            UserState::Departing { seen, .. } => seen,
        }
    }

    /// Returns the counts; `due` and `sessions` are 0.
    pub(crate) fn counts(&self) -> Counts {
        let count = |is_in: fn(&UserState) -> bool| self.users.values().filter(|user| is_in(user)).count();
        Counts {
            present: count(|state| !matches!(state, UserState::Departing { .. })),
            announcing: count(|state| matches!(state, UserState::Announcing { .. })),
            departing: count(|state| matches!(state, UserState::Departing { .. })),
            due: 0,
            sessions: 0,
        }
    }

    /// Returns the deadlines of all sessions of users who are Online.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Nanos> {
        self.users.values().flat_map(|state| match state {
            UserState::Online { sessions, .. } => sessions.values().map(|session| session.due.from).collect(),
            _ => Vec::new(),
        })
    }

    /// Returns how many sessions are remembered while `offline` runs, and until `online` is called after it.
    pub(crate) fn notes_in_offline(&self, index: UserIndex) -> usize {
        match self.users.get(&index) {
            Some(UserState::Departing { notes, .. }) => notes.len(),
            _ => 0,
        }
    }

    /// Returns the latest moment by which the timer has to check a user.
    pub(crate) fn timer_is_needed_by(&self) -> Option<Nanos> {
        let dues = self.users.values().filter_map(|state| match state {
            UserState::Online { sessions, .. } => Some(self.user_due(sessions).by),
            _ => None,
        });
        dues.min()
    }

    pub(crate) fn stalled(&mut self, start: Nanos, end: Nanos) {
        self.stalls.push((start, end));
        let is_put_off = |state: &UserState| match state {
            UserState::Online { sessions, .. } => {
                sessions.values().any(|session| self.put_off(session).from > session.due.from)
            }
            _ => false,
        };
        if self.users.values().any(is_put_off) {
            self.record_rule(14);
        }
    }

    /// Returns the deadline of a user: the latest of the sessions', put off by the stalls.
    pub(super) fn user_due(&self, sessions: &Sessions) -> Due {
        let dues: Vec<Due> = sessions.values().map(|session| self.put_off(session)).collect();
        let latest = |side: fn(&Due) -> Nanos| dues.iter().map(side).max().unwrap();
        Due { from: latest(|due| due.from), by: latest(|due| due.by) }
    }

    /// Returns the deadline of a session, put off by the stalls: for as long as it could not be heard since the last
    /// heartbeat or leave, and no longer than the timeout. Of neither the exact time is known, so `from` and `by` may
    /// be apart.
    pub(super) fn put_off(&self, session: &Session) -> Due {
        let Session { seen, due, left_at } = *session;
        let LastSeen { earliest, latest } = left_at.unwrap_or(seen);
        let until = |seen: Nanos, due: Nanos| {
            let counted = self.stalls.iter().filter(|(start, end)| *start < due && *end > seen);
            counted.map(|(start, end)| end + (end - seen.max(*start)).min(due.saturating_sub(seen))).max().unwrap_or(0)
        };
        let from = until(latest + TICK, due.from.min(due.by.saturating_sub(TICK)));
        let by = until(earliest.saturating_sub(TICK), due.by);
        let by = if by == 0 { 0 } else { Due::after(by - 1, 1, 0).by };
        // It is rounded down to a tick.
        Due { from: due.from.max(from.saturating_sub(TICK)), by: due.by.max(by) }
    }
}
