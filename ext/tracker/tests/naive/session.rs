//! A session in the naive model: when it was seen, and when it is over.

use std::collections::BTreeMap;

use online_manager_tracker::{Nanos, TICK};

/// The return of an `online` that takes less than this may count as the user's first heartbeat.
pub(crate) const SLOW_ONLINE: Nanos = 10_000_000;

/// A deadline: no claim before `from`, and a claim from `by` on if the timer has checked everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Due {
    pub(crate) from: Nanos,
    pub(crate) by: Nanos,
}

impl Due {
    pub(crate) fn now(now: Nanos) -> Due {
        Due { from: now, by: now }
    }

    pub(crate) fn after(now: Nanos, timeout: Nanos, jitter: Nanos) -> Due {
        let from = now.saturating_add(timeout.max(1));
        let tick = from.saturating_add(jitter).saturating_add(TICK - 1) / TICK;
        // The wheel has entries for every tick but one in 2²⁷.
        let tick = if tick.is_multiple_of(1 << 27) { tick + 1 } else { tick };
        Due { from, by: tick.saturating_mul(TICK) }
    }

    /// Returns the earlier of the two deadlines.
    pub(crate) fn or_sooner(self, other: Due) -> Due {
        // A deadline that is no later stays at its tick, which the wheel has entries for.
        if self.from <= other.from && self.by <= other.by.saturating_add(TICK) {
            return self;
        }
        Due { from: self.from.min(other.from), by: self.by.min(other.by) }
    }
}

/// When the last heartbeat of a user came: not always known to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LastSeen {
    pub(crate) earliest: Nanos,
    pub(crate) latest: Nanos,
}

impl LastSeen {
    pub(crate) fn at(now: Nanos) -> LastSeen {
        LastSeen { earliest: now, latest: now }
    }
}

/// What a deadline is from. The tests number the named sessions of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    Unnamed,
    Named(usize),
    /// The sessions that were evicted.
    Floor,
}

/// A session of a user who is Online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) seen: LastSeen,
    pub(crate) due: Due,
    /// When a leave has set `due`, if one has.
    pub(crate) left_at: Option<LastSeen>,
}

/// A session with a heartbeat during a callback, or before one: `announced` brings the timeout if there is none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    pub(crate) seen: LastSeen,
    pub(crate) timeout: Option<Nanos>,
    pub(crate) leave: Option<Due>,
}

impl Note {
    pub(crate) fn at(now: Nanos, timeout: Nanos) -> Note {
        Note { seen: LastSeen::at(now), timeout: Some(timeout), leave: None }
    }
}

pub(crate) type Sessions = BTreeMap<Source, Session>;
pub(crate) type Notes = BTreeMap<Source, Note>;

/// Adds a deadline to that of the evicted sessions: the later one counts, and the earlier heartbeat.
pub(crate) fn fold_session(sessions: &mut Sessions, evicted: Session) {
    let Some(floor) = sessions.get_mut(&Source::Floor) else {
        sessions.insert(Source::Floor, evicted);
        return;
    };
    let due = Due { from: floor.due.from.max(evicted.due.from), by: floor.due.by.max(evicted.due.by) };
    let earlier =
        |a: LastSeen, b: LastSeen| LastSeen { earliest: a.earliest.min(b.earliest), latest: a.latest.min(b.latest) };
    *floor = Session { seen: earlier(floor.seen, evicted.seen), due, left_at: None };
}

/// Adds what is remembered of an evicted session: the longest timeout and the latest leave count.
pub(crate) fn fold_note(notes: &mut Notes, evicted: Note) {
    let Some(floor) = notes.get_mut(&Source::Floor) else {
        notes.insert(Source::Floor, evicted);
        return;
    };
    floor.timeout = floor.timeout.max(evicted.timeout);
    floor.leave = floor.leave.and_then(|own| Some(own.max(evicted.leave?)));
    floor.seen = floor.seen.max(evicted.seen);
}
