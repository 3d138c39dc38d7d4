//! Events on their way from the store's log to the callbacks: in order for each user, at least once, and again later when a
//! callback fails.
//!
//! Whoever failed waits for 1, 2, 4 … 60 s, and the user's later events behind it; the others go on. An event that has
//! failed five times while others succeeded is given up. While *every* callback fails (the application's database is
//! down, say) nothing counts as a failure, and all wait but one, which is tried now and then.

use std::collections::{HashMap, HashSet};

use online_manager_tracker::{Nanos, Transition};

use crate::id::UserId;
use crate::store::{Commit, Event, Partition};

mod back_off;
mod handled;
mod leases;
mod queue;
mod suspension;
#[cfg(test)]
mod tests;

use back_off::BackOff;
pub(crate) use back_off::backoff;
use handled::HandledPartitions;
use leases::Leases;
use queue::{Pending, ReadyQueue};
use suspension::Suspension;

/// How many events are in memory, delivered or not, that the store has in its log. So many may come twice after a crash.
pub const MAX_IN_FLIGHT: usize = 256;

/// How often an event may fail, while others succeed, before it is given up.
pub const MAX_FAILURES: u32 = 5;

/// No more users than these wait for their turn to be tried again; else no new events are fetched.
const MAX_BACKING_OFF: usize = 10_000;

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The callback returned.
    Returned,
    /// It raised, with that message.
    Failed(String),
    /// It was cut off by something that is no error of its own: a signal, an exit.
    Interrupted,
    /// It was never called.
    NotCalled,
}

/// The events that were fetched and are not committed yet.
#[derive(Debug, Default)]
pub(crate) struct Log {
    ready: ReadyQueue,
    backing_off: BackOff,
    /// What a callback is being called for.
    in_callback: Vec<Pending>,
    commits: HashMap<Partition, Commit>,
    leases: Leases,
    handled: HandledPartitions,
    /// How many are in `commits`, or are being committed.
    uncommitted: usize,
    successes: u64,
    suspension: Suspension,
    retries: u64,
}

impl Log {
    /// For how many more events there is room.
    pub(crate) fn free_slots(&self) -> usize {
        if self.backing_off.len() < MAX_BACKING_OFF {
            MAX_IN_FLIGHT.saturating_sub(self.ready.len() + self.in_callback.len() + self.uncommitted)
        } else {
            0
        }
    }

    /// We have the lease of a partition, until then.
    pub(crate) fn set_lease(&mut self, partition: Partition, until: Nanos) {
        self.leases.set(partition, until);
    }

    /// Whether we have the lease of a partition, as far as we know.
    pub(crate) fn is_leased(&self, partition: Partition) -> bool {
        self.leases.is_held(partition)
    }

    /// How many leases we have.
    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// The number of the last event of a partition that was fetched.
    pub(crate) fn last_fetched(&self, partition: Partition) -> u64 {
        self.leases.last_fetched(partition)
    }

    /// Adds what was fetched, in order, at `now`.
    pub(crate) fn add_fetched(&mut self, partition: Partition, events: Vec<Event>, now: Nanos) {
        if let Some(event) = events.last() {
            self.leases.set_last_fetched(partition, event.number);
            self.handled.fetched(partition, events.iter().map(|event| event.number));
        }
        for event in events {
            let pending = Pending { partition, event, read_at: now, tries: 0, successes: 0, is_uncounted: false };
            self.enqueue(pending);
        }
    }

    /// Behind the user's earlier events.
    fn enqueue(&mut self, pending: Pending) {
        if let Some(pending) = self.backing_off.push_back(pending) {
            self.ready.push_back(pending);
        }
    }

    /// Forgets everything of a partition: its lease has gone to somebody else.
    pub(crate) fn forget_partition(&mut self, partition: Partition) {
        let open: Vec<u64> = self.undelivered(partition).map(|pending| pending.event.number).collect();
        self.handled.lost(partition, open.into_iter());
        self.drop_undelivered(partition);
        self.leases.remove(partition);
        self.in_callback.retain(|pending| pending.partition != partition);
        if let Some(commit) = self.commits.remove(&partition) {
            self.uncommitted -= finished_events(&commit);
        }
        if self.leases.is_empty() {
            self.suspension = Suspension::default();
        }
    }

    /// Forgets what of a partition has not been delivered: its lease is about to be given back.
    pub(crate) fn drop_undelivered(&mut self, partition: Partition) {
        self.ready.drop_partition(partition);
        self.backing_off.drop_partition(partition);
    }

