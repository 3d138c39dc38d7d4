//! Rules 1 to 14 of `docs/state_machine.md` in the most obvious way: a map of users in explicit states, moments that
//! are not rounded, and a scan of all users each time. Slow and easy to check; it shares only the types of the results
//! with the code that it is compared with.

// Each test has its own copy of this module, and none uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use online_manager_tracker::{Announced, CallbackOutcome, Counts, Departed, HeartbeatOutcome, Nanos, TICK, Transition};

/// A user: the tests number them.
pub(crate) type UserIndex = usize;

/// The return of an `online` that takes less than this may count as the user's first heartbeat.
const SLOW_ONLINE: Nanos = 10_000_000;

/// A deadline: no claim before `from`, and a claim from `by` on if the timer has checked everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Due {
    pub(crate) from: Nanos,
    pub(crate) by: Nanos,
}

impl Due {
    fn now(now: Nanos) -> Due {
        Due { from: now, by: now }
    }

    fn after(now: Nanos, timeout: Nanos, jitter: Nanos) -> Due {
        let from = now.saturating_add(timeout.max(1));
        let tick = from.saturating_add(jitter).saturating_add(TICK - 1) / TICK;
        // The wheel has entries for every tick but one in 2²⁷.
        let tick = if tick.is_multiple_of(1 << 27) { tick + 1 } else { tick };
        Due { from, by: tick.saturating_mul(TICK) }
    }

    /// Returns the earlier of the two deadlines.
    fn or_sooner(self, other: Due) -> Due {
        // A deadline that is no later stays at its tick, which the wheel has entries for.
        if self.from <= other.from && self.by <= other.by.saturating_add(TICK) {
            return self;
        }
        Due { from: self.from.min(other.from), by: self.by.min(other.by) }
    }
}

/// When the last heartbeat of a user came: not always known to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LastSeen {
    pub(crate) earliest: Nanos,
    pub(crate) latest: Nanos,
}

