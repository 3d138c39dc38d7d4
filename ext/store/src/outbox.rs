//! Heartbeats and leaves that are not written yet. During an outage the outbox grows to one entry per user, and no
//! further.

use std::collections::BTreeMap;
use std::ops::Bound;

use online_manager_tracker::Nanos;

use crate::id::UserId;
use crate::store::{Heartbeat, Leave, Purpose, Write};

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
    /// Adds a heartbeat at `at`, or the time of the one that waits if that is later. A leave before it is dropped (rule
    /// 9).
    pub(crate) fn heartbeat(&mut self, id: UserId, at: Nanos, timeout: Nanos, purpose: Purpose) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.note_due(at.saturating_add(timeout));
        let latest = self.users.entry(id).or_default();
        // What was repeated may be a leave only, which the heartbeat undoes.
        latest.is_repeated &= latest.heartbeat.is_some_and(|(before, ..)| at <= before);
        let (before, former) = latest.heartbeat.map_or((at, purpose), |(before, _, former)| (before, former));
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
        self.users.get(id).is_some_and(|latest| latest.heartbeat.is_some())
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
mod tests {
    use super::*;
    use crate::id::Kind;

    fn id(number: u8) -> UserId {
        UserId::new(Kind::Integer, &[b'0' + number])
    }

    fn take_writes(outbox: &mut Outbox, now: Nanos) -> Vec<Write> {
        outbox.take_batch(10).writes(now, 0)
    }

    #[test]
    fn the_latest_time_and_the_last_timeout_count() {
        let mut outbox = Outbox::default();
        outbox.heartbeat(id(1), 10, 5, Purpose::Report);
        outbox.heartbeat(id(1), 20, 6, Purpose::Report);
        outbox.heartbeat(id(1), 15, 7, Purpose::Report);
        assert_eq!(outbox.lag(30), 20);
        assert_eq!(
            take_writes(&mut outbox, 30),
            [Write::Heartbeat(Heartbeat { id: id(1), age: 10, timeout: 7, purpose: Purpose::Report })]
        );
        assert!(outbox.is_empty());
        assert_eq!(outbox.lag(30), 0);
    }

    #[test]
    fn a_heartbeat_undoes_an_earlier_leave() {
        let heartbeat = |age| Write::Heartbeat(Heartbeat { id: id(1), age, timeout: 6, purpose: Purpose::Report });
        let mut outbox = Outbox::default();
        for at in [20, 10] {
            outbox.leave(id(1), 10, 0);
            outbox.heartbeat(id(1), at, 6, Purpose::Report);
            assert_eq!(take_writes(&mut outbox, 20), [heartbeat(20 - at)]);
        }
        outbox.leave(id(1), 10, 0);
        outbox.heartbeat(id(1), 9, 6, Purpose::Report);
        let later = Leave { id: id(1), age: 10, after: 0 };
        assert_eq!(take_writes(&mut outbox, 20), [heartbeat(11), Write::Leave(later)]);
    }

    #[test]
    fn an_outbox_is_empty_while_its_only_batch_is_being_written() {
        let mut outbox = Outbox::default();
        assert!(outbox.is_empty() && outbox.take_batch(10).is_empty());
        outbox.heartbeat(id(1), 10, 5, Purpose::Report);
        let (was_empty, batch) = (outbox.is_empty(), outbox.take_batch(10));
        assert_eq!((was_empty, outbox.is_empty(), batch.is_empty()), (false, true, false));
    }

    #[test]
    fn a_leave_follows_its_users_heartbeat_and_the_soonest_leave_counts() {
        let mut outbox = Outbox::default();
        outbox.heartbeat(id(1), 10, 5, Purpose::Report);
        outbox.leave(id(1), 20, 9);
        outbox.leave(id(1), 21, 3);
        outbox.leave(id(1), 22, 7);
        assert_eq!(
            take_writes(&mut outbox, 30),
            [
                Write::Heartbeat(Heartbeat { id: id(1), age: 20, timeout: 5, purpose: Purpose::Report }),
                Write::Leave(Leave { id: id(1), age: 8, after: 2 })
            ]
        );
    }