    /// The events of a partition that are in memory, and not delivered as far as is known.
    fn undelivered(&self, partition: Partition) -> impl Iterator<Item = &Pending> {
        let all = self.ready.iter().chain(self.backing_off.iter()).chain(&self.in_callback);
        all.filter(move |pending| pending.partition == partition)
    }

    /// What is delivered of a partition: every event up to a number, and the exceptions. `None` if nothing was fetched.
    pub(crate) fn handled(&self, partition: Partition) -> Option<(u64, Vec<u64>)> {
        let (through, mut except) = self.handled.get(partition)?;
        except.extend(self.undelivered(partition).map(|pending| pending.event.number));
        Some((through, except))
    }

    /// The users of a partition whose last event in memory is an `offline` that is not delivered, and when each was due.
    pub(crate) fn undelivered_offline(&self, partition: Partition, now: Nanos) -> Vec<(UserId, Nanos)> {
        let mut last: HashMap<&UserId, &Pending> = HashMap::new();
        for pending in self.undelivered(partition) {
            let known = last.entry(&pending.event.id).or_insert(pending);
            if pending.event.number > known.event.number {
                *known = pending;
            }
        }
        let offline = last.into_values().filter(|pending| pending.event.transition == Transition::Offline);
        offline.map(|pending| (pending.event.id.clone(), now.saturating_sub(pending.as_of(now).lateness))).collect()
    }

    /// Whether nothing of a partition has been delivered of which the store has not been told.
    pub(crate) fn is_settled(&self, partition: Partition) -> bool {
        let is_committed = self.commits.get(&partition).is_none_or(Commit::is_empty);
        is_committed && self.in_callback.iter().all(|pending| pending.partition != partition)
    }

    /// When somebody can be taken: `Some(0)` now, `None` not before more events come.
    pub(crate) fn next(&self, now: Nanos) -> Option<Nanos> {
        if self.ready.is_empty() && self.backing_off.is_empty() {
            return None;
        }
        if let Some(remaining) = self.suspension.remaining(now) {
            return Some(remaining);
        }
        if self.ready.first(&self.leases, now).is_some() {
            return Some(0);
        }
        self.backing_off.next(now)
    }

    /// Takes the next event, or several users' events for one call of an `_all` method if `together` says so for their
    /// transition. Empty when nobody's turn has come. Another call must not come before [`Log::delivered`].
    pub(crate) fn claim(
        &mut self,
        now: Nanos,
        is_batched: impl Fn(Transition) -> bool,
    ) -> (Option<Transition>, Vec<Event>) {
        debug_assert!(self.in_callback.is_empty());
        let remaining = self.suspension.remaining(now);
        if remaining.is_some_and(|remaining| remaining > 0) {
            return (None, Vec::new());
        }
        if let Some(pending) = self.backing_off.claim(&self.leases, now, remaining.is_some()) {
            // Alone: it may be the one because of whom a whole call failed.
            self.in_callback.push(pending);
        } else if remaining.is_some() {
            // One is enough to find out whether callbacks work again.
            self.in_callback.extend(self.ready.pop_first(&self.leases, now));
        } else {
            self.claim_ready(now, is_batched);
        }
        (
            self.in_callback.first().map(|pending| pending.event.transition),
            self.in_callback.iter().map(|pending| pending.as_of(now)).collect(),
        )
    }

    fn claim_ready(&mut self, now: Nanos, is_batched: impl Fn(Transition) -> bool) {
        let mut users = HashSet::new();
        while let Some(pending) = self.ready.first(&self.leases, now) {
            let (transition, id) = (pending.event.transition, &pending.event.id);
            let fits = match self.in_callback.first() {
                None => true,
                Some(first) => first.event.transition == transition && is_batched(transition) && !users.contains(id),
            };
            if !fits {
                break;
            }
            users.insert(id.clone());
            self.in_callback.extend(self.ready.pop_first(&self.leases, now));
        }
    }

