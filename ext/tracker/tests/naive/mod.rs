//! Rules 1 to 13 of `docs/state_machine.md` in the most obvious way: a map of users in explicit states,
//! times as they are, and everybody looked at each time. Slow and easy to believe; it shares nothing with
//! what it is compared with but the types of the answers.

// Each test has its own copy of this module, and none uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use online_manager_tracker::{Announced, CallbackOutcome, Counts, Departed, HeartbeatOutcome, Nanos, TICK, Transition};

/// Which user: the tests number them.
pub(crate) type Key = usize;

/// An `online` that takes less than this may count as the user's first heartbeat.
const SLOW_ONLINE: Nanos = 10_000_000;

/// A deadline: no claim before `from`, and a claim from `by` on, if the timer has had its turn.
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
        // The wheel has a place for every tick but one in 2²⁷.
        let tick = if tick.is_multiple_of(1 << 27) { tick + 1 } else { tick };
        Due { from, by: tick.saturating_mul(TICK) }
    }

    fn or_sooner(self, other: Due) -> Due {
        // Who is due anyway stays with the tick that the wheel has a place for.
        if self.from <= other.from && self.by <= other.by.saturating_add(TICK) {
            return self;
        }
        Due { from: self.from.min(other.from), by: self.by.min(other.by) }
    }
}

/// When a user last beat: not always known to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) earliest: Nanos,
    pub(crate) latest: Nanos,
}

