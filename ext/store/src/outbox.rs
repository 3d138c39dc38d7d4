//! Heartbeats and leaves that are not written yet. During an outage the outbox grows to one entry per user, and no
//! further.

use std::collections::BTreeMap;
use std::ops::Bound;

use online_manager_tracker::Nanos;

use crate::id::UserId;
use crate::store::{Heartbeat, Leave, ORDER_TOLERANCE, Purpose, Write};

/// For how many nanoseconds the order of a heartbeat and a leave in different processes is not certain: the store's tolerance,
/// and what their clocks add.
pub(crate) const UNCERTAIN_ORDER: Nanos = 2 * ORDER_TOLERANCE;

/// The latest heartbeat of a user, the leave after it, or both. Each is a time of this process' clock and a duration,
/// both in nanoseconds: the timeout of the heartbeat, or how long after the leave the user is due. The heartbeat also has
/// its purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PendingWrites {
    heartbeat: Option<(Nanos, Nanos, Purpose)>,
    /// What puts the deadline off, as a heartbeat at a time with a timeout. By itself: it must not lengthen the timeout of a
    /// heartbeat that waits, which may bring its user online.
    prolongation: Option<(Nanos, Nanos)>,
    leave: Option<(Nanos, Nanos)>,
    is_repeated: bool,
}

/// Merges a leave with an earlier one since the last heartbeat, each with its time and how long after it the user is
/// due. The sooner deadline counts, for every heartbeat from before the later of them.
pub(crate) fn merge_leaves(earlier: Option<(Nanos, Nanos)>, (at, after): (Nanos, Nanos)) -> (Nanos, Nanos) {
    let Some((earlier_at, earlier_after)) = earlier else { return (at, after) };
    let due = at.saturating_add(after).min(earlier_at.saturating_add(earlier_after));
    let at = at.max(earlier_at);
    (at, due.saturating_sub(at))
}

/// What was taken out, to be written, or put back if that fails.
#[derive(Debug, Default)]
pub(crate) struct Batch(Vec<(UserId, PendingWrites)>);

impl Batch {
    /// Returns the writes, with their ages at `now`. A user's heartbeat comes before its leave, unless both
    /// are repeated. `jitter` is added to the timeouts.
    pub(crate) fn writes(&self, now: Nanos, jitter: Nanos) -> Vec<Write> {
        let age = |at: Nanos| now.saturating_sub(at);
        // The clock may date a heartbeat back by its jitter; without this, users could expire too early.
        let with_jitter = |timeout: Nanos| timeout.saturating_add(jitter);
        let mut writes = Vec::with_capacity(self.0.len());
        for (id, PendingWrites { heartbeat, prolongation, leave, is_repeated }) in &self.0 {
            let id = || id.clone();
            let write = |(at, timeout, purpose)| {
                Write::Heartbeat(Heartbeat { id: id(), age: age(at), timeout: with_jitter(timeout), purpose })
            };
            let heartbeat = heartbeat.map(write);
            let prolongation = prolongation.map(|(at, timeout)| write((at, timeout, Purpose::Prolong)));
            let leave = leave.map(|(at, after)| Write::Leave(Leave { id: id(), age: age(at), after }));
            let all = if *is_repeated { [leave, heartbeat, prolongation] } else { [heartbeat, prolongation, leave] };
            writes.extend(all.into_iter().flatten());
        }
        writes
    }

    /// Splits the batch into the users that match, and the others.
    pub(crate) fn split(self, is_match: impl Fn(&UserId) -> bool) -> (Batch, Batch) {
        let (matching, others) = self.0.into_iter().partition(|(id, _)| is_match(id));
        (Batch(matching), Batch(others))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The writes that wait for the store.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Ordered as a store has them too: writes of neighbours touch the same pages, which saves most of the work.
    users: BTreeMap<UserId, PendingWrites>,
    /// The last user of the last batch. The next batch starts behind it, so that no user is left out for long.
    cursor: Option<UserId>,
    /// The time of the first write that was added since the outbox was last empty.
    since: Option<Nanos>,
    /// A time before which no user is due whose heartbeat or leave waits.
    first_due: Option<Nanos>,
}

impl AsMut<Outbox> for Outbox {
    fn as_mut(&mut self) -> &mut Outbox {
        self
    }
}

impl Outbox {
    /// Adds a heartbeat at `at`, or the time of the one that waits if that is later; the whole of that one if it is clearly later:
    /// another process got it. A leave before it is dropped (rule 9).
    pub(crate) fn heartbeat(&mut self, id: UserId, at: Nanos, timeout: Nanos, purpose: Purpose) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.note_due(at.saturating_add(timeout));
        let latest = self.users.entry(id).or_default();
        // What was repeated may be a leave only, which the heartbeat undoes.
        latest.is_repeated &= latest.heartbeat.is_some_and(|(before, ..)| at <= before);
        let (before, before_timeout, former) = latest.heartbeat.unwrap_or((at, timeout, purpose));
        let is_clearly_later = before > at.saturating_add(UNCERTAIN_ORDER);
        let timeout = if is_clearly_later { before_timeout } else { timeout };
        latest.heartbeat = Some((at.max(before), timeout, purpose.max(former)));
        latest.prolongation = latest.prolongation.filter(|(prolonged, _)| *prolonged >= at);
        latest.leave = latest.leave.filter(|(left, _)| *left > at);
    }

