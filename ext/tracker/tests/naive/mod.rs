//! Rules 1 to 14 and S1 to S16 of `docs/state_machine.md` in the most obvious way: a map of users in explicit states,
//! each with a map of sessions of which the unnamed one is just one more, moments that are not rounded, and a scan of
//! everything each time. A session that is over stays until its user has gone. Slow and easy to check; it shares only
//! the types of the results with the code that it is compared with.

// Each test has its own copy of this module, and none uses all of it.
#![allow(dead_code)]

mod queries;
mod session;

use std::collections::{BTreeMap, BTreeSet};

use online_manager_tracker::{Announced, CallbackOutcome, Departed, HeartbeatOutcome, Nanos, TICK, Transition};

pub(crate) use self::session::Source;
use self::session::{Due, LastSeen, Note, Notes, SLOW_ONLINE, Session, Sessions, fold_note, fold_session};

/// A user: the tests number them.
pub(crate) type UserIndex = usize;

/// `seen` is when the last heartbeat of any session came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UserState {
    /// `online` is running.
    Announcing {
        seen: LastSeen,
        notes: Notes,
    },
    Online {
        seen: LastSeen,
        sessions: Sessions,
    },
    /// `offline` is running; with `has_returned` it has ended, and `online` is to be called for the sessions that are
    /// noted.
    Departing {
        seen: LastSeen,
        notes: Notes,
        has_returned: bool,
        /// The sessions before the claim.
        sessions: Sessions,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Naive {
    pub(crate) users: BTreeMap<UserIndex, UserState>,
    pub(crate) is_stopping: bool,
    jitter: Nanos,
    /// All stalls so far, each with its start and its end.
    stalls: Vec<(Nanos, Nanos)>,
    /// One bit for each rule that has decided a result.
    pub(crate) rules: u16,
    /// The same for the rules of sessions.
    pub(crate) session_rules: u32,
}

impl Naive {
    pub(crate) fn new(jitter: Nanos) -> Naive {
        Naive { users: BTreeMap::new(), is_stopping: false, jitter, stalls: Vec::new(), rules: 0, session_rules: 0 }
    }

    fn record_rule(&mut self, rule: u16) {
        self.rules |= 1 << rule;
    }

    fn record_session_rule(&mut self, rule: u32) {
        self.session_rules |= 1 << rule;
    }

    /// Returns whether `online` has to be called.
    pub(crate) fn heartbeat(&mut self, index: UserIndex, source: Source, now: Nanos, timeout: Nanos) -> bool {
        let jitter = self.jitter;
        if self.is_stopping {
            self.record_rule(12);
            return false;
        }
        let new = Note::at(now, timeout);
        let rule = match self.users.get_mut(&index) {
            None => {
                // Of an unnamed session, the end of `online` brings the timeout.
                let timeout = new.timeout.filter(|_| source != Source::Unnamed);
                let notes = Notes::from([(source, Note { timeout, ..new })]);
                self.users.insert(index, UserState::Announcing { seen: new.seen, notes });
                self.record_rule(1);
                return true;
            }
            Some(UserState::Announcing { seen, notes }) => {
                *seen = new.seen;
                let before = notes.insert(source, new);
                if before.is_some_and(|before| before.leave.is_some()) { 9 } else { 3 }
            }
            Some(UserState::Online { seen, sessions }) => {
                *seen = new.seen;
                let due = Due::after(now, timeout, jitter);
                let before = sessions.insert(source, Session { seen: new.seen, due, left_at: None });
                if before.is_some_and(|before| before.due.from <= now) { 2 } else { 5 }
            }
            Some(UserState::Departing { seen, notes, sessions, .. }) => {
                *seen = new.seen;
                notes.insert(source, new);
                if let Some(session) = sessions.get_mut(&source) {
                    (session.seen, session.left_at) = (new.seen, None);
                }
                4
            }
        };
        self.record_rule(rule);
        false
    }

    /// Returns whether the user was online, and whether the leave has removed it.
    pub(crate) fn leave(&mut self, index: UserIndex, now: Nanos, after: Nanos) -> (bool, bool) {
        let Some(state) = self.users.get(&index) else { return (false, false) };
        let was_online = !matches!(state, UserState::Departing { .. });
        let all: Vec<Source> = match state {
            UserState::Announcing { notes, .. } | UserState::Departing { notes, .. } => notes.keys().copied().collect(),
            UserState::Online { sessions, .. } => sessions.keys().copied().collect(),
        };
        if all.len() > 1 {
            self.record_session_rule(2);
        }
        let removed = all.into_iter().any(|source| self.leave_one(index, source, now, after));
        self.record_rule(9);
        (was_online, removed)
    }

    /// Returns whether the session was there, if that is certain, and whether the leave has removed the user.
    pub(crate) fn leave_session(
        &mut self,
        index: UserIndex,
        source: Source,
        now: Nanos,
        after: Nanos,
    ) -> (Option<bool>, bool) {
        let was_there = self.is_there(index, source, now);
        let removed = self.leave_one(index, source, now, after);
        self.record_session_rule(if was_there == Some(false) { 9 } else { 2 });
        (was_there, removed)
    }

    /// Returns whether the user is removed.
    fn leave_one(&mut self, index: UserIndex, source: Source, now: Nanos, after: Nanos) -> bool {
        let put_off = match self.users.get(&index) {
            Some(UserState::Online { sessions, .. }) => sessions.get(&source).map(|session| self.put_off(session)),
            _ => None,
        };
        let leave = if after == 0 { Due::now(now) } else { Due::after(now, after, self.jitter) };
        match self.users.get_mut(&index) {
            None => {}
            Some(UserState::Announcing { notes, .. }) => {
                if let Some(note) = notes.get_mut(&source) {
                    note.leave = Some(note.leave.map_or(leave, |earlier| earlier.or_sooner(leave)));
                }
            }
            Some(UserState::Online { sessions, .. }) => {
                if let Some((Session { seen, due, left_at }, put_off)) = sessions.get_mut(&source).zip(put_off) {
                    let sooner = put_off.or_sooner(leave);
                    if sooner != put_off || put_off.by > leave.by {
                        // Whether the leave comes before the deadline is not always known.
                        let is_certain = put_off.from > leave.by.saturating_add(TICK);
                        let earliest = left_at.unwrap_or(*seen).earliest;
                        if sooner != put_off {
                            *due = sooner;
                        }
                        *left_at = Some(LastSeen { earliest: if is_certain { now } else { earliest }, latest: now });
                    }
                }
            }
            Some(UserState::Departing { notes, has_returned, .. }) => {
                notes.remove(&source);
                if *has_returned && notes.is_empty() {
                    self.users.remove(&index);
                    return true;
                }
                self.record_session_rule(10);
            }
        }
        false
    }

    pub(crate) fn announced(
        &mut self,
        index: UserIndex,
        now: Nanos,
        timeout: Nanos,
        outcome: CallbackOutcome,
    ) -> Announced {
        let Some(UserState::Announcing { seen, notes }) = self.users.get(&index).cloned() else {
            panic!("{index} is not inside online: {:?}", self.users.get(&index));
        };
        if outcome == CallbackOutcome::Aborted {
            self.users.remove(&index);
            self.record_rule(10);
            self.record_session_rule(14);
            return Announced::Offline;
        }
        if self.is_stopping {
            let session = |note: Note| Session { seen: note.seen, due: Due::now(now), left_at: None };
            let sessions = notes.into_iter().map(|(source, note)| (source, session(note))).collect();
            self.users.insert(index, UserState::Departing { seen, notes: Notes::new(), has_returned: false, sessions });
            self.record_rule(12);
            return Announced::Depart;
        }
        let is_short = |seen: LastSeen| now - seen.earliest < SLOW_ONLINE + TICK;
        let since = |seen: LastSeen| LastSeen { latest: if is_short(seen) { now } else { seen.latest }, ..seen };
        let mut sessions = Sessions::new();
        for (source, note) in notes {
            let mut due = Due::after(now, note.timeout.unwrap_or(timeout), self.jitter);
            let mut left_at = None;
            if let Some(leave) = note.leave {
                self.record_rule(if leave.by <= now { 11 } else { 9 });
                let sooner = due.or_sooner(leave);
                left_at = (sooner != due).then_some(LastSeen::at(now));
                due = sooner;
            }
            sessions.insert(source, Session { seen: since(note.seen), due, left_at });
        }
        if sessions.len() > 1 {
            self.record_session_rule(8);
        }
        self.users.insert(index, UserState::Online { seen: since(seen), sessions });
        self.record_rule(5);
        Announced::Online
    }

    /// Records a claim; panics if the user must not be claimed.
    pub(crate) fn claimed(&mut self, index: UserIndex, transition: Transition, now: Nanos) {
        match (transition, self.users.get(&index).cloned()) {
            (Transition::Online, Some(UserState::Departing { seen, notes, has_returned: true, .. })) => {
                self.users.insert(index, UserState::Announcing { seen, notes });
                self.record_rule(11);
            }
            (Transition::Offline, Some(UserState::Online { seen, sessions }))
                if self.user_due(&sessions).from <= now || self.is_stopping =>
            {
                if sessions.len() > 1 {
                    self.record_session_rule(1);
                }
                let notes = Notes::new();
                self.users.insert(index, UserState::Departing { seen, notes, has_returned: false, sessions });
                self.record_rule(if self.is_stopping { 8 } else { 2 });
            }
            (transition, state) => panic!("at {now} {index} was claimed for {transition:?}, but is {state:?}"),
        }
    }

    /// Returns the users that claims must bring now; those who are due only if the timer has checked everyone.
    pub(crate) fn claimable(&self, now: Nanos, timer_is_up_to_date: bool) -> Vec<(UserIndex, Transition)> {
        let claimable = self.users.iter().filter_map(|(index, state)| match state {
            UserState::Departing { has_returned: true, .. } => Some((*index, Transition::Online)),
            UserState::Online { .. } if self.is_stopping => Some((*index, Transition::Offline)),
            UserState::Online { sessions, .. } if timer_is_up_to_date && self.user_due(sessions).by <= now => {
                Some((*index, Transition::Offline))
            }
            _ => None,
        });
        claimable.collect()
    }

    pub(crate) fn unclaim(&mut self, index: UserIndex, transition: Transition, now: Nanos) -> Departed {
        match (transition, self.users.get(&index).cloned()) {
            (Transition::Online, Some(UserState::Announcing { seen, mut notes })) => {
                notes.retain(|_, note| note.leave.is_none() && note.timeout.is_some());
                if notes.is_empty() || self.is_stopping {
                    self.users.remove(&index);
                    return Departed::Offline;
                }
                let sessions = Sessions::new();
                self.users.insert(index, UserState::Departing { seen, notes, has_returned: true, sessions });
                Departed::Rejoining
            }
            (Transition::Offline, Some(UserState::Departing { seen, notes, has_returned: false, mut sessions })) => {
                // Not every deadline is remembered.
                sessions.values_mut().for_each(|session| session.due.by = now);
                for (source, Note { seen, timeout, .. }) in notes {
                    // Only the tick of the heartbeat is known.
                    let due = |at| Due::after(at, timeout.unwrap(), self.jitter);
                    let due = Due { by: due(seen.latest + TICK).by, ..due(seen.latest) };
                    sessions.insert(source, Session { seen, due, left_at: None });
                }
                self.users.insert(index, UserState::Online { seen, sessions });
                Departed::Rejoining
            }
            (transition, state) => panic!("{index} was not claimed for {transition:?}: {state:?}"),
        }
    }

    pub(crate) fn departed(&mut self, index: UserIndex) -> Departed {
        match self.users.get_mut(&index) {
            Some(UserState::Departing { notes, has_returned, sessions, .. })
                if !self.is_stopping && !notes.is_empty() =>
            {
                *has_returned = true;
                sessions.clear();
                self.record_rule(4);
                Departed::Rejoining
            }
            Some(UserState::Departing { .. }) => {
                self.users.remove(&index);
                self.record_rule(7);
                Departed::Offline
            }
            state => panic!("{index} is not inside offline: {state:?}"),
        }
    }

    /// Returns the users who are dropped.
    pub(crate) fn stop(&mut self) -> Vec<UserIndex> {
        self.is_stopping = true;
        self.record_rule(12);
        let waits = |state: &UserState| matches!(state, UserState::Departing { has_returned: true, .. });
        let dropped = self.users.iter().filter(|(_, state)| waits(state)).map(|(index, _)| *index).collect();
        self.users.retain(|_, state| !waits(state));
        for state in self.users.values_mut() {
            if let UserState::Departing { notes, .. } = state {
                notes.clear();
            }
        }
        dropped
    }

    /// Records that the session was evicted, and that the others of the limit, `kept`, were not; panics if one of them
    /// would be over sooner.
    pub(crate) fn evicted(&mut self, index: UserIndex, source: Source, kept: &BTreeSet<Source>) {
        self.record_session_rule(16);
        match self.users.get_mut(&index) {
            Some(UserState::Announcing { notes, .. }) => {
                let evicted = notes.remove(&source).unwrap();
                fold_note(notes, evicted);
            }
            Some(UserState::Online { sessions, .. }) => {
                let evicted = sessions.remove(&source).unwrap();
                let is_earliest =
                    kept.iter().all(|kept| sessions[kept].due.by.saturating_add(TICK) >= evicted.due.from);
                assert!(is_earliest, "{evicted:?} was evicted, and not one of {kept:?} of {sessions:?}");
                fold_session(sessions, evicted);
            }
            state => panic!("no session is evicted from {state:?}"),
        }
    }
}

/// Whether `online` has to be called.
pub(crate) fn is_announcement(outcome: HeartbeatOutcome) -> bool {
    matches!(outcome, HeartbeatOutcome::Announce(_))
}
