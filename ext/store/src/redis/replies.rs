//! Parses the scripts' replies, the entries of the streams and the scores of the users.

use std::collections::HashMap;
use std::str::FromStr;

use online_manager_tracker::{Nanos, Reason, Transition};
use redis::{FromRedisValue, Value};

use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{Event, Known, LeaseState, Notice, PartitionSummary, PollRequest, PollResult, Sweep};

/// The number of classes in a score: see `partition.lua`.
const CLASSES: u64 = 1024;
pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// An entry of the log or of the dead letters: its number, and the fields that `fields_of` in `partition.lua` lists.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) id: Vec<u8>,
    pub(super) kind: String,
    /// When the user was due, in microseconds of the partition's clock.
    pub(super) due: i64,
    /// When the last heartbeat was, by the same clock.
    pub(super) seen: i64,
    pub(super) version: i64,
    pub(super) failures: u32,
    pub(super) error: String,
}

impl Entry {
    pub(super) fn read(number: &str, fields: Fields) -> Result<Entry, StoreError> {
        let number = number.split('-').next().and_then(|number| number.parse().ok()).ok_or_else(unexpected_reply)?;
        let fields: HashMap<String, Vec<u8>> = fields.into_iter().collect();
        let text = |name: &str| fields.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let due = text("d").and_then(|due| due.parse().ok()).unwrap_or_default();
        Ok(Entry {
            number,
            id: fields.get("u").cloned().ok_or_else(unexpected_reply)?,
            kind: text("k").unwrap_or_default(),
            due,
            seen: text("s").and_then(|seen| seen.parse().ok()).unwrap_or(due),
            version: text("v").and_then(|version| version.parse().ok()).unwrap_or(number as i64),
            failures: text("f").and_then(|failures| failures.parse().ok()).unwrap_or_default(),
            error: text("e").unwrap_or_default(),
        })
    }

    /// Returns the event as of `now`, in microseconds of the partition's clock. `None` if a newer version of the gem has
    /// written it.
    pub(super) fn event(&self, now: i64) -> Option<Event> {
        let (lateness, seen_ago) = (now - self.due, now - self.seen);
        event((self.number, self.id.clone(), self.kind.clone(), lateness, self.version, self.failures, seen_ago))
    }
}

fn event((number, id, kind, lateness, version, failures, seen_ago): PollReplyEvent) -> Option<Event> {
    let (transition, reason) = match kind.as_str() {
        "o" => (Transition::Online, Reason::Heartbeat),
        "l" => (Transition::Offline, Reason::Leave),
        "t" => (Transition::Offline, Reason::Timeout),
        _ => return None,
    };
    let (lateness, seen_ago) = (nanos(lateness), nanos(seen_ago));
    Some(Event { number, id: UserId::from_store(&id)?, transition, reason, lateness, seen_ago, version, failures })
}

/// The reply of `summary.lua`.
pub(super) struct Summary {
    /// The partition's clock, in microseconds.
    pub(super) now: i64,
    pub(super) online: u64,
    pub(super) undelivered: u64,
    /// How long ago the oldest event became due, in microseconds.
    pub(super) oldest: Option<i64>,
    pub(super) dead_letters: u64,
    meta: HashMap<String, String>,
}

impl Summary {
    pub(super) fn read(value: Value) -> Result<Summary, StoreError> {
        let (now, online, undelivered, oldest, dead_letters, meta) = parse(value)?;
        let oldest = Some(oldest).filter(|oldest| *oldest >= 0);
        Ok(Summary { now, online, undelivered, oldest, dead_letters, meta })
    }

    /// Returns how long ago a user with this score was last seen.
    pub(super) fn ago(&self, score: &str) -> Nanos {
        let score = score.parse::<f64>().unwrap_or_default() as u64;
        let timeout: i64 = self.number(&format!("t{}", score % CLASSES));
        nanos(self.now - ((score / CLASSES) as i64 - timeout) * 1_000)
    }