    /// Puts the deadline off of a user who is online, as if a heartbeat at `at` had this timeout.
    pub(crate) fn prolong(&mut self, id: UserId, at: Nanos, timeout: Nanos) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.users.entry(id).or_default().prolongation = Some((at, timeout));
    }

    /// Adds a leave at `at`, which makes the user due `after` that, unless one waits that makes it due sooner.
    pub(crate) fn leave(&mut self, id: UserId, at: Nanos, after: Nanos) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.note_due(at.saturating_add(after));
        let latest = self.users.entry(id).or_default();
        latest.leave = Some(merge_leaves(latest.leave, (at, after)));
    }

    fn note_due(&mut self, due: Nanos) {
        self.first_due = Some(self.first_due.map_or(due, |first| first.min(due)));
    }

    /// Whether a heartbeat of the user waits.
    pub(crate) fn has_heartbeat(&self, id: &UserId) -> bool {
        self.heartbeat_at(id).is_some()
    }

    /// Returns the time of the user's heartbeat that waits, if one does.
    pub(crate) fn heartbeat_at(&self, id: &UserId) -> Option<Nanos> {
        self.users.get(id)?.heartbeat.map(|(at, ..)| at)
    }

    /// The store may have got before what waits of a user.
    pub(crate) fn mark_repeated(&mut self, id: &UserId) {
        if let Some(latest) = self.users.get_mut(id) {
            latest.is_repeated = true;
        }
    }

    /// Marks the heartbeats that wait as ones that the store may have known, and has lost.
    pub(crate) fn mark_resend(&mut self, is_match: impl Fn(&UserId) -> bool) {
        for (id, PendingWrites { heartbeat, .. }) in &mut self.users {
            if let Some((_, _, purpose)) = heartbeat
                && is_match(id)
            {
                *purpose = Purpose::Resend;
            }
        }
    }

    /// Takes out the writes of up to `limit` users.
    pub(crate) fn take_batch(&mut self, limit: usize) -> Batch {
        let after = self.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut ids: Vec<UserId> =
            self.users.range((after, Bound::Unbounded)).map(|(id, _)| id).take(limit).cloned().collect();
        if ids.is_empty() {
            ids = self.users.keys().take(limit).cloned().collect();
        }
        self.cursor = ids.last().cloned();
        let entries = ids.into_iter().filter_map(|id| self.users.remove(&id).map(|latest| (id, latest))).collect();
        if self.users.is_empty() {
            *self = Outbox::default();
        }
        Batch(entries)
    }

    /// Puts back a batch that could not be written. What was added meanwhile is newer, and wins.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        for (id, unwritten) in batch.0 {
            let newer = self.users.remove(&id);
            self.add(&id, unwritten);
            self.mark_repeated(&id);
            if let Some(newer) = newer {
                self.add(&id, newer);
                if newer.is_repeated {
                    self.mark_repeated(&id);
                }
            }
        }
    }

    fn add(&mut self, id: &UserId, writes: PendingWrites) {
        if let Some((at, timeout, purpose)) = writes.heartbeat {
            self.heartbeat(id.clone(), at, timeout, purpose);
        }
        if let Some((at, timeout)) = writes.prolongation {
            self.prolong(id.clone(), at, timeout);
        }
        if let Some((at, after)) = writes.leave {
            self.leave(id.clone(), at, after);
        }
    }

    /// Returns a time before which no user is due whose heartbeat or leave waits, if one does.
    pub(crate) fn first_due(&self) -> Option<Nanos> {
        self.first_due
    }

    /// Counts only what still waits for [`Outbox::first_due`]: an outbox that is never empty would keep an early time.
    pub(crate) fn update_first_due(&mut self) {
        let due = |latest: &PendingWrites| {
            let heartbeat = latest.heartbeat.map(|(at, timeout, _)| at.saturating_add(timeout));
            heartbeat.into_iter().chain(latest.leave.map(|(at, after)| at.saturating_add(after))).min()
        };
        self.first_due = self.users.values().filter_map(due).min();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Returns how many users have writes that wait.
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    /// Returns for how long the outbox has not been empty, in nanoseconds: no write in it is older. Returns 0 if it is empty.
    pub(crate) fn lag(&self, now: Nanos) -> Nanos {
        self.since.map_or(0, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests;