    #[test]
    fn batches_are_in_key_order_and_no_user_starves() {
        let mut outbox = Outbox::default();
        let mut batches = Vec::new();
        for _ in 0..4 {
            // The first users send heartbeats again at once.
            [1, 2, 3, 4]
                .iter()
                .filter(|user| batches.len() < 3 || **user < 3)
                .for_each(|user| outbox.heartbeat(id(*user), 10, 5, Purpose::Report));
            batches.push(outbox.take_batch(2).0.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
        }
        let (first, last) = (vec![id(1), id(2)], vec![id(3), id(4)]);
        assert_eq!(batches, [first.clone(), last.clone(), first, last]);
    }

    #[test]
    fn put_back_keeps_newer_writes() {
        let mut outbox = Outbox::default();
        outbox.heartbeat(id(1), 10, 5, Purpose::Report);
        outbox.leave(id(1), 11, 0);
        outbox.heartbeat(id(2), 12, 5, Purpose::Report);
        let unwritten = outbox.take_batch(10);
        outbox.heartbeat(id(1), 30, 6, Purpose::Report);
        outbox.put_back(unwritten);
        assert_eq!(outbox.len(), 2);
        assert_eq!(outbox.lag(30), 20);
        let mut writes = take_writes(&mut outbox, 30);
        writes.sort_by_key(|write| write.id().clone());
        assert_eq!(
            writes,
            [
                Write::Heartbeat(Heartbeat { id: id(1), age: 0, timeout: 6, purpose: Purpose::Report }),
                Write::Heartbeat(Heartbeat { id: id(2), age: 18, timeout: 5, purpose: Purpose::Report })
            ]
        );
    }

    /// The heartbeat may have arrived, and may seem later than the leave now.
    #[test]
    fn a_repeated_leave_goes_before_its_users_heartbeat() {
        let heartbeat = |age| Write::Heartbeat(Heartbeat { id: id(1), age, timeout: 5, purpose: Purpose::Report });
        let leave = |age| Write::Leave(Leave { id: id(1), age, after: 0 });
        let mut outbox = Outbox::default();
        outbox.heartbeat(id(1), 10, 5, Purpose::Report);
        let unwritten = outbox.take_batch(10);
        outbox.leave(id(1), 11, 0);
        outbox.put_back(unwritten);
        let unwritten = outbox.take_batch(10);
        assert_eq!(unwritten.writes(30, 0), [leave(19), heartbeat(20)]);
        // A later heartbeat has not arrived before.
        outbox.heartbeat(id(1), 12, 5, Purpose::Report);
        outbox.leave(id(1), 13, 0);
        outbox.put_back(unwritten);
        assert_eq!(take_writes(&mut outbox, 30), [heartbeat(18), leave(17)]);
        outbox.heartbeat(id(1), 14, 5, Purpose::Report);
        outbox.leave(id(1), 15, 0);
        outbox.mark_repeated(&id(1));
        assert_eq!(take_writes(&mut outbox, 30), [leave(15), heartbeat(16)]);
        // What is newer may have arrived before, too.
        outbox.heartbeat(id(1), 15, 5, Purpose::Report);
        let unwritten = outbox.take_batch(10);
        outbox.heartbeat(id(1), 16, 5, Purpose::Report);
        outbox.leave(id(1), 17, 0);
        outbox.mark_repeated(&id(1));
        outbox.put_back(unwritten);
        assert_eq!(take_writes(&mut outbox, 30), [leave(13), heartbeat(14)]);
        // Only the leave has perhaps arrived before.
        outbox.leave(id(1), 16, 0);
        let unwritten = outbox.take_batch(10);
        outbox.put_back(unwritten);
        outbox.heartbeat(id(1), 17, 5, Purpose::Report);
        outbox.leave(id(1), 18, 0);
        assert_eq!(take_writes(&mut outbox, 30), [heartbeat(13), leave(12)]);
    }

    #[test]
    fn nobody_is_due_before_the_first_whose_heartbeat_or_leave_waits() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.first_due(), None);
        outbox.heartbeat(id(1), 10, 50, Purpose::Report);
        outbox.heartbeat(id(2), 20, 5, Purpose::Report);
        outbox.heartbeat(id(2), 40, 5, Purpose::Report);
        assert_eq!(outbox.first_due(), Some(25));
        outbox.update_first_due();
        assert_eq!(outbox.first_due(), Some(45));
        let batch = outbox.take_batch(10);
        assert_eq!(outbox.first_due(), None);
        outbox.put_back(batch);
        assert_eq!(outbox.first_due(), Some(45));
        outbox.leave(id(1), 12, 4);
        assert_eq!(outbox.first_due(), Some(16));
        outbox.update_first_due();
        assert_eq!(outbox.first_due(), Some(16));
        outbox.heartbeat(id(1), 13, 50, Purpose::Report);
        outbox.update_first_due();
        assert_eq!(outbox.first_due(), Some(45), "it has undone the leave");
    }

    #[test]
    fn what_puts_a_deadline_off_lengthens_no_timeout_of_a_heartbeat_that_waits() {
        let mut outbox = Outbox::default();
        let write = |age, timeout, purpose| Write::Heartbeat(Heartbeat { id: id(1), age, timeout, purpose });
        outbox.heartbeat(id(1), 11, 5, Purpose::Report);
        outbox.prolong(id(1), 10, 90);
        outbox.prolong(id(1), 11, 99);
        let unwritten = outbox.take_batch(10);
        let both = [write(19, 5, Purpose::Report), write(19, 99, Purpose::Prolong)];
        assert_eq!(unwritten.writes(30, 0), both);
        outbox.put_back(unwritten);
        outbox.leave(id(1), 12, 0);
        let leave = Write::Leave(Leave { id: id(1), age: 18, after: 0 });
        let unwritten = outbox.take_batch(10);
        assert_eq!(unwritten.writes(30, 0), [vec![leave], both.to_vec()].concat());
        outbox.put_back(unwritten);
        outbox.heartbeat(id(1), 13, 5, Purpose::Report);
        assert_eq!(take_writes(&mut outbox, 30), [write(17, 5, Purpose::Report)], "the user is there");
    }

    #[test]
    fn the_clocks_jitter_is_added_to_the_timeout_of_a_heartbeat() {
        let mut outbox = Outbox::default();
        outbox.heartbeat(id(1), 10, 5, Purpose::Report);
        assert_eq!(
            outbox.take_batch(10).writes(30, 3),
            [Write::Heartbeat(Heartbeat { id: id(1), age: 20, timeout: 8, purpose: Purpose::Report })]
        );
    }
}