impl LastSeen {
    fn at(now: Nanos) -> LastSeen {
        LastSeen { earliest: now, latest: now }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UserState {
    /// `online` is running.
    Announcing { seen: LastSeen, newer_timeout: Option<Nanos>, leave: Option<Due> },
    Online {
        seen: LastSeen,
        due: Due,
        /// When a leave has set `due`, if one has.
        left_at: Option<LastSeen>,
    },
    /// `offline` is running; with `has_returned` it has ended, and `online` is to be called for `heartbeat`, which is a
    /// moment and a timeout.
    Departing {
        seen: LastSeen,
        heartbeat: Option<(Nanos, Nanos)>,
        has_returned: bool,
        /// The deadline before the claim, and when a leave had set it, if one had.
        due: Due,
        left_at: Option<LastSeen>,
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
}

impl Naive {
    pub(crate) fn new(jitter: Nanos) -> Naive {
        Naive { users: BTreeMap::new(), is_stopping: false, jitter, stalls: Vec::new(), rules: 0 }
    }

    fn record_rule(&mut self, rule: u16) {
        self.rules |= 1 << rule;
    }

    /// Returns whether `online` has to be called.
    pub(crate) fn heartbeat(&mut self, index: UserIndex, now: Nanos, timeout: Nanos) -> bool {
        let jitter = self.jitter;
        if self.is_stopping {
            self.record_rule(12);
            return false;
        }
        let rule = match self.users.get_mut(&index) {
            None => {
                self.users
                    .insert(index, UserState::Announcing { seen: LastSeen::at(now), newer_timeout: None, leave: None });
                self.record_rule(1);
                return true;
            }
            Some(UserState::Announcing { seen, newer_timeout, leave }) => {
                *seen = LastSeen::at(now);
                *newer_timeout = Some(timeout);
                if leave.take().is_some() { 9 } else { 3 }
            }
            Some(UserState::Online { seen, due, left_at }) => {
                *left_at = None;
                let was_due = due.from <= now;
                *seen = LastSeen::at(now);
                *due = Due::after(now, timeout, jitter);
                if was_due { 2 } else { 5 }
            }
            Some(UserState::Departing { seen, heartbeat, left_at, .. }) => {
                *seen = LastSeen::at(now);
                *left_at = None;
                *heartbeat = Some((now, timeout));
                4
            }
        };
        self.record_rule(rule);
        false
    }

    /// Returns whether the user was online, and whether the leave has removed it.
    pub(crate) fn leave(&mut self, index: UserIndex, now: Nanos, after: Nanos) -> (bool, bool) {
        let put_off = match self.users.get(&index) {
            Some(UserState::Online { seen, due, left_at }) => self.put_off(*seen, *due, *left_at),
            _ => Due::now(now),
        };
        let leave = if after == 0 { Due::now(now) } else { Due::after(now, after, self.jitter) };
        let result = match self.users.get_mut(&index) {
            None => return (false, false),
            Some(UserState::Announcing { leave: remembered, .. }) => {
                *remembered = Some(remembered.map_or(leave, |earlier| earlier.or_sooner(leave)));
                (true, false)
            }
            Some(UserState::Online { seen, due, left_at }) => {
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
                (true, false)
            }
            Some(UserState::Departing { has_returned: true, .. }) => {
                self.users.remove(&index);
                (false, true)
            }
            Some(UserState::Departing { heartbeat, .. }) => {
                *heartbeat = None;
                (false, false)
            }
        };
        self.record_rule(9);
        result
    }

    pub(crate) fn announced(
        &mut self,
        index: UserIndex,
        now: Nanos,
        timeout: Nanos,
        outcome: CallbackOutcome,
    ) -> Announced {
        let Some(UserState::Announcing { seen, newer_timeout, leave }) = self.users.get(&index).copied() else {
            panic!("{index} is not inside online: {:?}", self.users.get(&index));
        };
        if outcome == CallbackOutcome::Aborted {
            self.users.remove(&index);
            self.record_rule(10);
            return Announced::Offline;
        }
        if self.is_stopping {
            self.users.insert(
                index,
                UserState::Departing { seen, heartbeat: None, has_returned: false, due: Due::now(now), left_at: None },
            );
            self.record_rule(12);
            return Announced::Depart;
        }
        let mut due = Due::after(now, newer_timeout.unwrap_or(timeout), self.jitter);
        let mut left_at = None;
        if let Some(leave) = leave {
            self.record_rule(if leave.by <= now { 11 } else { 9 });
            let sooner = due.or_sooner(leave);
            left_at = (sooner != due).then_some(LastSeen::at(now));
            due = sooner;
        }
        let is_short = now - seen.earliest < SLOW_ONLINE + TICK;
        let latest = if is_short { now } else { seen.latest };
        self.users.insert(index, UserState::Online { seen: LastSeen { latest, ..seen }, due, left_at });
        self.record_rule(5);
        Announced::Online
    }

    /// Records a claim; panics if the user must not be claimed.
    pub(crate) fn claimed(&mut self, index: UserIndex, transition: Transition, now: Nanos) {
        match (transition, self.users.get(&index).copied()) {
            (
                Transition::Online,
                Some(UserState::Departing { seen, heartbeat: Some((_, timeout)), has_returned: true, .. }),
            ) => {
                let newer_timeout = Some(timeout);
                self.users.insert(index, UserState::Announcing { seen, newer_timeout, leave: None });
                self.record_rule(11);
            }
            (Transition::Offline, Some(UserState::Online { seen, due, left_at }))
                if self.put_off(seen, due, left_at).from <= now || self.is_stopping =>
            {
                self.users
                    .insert(index, UserState::Departing { seen, heartbeat: None, has_returned: false, due, left_at });
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
            UserState::Online { seen, due, left_at }
                if timer_is_up_to_date && self.put_off(*seen, *due, *left_at).by <= now =>
            {
                Some((*index, Transition::Offline))
            }
            _ => None,
        });
        claimable.collect()
    }

    pub(crate) fn unclaim(&mut self, index: UserIndex, transition: Transition, now: Nanos) -> Departed {
        match (transition, self.users.get(&index).copied()) {
            (Transition::Online, Some(UserState::Announcing { seen, newer_timeout: Some(timeout), leave: None }))
                if !self.is_stopping =>
            {
                let heartbeat = Some((seen.latest, timeout));
                self.users.insert(
                    index,
                    UserState::Departing { seen, heartbeat, has_returned: true, due: Due::now(now), left_at: None },
                );
                Departed::Rejoining
            }
            (Transition::Online, Some(UserState::Announcing { .. })) => {
                self.users.remove(&index);
                Departed::Offline
            }
            (
                Transition::Offline,
                Some(UserState::Departing { seen, heartbeat, has_returned: false, due, left_at }),
            ) => {
                let left_at = left_at.filter(|_| heartbeat.is_none());
                let due = match heartbeat {
                    // Only the tick of the heartbeat is known.
                    Some((at, timeout)) => {
                        let by = Due::after(at + TICK, timeout, self.jitter).by;
                        Due { by, ..Due::after(at, timeout, self.jitter) }
                    }
                    // Not every deadline is remembered.
                    None => Due { by: now, ..due },
                };
                self.users.insert(index, UserState::Online { seen, due, left_at });
                Departed::Rejoining
            }
            (transition, state) => panic!("{index} was not claimed for {transition:?}: {state:?}"),
        }
    }

    pub(crate) fn departed(&mut self, index: UserIndex) -> Departed {
        match self.users.get_mut(&index) {
            Some(UserState::Departing { heartbeat: Some(_), has_returned, .. }) if !self.is_stopping => {
                *has_returned = true;
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
            if let UserState::Departing { heartbeat, .. } = state {
                *heartbeat = None;
            }
        }
        dropped
    }

    pub(crate) fn is_online(&self, index: UserIndex) -> bool {
        matches!(self.users.get(&index), Some(UserState::Announcing { .. } | UserState::Online { .. }))
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

    /// Returns the counts; `due` is 0.
    pub(crate) fn counts(&self) -> Counts {
        let count = |is_in: fn(&UserState) -> bool| self.users.values().filter(|user| is_in(user)).count();
        Counts {
            present: count(|state| !matches!(state, UserState::Departing { .. })),
            announcing: count(|state| matches!(state, UserState::Announcing { .. })),
            departing: count(|state| matches!(state, UserState::Departing { .. })),
            due: 0,
        }
    }

    /// Returns the latest moment by which the timer has to check a user.
    pub(crate) fn timer_is_needed_by(&self) -> Option<Nanos> {
        let dues = self.users.values().filter_map(|state| match state {
            UserState::Online { seen, due, left_at } => Some(self.put_off(*seen, *due, *left_at).by),
            _ => None,
        });
        dues.min()
    }

    pub(crate) fn stalled(&mut self, start: Nanos, end: Nanos) {
        self.stalls.push((start, end));
        let is_put_off = |state: &UserState| matches!(state, UserState::Online { seen, due, left_at } if self.put_off(*seen, *due, *left_at).from > due.from);
        if self.users.values().any(is_put_off) {
            self.record_rule(14);
        }
    }

    /// Returns the deadline, put off by the stalls: for as long as the user could not be heard since the last heartbeat or
    /// leave, and no longer than the timeout. Of neither the exact time is known, so `from` and `by` may be apart.
    fn put_off(&self, seen: LastSeen, due: Due, left_at: Option<LastSeen>) -> Due {
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

/// Whether `online` has to be called.
pub(crate) fn is_announcement(outcome: HeartbeatOutcome) -> bool {
    matches!(outcome, HeartbeatOutcome::Announce(_))
}