    /// What became of those who were taken.
    pub(crate) fn delivered(&mut self, outcome: &DeliveryOutcome, now: Nanos) {
        let events = std::mem::take(&mut self.in_callback);
        if events.is_empty() {
            // The lease was lost meanwhile.
            return;
        }
        match outcome {
            DeliveryOutcome::Returned => {
                self.successes += events.len() as u64;
                if self.suspension.succeeded() {
                    // Whatever it was, it is over: nobody need wait any longer.
                    self.backing_off.end_all_waits(now);
                }
                for pending in events {
                    self.commit(pending.partition, |commit| commit.done.push(pending.event.number));
                    self.resume_user(&pending.event.id);
                }
            }
            DeliveryOutcome::NotCalled => events.into_iter().rev().for_each(|pending| self.put_back(pending, now)),
            DeliveryOutcome::Interrupted => events.into_iter().for_each(|pending| {
                let tries = pending.tries + 1;
                self.back_off(Pending { tries, ..pending }, now);
            }),
            DeliveryOutcome::Failed(error) => {
                self.retries += 1;
                self.suspension.failed(now);
                events.into_iter().for_each(|pending| self.failed(pending, error, now));
            }
        }
    }

    fn failed(&mut self, pending: Pending, error: &str, now: Nanos) {
        let mut pending = Pending { tries: pending.tries + 1, ..pending };
        // A failure counts if another callback succeeded in this process: since the event was last tried here, or before.
        // Otherwise it counts as soon as one has: while every callback fails nothing is given up, also across restarts.
        if self.successes > pending.successes {
            pending.event.failures += 1 + u32::from(pending.is_uncounted);
            pending.is_uncounted = false;
        } else {
            pending.is_uncounted = pending.is_uncounted || pending.tries == 1;
        }
        pending.successes = self.successes;
        let number = pending.event.number;
        if pending.event.failures >= MAX_FAILURES {
            self.commit(pending.partition, |commit| commit.dead.push((number, error.to_owned())));
            self.resume_user(&pending.event.id);
        } else {
            let failures = pending.event.failures;
            let commit = self.commits.entry(pending.partition).or_default();
            commit.failed.push((number, failures, error.to_owned()));
            self.back_off(pending, now);
        }
    }

    fn commit(&mut self, partition: Partition, add: impl FnOnce(&mut Commit)) {
        add(self.commits.entry(partition).or_default());
        self.uncommitted += 1;
    }

    /// The user's later events need not wait any longer.
    fn resume_user(&mut self, id: &UserId) {
        self.backing_off.end(id).into_iter().rev().for_each(|pending| self.ready.push_front(pending));
    }

    fn put_back(&mut self, pending: Pending, now: Nanos) {
        if let Some(pending) = self.backing_off.push_front(pending, now) {
            self.ready.push_front(pending);
        }
    }

    /// Has the event and all later ones of its user wait.
    fn back_off(&mut self, pending: Pending, now: Nanos) {
        let later = self.ready.take_user(&pending.event.id);
        self.backing_off.start(pending, later, now);
    }

    /// What the store has to be told, for those partitions that can be told. [`Log::committed`] follows.
    pub(crate) fn take_commits(&mut self, is_available: impl Fn(Partition) -> bool) -> Vec<(Partition, Commit)> {
        let commits = self.commits.extract_if(|partition, _| is_available(*partition));
        commits.filter(|(_, commit)| !commit.is_empty()).collect()
    }

    /// The store has been told.
    pub(crate) fn committed(&mut self, commit: &Commit) {
        self.uncommitted -= finished_events(commit);
    }

    /// The store could not be told.
    pub(crate) fn not_committed(&mut self, partition: Partition, commit: Commit) {
        let newer = self.commits.entry(partition).or_default();
        let mut all = commit;
        all.done.append(&mut newer.done);
        all.failed.append(&mut newer.failed);
        all.dead.append(&mut newer.dead);
        *newer = all;
    }

    pub(crate) fn has_commits(&self, is_available: impl Fn(Partition) -> bool) -> bool {
        self.commits.iter().any(|(partition, commit)| !commit.is_empty() && is_available(*partition))
    }

    /// Whether a callback is being called.
    pub(crate) fn is_calling(&self) -> bool {
        !self.in_callback.is_empty()
    }

    /// Whether a callback is being called, or one has been that the store does not know of.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_calling() || self.has_commits(|_| true)
    }

    /// Whether the user's callback failed, and waits to be tried again.
    #[cfg(test)]
    pub(crate) fn is_backing_off(&self, id: &UserId) -> bool {
        self.backing_off.has(id)
    }

    /// How many callbacks have failed so far.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }
}

fn finished_events(commit: &Commit) -> usize {
    commit.done.len() + commit.dead.len()
}