    /// Returns how long ago a user with this entry of the overflow was last seen: see `parse_overflow` in
    /// `partition.lua`.
    pub(super) fn ago_of_overflow(&self, times: &str) -> Nanos {
        let seen = times.split(' ').next().and_then(|seen| seen.parse().ok());
        nanos(seen.map_or(0, |seen: i64| self.now - seen * 1_000))
    }

    /// Returns what an operator sees of the partition, with the names of the members by token.
    pub(super) fn partition(&self, names: &HashMap<String, String>) -> PartitionSummary {
        let remaining = nanos(self.number::<i64>("until") - self.now);
        let name = |token: &String| names.get(token).cloned().unwrap_or_else(|| format!("unregistered {token}"));
        PartitionSummary {
            online: self.online,
            undelivered: self.undelivered,
            oldest: self.oldest.map(nanos),
            dead_letters: self.dead_letters,
            lease_holder: self.meta.get("holder").filter(|_| remaining > 0).map(|token| (name(token), remaining)),
            hold: nanos(self.number::<i64>("hold") - self.now),
            epoch: self.number("epoch"),
            generation: self.number("generation"),
        }
    }

    /// Returns a field of META, or 0.
    fn number<T: FromStr + Default>(&self, field: &str) -> T {
        self.meta.get(field).and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

/// An event in the reply of `poll.lua`: number, id, kind, lateness, version, failures, how long ago the last heartbeat was.
pub(super) type PollReplyEvent = (u64, Vec<u8>, String, i64, i64, u32, i64);

/// The reply of `poll.lua`: the state of the lease, how many users were set offline, how late the first was, when the
/// next is due, the events, the notices, the number after them, the age of the oldest event, and the number up to which every
/// event is delivered.
pub(super) type PollReply = (i64, usize, i64, i64, Vec<PollReplyEvent>, Vec<PollReplyNotice>, u64, i64, u64);

/// A notice in that reply: the id, in how long the user is due, how long ago the user left (-1 if there was no leave), and how
/// long after that the user was due.
pub(super) type PollReplyNotice = (Vec<u8>, i64, i64, i64);

pub(super) fn poll_result(request: &PollRequest, reply: PollReply, known: Known) -> PollResult {
    let (lease, expired, lag, next, events, notices, notices_until, oldest, delivered_through) = reply;
    PollResult {
        lease: match lease {
            0 => LeaseState::Free,
            1 => LeaseState::HeldByOther,
            2 => LeaseState::Renewed,
            _ => LeaseState::Acquired,
        },
        sweep: request.sweep.map(|_| Sweep { expired, lag: nanos(lag), next: (next >= 0).then(|| nanos(next)) }),
        // An event that a newer version of the gem has written is left to it.
        events: events.into_iter().filter_map(event).collect(),
        notices: notices.into_iter().filter_map(notice).collect(),
        notices_until,
        oldest: (oldest >= 0).then(|| nanos(oldest)),
        delivered_through,
        known,
    }
}

fn notice((id, due, left, after): PollReplyNotice) -> Option<Notice> {
    let left = (left >= 0).then(|| (nanos(left), nanos(after)));
    UserId::from_store(&id).map(|id| Notice { id, due: nanos(due), left })
}

pub(super) fn parse<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    // The client's error quotes the reply, which may contain user ids: those must not get into a log.
    redis::from_redis_value(value).map_err(|_| unexpected_reply())
}

pub(super) fn unexpected_reply() -> StoreError {
    StoreError::Unavailable(
        "Redis has sent a reply that this version of online_manager cannot read. Use the same version of the gem in all \
         processes"
            .into(),
    )
}

/// Converts microseconds; a negative number becomes 0.
pub(super) fn nanos(micros: i64) -> Nanos {
    (micros.max(0) as Nanos).saturating_mul(1_000)
}