impl Seen {
    fn at(now: Nanos) -> Seen {
        Seen { earliest: now, latest: now }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Is {
    /// Somebody is inside `online`.
    Announcing {
        seen: Seen,
        newer_timeout: Option<Nanos>,
        leave: Option<Due>,
    },
    Online {
        seen: Seen,
        due: Due,
    },
    /// Somebody is inside `offline`; with `has_returned` nobody is any more, and `beat` waits to be announced.
    Departing {
        seen: Seen,
        beat: Option<(Nanos, Nanos)>,
        has_returned: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Naive {
    pub(crate) users: BTreeMap<Key, Is>,
    pub(crate) is_stopping: bool,
    jitter: Nanos,
    /// One bit for each rule that has decided something.
    pub(crate) rules: u16,
}

impl Naive {
    pub(crate) fn new(jitter: Nanos) -> Naive {
        Naive { users: BTreeMap::new(), is_stopping: false, jitter, rules: 0 }
    }

    fn by_rule(&mut self, rule: u16) {
        self.rules |= 1 << rule;
    }

    /// Whether a new `online` follows.
    pub(crate) fn heartbeat(&mut self, key: Key, now: Nanos, timeout: Nanos) -> bool {
        let jitter = self.jitter;
        if self.is_stopping {
            self.by_rule(12);
            return false;
        }
        let rule = match self.users.get_mut(&key) {
            None => {
                self.users.insert(key, Is::Announcing { seen: Seen::at(now), newer_timeout: None, leave: None });
                self.by_rule(1);
                return true;
            }
            Some(Is::Announcing { seen, newer_timeout, leave }) => {
                *seen = Seen::at(now);
                *newer_timeout = Some(timeout);
                if leave.take().is_some() { 9 } else { 3 }
            }
            Some(Is::Online { seen, due }) => {
                let was_due = due.from <= now;
                *seen = Seen::at(now);
                *due = Due::after(now, timeout, jitter);
                if was_due { 2 } else { 5 }
            }
            Some(Is::Departing { seen, beat, .. }) => {
                *seen = Seen::at(now);
                *beat = Some((now, timeout));
                4
            }
        };
        self.by_rule(rule);
        false
    }

    /// Whether the user was online, and whether it is forgotten.
    pub(crate) fn leave(&mut self, key: Key, now: Nanos, after: Nanos) -> (bool, bool) {
        let leave = if after == 0 { Due::now(now) } else { Due::after(now, after, self.jitter) };
        let answer = match self.users.get_mut(&key) {
            None => return (false, false),
            Some(Is::Announcing { leave: remembered, .. }) => {
                *remembered = Some(remembered.map_or(leave, |sooner| sooner.or_sooner(leave)));
                (true, false)
            }
            Some(Is::Online { due, .. }) => {
                *due = due.or_sooner(leave);
                (true, false)
            }
            Some(Is::Departing { has_returned: true, .. }) => {
                self.users.remove(&key);
                (false, true)
            }
            Some(Is::Departing { beat, .. }) => {
                *beat = None;
                (false, false)
            }
        };
        self.by_rule(9);
        answer
    }

    pub(crate) fn announced(&mut self, key: Key, now: Nanos, timeout: Nanos, outcome: CallbackOutcome) -> Announced {
        let Some(Is::Announcing { seen, newer_timeout, leave }) = self.users.get(&key).copied() else {
            panic!("{key} is not inside online: {:?}", self.users.get(&key));
        };
        if outcome == CallbackOutcome::Aborted {
            self.users.remove(&key);
            self.by_rule(10);
            return Announced::Offline;
        }
        if self.is_stopping {
            self.users.insert(key, Is::Departing { seen, beat: None, has_returned: false });
            self.by_rule(12);
            return Announced::Depart;
        }
        let mut due = Due::after(now, newer_timeout.unwrap_or(timeout), self.jitter);
        if let Some(leave) = leave {
            self.by_rule(if leave.by <= now { 11 } else { 9 });
            due = due.or_sooner(leave);
        }
        let is_short = now - seen.earliest < SLOW_ONLINE + TICK;
        let latest = if is_short { now } else { seen.latest };
        self.users.insert(key, Is::Online { seen: Seen { latest, ..seen }, due });
        self.by_rule(5);
        Announced::Online
    }

    /// The reactor claims `key`; panics if it must not.
    pub(crate) fn claimed(&mut self, key: Key, transition: Transition, now: Nanos) {
        match (transition, self.users.get(&key).copied()) {
            (Transition::Online, Some(Is::Departing { seen, beat: Some((_, timeout)), has_returned: true })) => {
                let newer_timeout = Some(timeout);
                self.users.insert(key, Is::Announcing { seen, newer_timeout, leave: None });
                self.by_rule(11);
            }
            (Transition::Offline, Some(Is::Online { seen, due })) if due.from <= now || self.is_stopping => {
                self.users.insert(key, Is::Departing { seen, beat: None, has_returned: false });
                self.by_rule(if self.is_stopping { 8 } else { 2 });
            }
            (transition, is) => panic!("at {now} {key} was claimed for {transition:?}, but is {is:?}"),
        }
    }

    /// Whom a claim must bring now: in any case, or if the timer has had its turn.
    pub(crate) fn claimable(&self, now: Nanos, timer_has_turned: bool) -> Vec<(Key, Transition)> {
        let claimable = self.users.iter().filter_map(|(key, is)| match is {
            Is::Departing { has_returned: true, .. } => Some((*key, Transition::Online)),
            Is::Online { .. } if self.is_stopping => Some((*key, Transition::Offline)),
            Is::Online { due, .. } if timer_has_turned && due.by <= now => Some((*key, Transition::Offline)),
            _ => None,
        });
        claimable.collect()
    }

    pub(crate) fn unclaim(&mut self, key: Key, transition: Transition, now: Nanos) -> Departed {
        match (transition, self.users.get(&key).copied()) {
            (Transition::Online, Some(Is::Announcing { seen, newer_timeout: Some(timeout), leave: None }))
                if !self.is_stopping =>
            {
                let beat = Some((seen.latest, timeout));
                self.users.insert(key, Is::Departing { seen, beat, has_returned: true });
                Departed::Rejoining
            }
            (Transition::Online, Some(Is::Announcing { .. })) => {
                self.users.remove(&key);
                Departed::Offline
            }
            (Transition::Offline, Some(Is::Departing { seen, beat, has_returned: false })) => {
                let due = match beat {
                    // Only the tick of the heartbeat is known.
                    Some((at, timeout)) => {
                        let by = Due::after(at + TICK, timeout, self.jitter).by;
                        Due { by, ..Due::after(at, timeout, self.jitter) }
                    }
                    None => Due::now(now),
                };
                self.users.insert(key, Is::Online { seen, due });
                Departed::Rejoining
            }
            (transition, is) => panic!("{key} was not claimed for {transition:?}: {is:?}"),
        }
    }

    pub(crate) fn departed(&mut self, key: Key) -> Departed {
        match self.users.get_mut(&key) {
            Some(Is::Departing { beat: Some(_), has_returned, .. }) if !self.is_stopping => {
                *has_returned = true;
                self.by_rule(4);
                Departed::Rejoining
            }
            Some(Is::Departing { .. }) => {
                self.users.remove(&key);
                self.by_rule(7);
                Departed::Offline
            }
            is => panic!("{key} is not inside offline: {is:?}"),
        }
    }

    /// Who is dropped.
    pub(crate) fn stop(&mut self) -> Vec<Key> {
        self.is_stopping = true;
        self.by_rule(12);
        let waits = |is: &Is| matches!(is, Is::Departing { has_returned: true, .. });
        let dropped = self.users.iter().filter(|(_, is)| waits(is)).map(|(key, _)| *key).collect();
        self.users.retain(|_, is| !waits(is));
        for is in self.users.values_mut() {
            if let Is::Departing { beat, .. } = is {
                *beat = None;
            }
        }
        dropped
    }

    pub(crate) fn is_online(&self, key: Key) -> bool {
        matches!(self.users.get(&key), Some(Is::Announcing { .. } | Is::Online { .. }))
    }

    pub(crate) fn last_seen(&self, key: Key) -> Option<Seen> {
        match self.users.get(&key)? {
            Is::Announcing { seen, .. } | Is::Online { seen, .. } => Some(*seen),
            Is::Departing { .. } => None,
        }
    }

    /// All counts but that of those who are up for a claim.
    pub(crate) fn counts(&self) -> Counts {
        let count = |is: fn(&Is) -> bool| self.users.values().filter(|user| is(user)).count();
        Counts {
            present: count(|is| !matches!(is, Is::Departing { .. })),
            announcing: count(|is| matches!(is, Is::Announcing { .. })),
            departing: count(|is| matches!(is, Is::Departing { .. })),
            due: 0,
        }
    }

    /// The latest moment by which the timer has to look at somebody.
    pub(crate) fn timer_is_needed_by(&self) -> Option<Nanos> {
        let dues = self.users.values().filter_map(|is| match is {
            Is::Online { due, .. } => Some(due.by),
            _ => None,
        });
        dues.min()
    }
}

/// Whether a heartbeat's answer is what the naive model says.
pub(crate) fn is_announcement(beat: HeartbeatOutcome) -> bool {
    matches!(beat, HeartbeatOutcome::Announce(_))
}
