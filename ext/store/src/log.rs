//! Events on their way from the store's log to the callbacks: in order for each user, at least once, and again after a
//! callback has failed.
//!
//! An event whose callback failed backs off for 1, 2, 4 … 60 s, and the later events of its user wait behind it; other
//! users go on. An event that has failed five times while others succeeded becomes a dead letter. While *every*
//! callback fails, because the application's database is down for example, delivery is suspended: no failure counts,
//! one event that was not tried yet is tried each second, and one that has failed now and then.
//!
//! Over 400 lines: each event is in one of its fields, and what moves it to another is here.

use std::collections::{HashMap, HashSet};

use online_manager_tracker::{Nanos, Transition};

use crate::id::UserId;
use crate::store::{Commit, Event, Handled, Partition};

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
use suspension::{Failure, Suspension};

/// The maximum number of events in memory that are not committed, whether delivered or not: as many may be delivered
/// twice after a crash. Those that back off are not counted; see [`MAX_BACKING_OFF`].
pub const MAX_IN_FLIGHT: usize = 256;

/// How often an event fails, while others succeed, before it becomes a dead letter: with the back-off, after some 15 s.
pub const MAX_FAILURES: u32 = 5;

/// How many users may be backing off before no new events are fetched: bounds the memory while most callbacks fail.
const MAX_BACKING_OFF: usize = 10_000;

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The callback returned.
    Returned,
    /// The callback raised; the message of the exception.
    Failed(String),
    /// The callback was ended by something that is not its own error: a signal, an exit. It is retried, and no failure
    /// counts.
    Interrupted,
    /// The callback was not called.
    NotCalled,
}

/// The events that were fetched and are not committed.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The events that can be claimed.
    ready: ReadyQueue,
    /// The users whose callback failed, with their events.
    backing_off: BackOff,
    /// The events of the present call of a callback.
    in_callback: Vec<Pending>,
    /// The events of the present call whose lease was lost since, by partition and number.
    orphans: Vec<(Partition, u64)>,
    /// The partitions of such events whose callback has returned.
    reports: Vec<Partition>,
    /// What the store has to learn, by partition.
    commits: HashMap<Partition, Commit>,
    leases: Leases,
    handled: HandledPartitions,
    /// How many events have left the other fields and are not committed: done or dead.
    uncommitted: usize,
    /// How many events were delivered successfully.
    successes: u64,
    suspension: Suspension,
    /// The number of calls of a callback that have failed.
    retries: u64,
}

impl Log {
    /// Returns how many more events may be fetched.
    pub(crate) fn free_slots(&self) -> usize {
        if self.backing_off.len() < MAX_BACKING_OFF {
            MAX_IN_FLIGHT.saturating_sub(self.ready.len() + self.in_callback.len() + self.uncommitted)
        } else {
            0
        }
    }

    /// Notes that this process holds the lease of a partition until a time of the member's clock.
    pub(crate) fn set_lease(&mut self, partition: Partition, until: Nanos) {
        self.leases.set(partition, until);
    }

    /// Returns whether this process holds the lease of a partition, as far as it knows. The lease may have expired; no event
    /// is claimed then.
    pub(crate) fn is_leased(&self, partition: Partition) -> bool {
        self.leases.is_held(partition)
    }

    /// Returns when the lease of a partition ends by this process' clock, unless it is renewed; 0 if it is not held.
    pub(crate) fn leased_until(&self, partition: Partition) -> Nanos {
        self.leases.until(partition)
    }

    /// Returns how many leases this process holds, as far as it knows.
    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// Returns how many leases this process holds that have not expired: while the store is away it renews none.
    pub(crate) fn unexpired_leases(&self, now: Nanos) -> usize {
        self.leases.count_unexpired(now)
    }

    /// Returns the number of the last event that was fetched from a partition, or 0.
    pub(crate) fn last_fetched(&self, partition: Partition) -> u64 {
        self.leases.last_fetched(partition)
    }

    /// Adds events that were fetched at `now`, in the order of the store's log.
    pub(crate) fn add_fetched(&mut self, partition: Partition, events: Vec<Event>, now: Nanos) {
        if let Some(event) = events.last() {
            self.leases.set_last_fetched(partition, event.number);
            self.handled.fetched(partition, events.iter().map(|event| event.number));
        }
        for event in events {
            let successes = self.successes;
            let pending = Pending { partition, event, read_at: now, tries: 0, successes, is_uncounted: false };
            self.enqueue(pending);
        }
    }

    /// Queues an event behind the earlier ones of its user.
    fn enqueue(&mut self, pending: Pending) {
        if let Some(pending) = self.backing_off.push_back(pending) {
            self.ready.push_back(pending);
        }
    }

    /// Drops all events and commits of a partition, whose lease another member holds or may hold.
    pub(crate) fn forget_partition(&mut self, partition: Partition) {
        let open: Vec<u64> = self.undelivered(partition).map(|pending| pending.event.number).collect();
        self.handled.lost(partition, open.into_iter());
        self.ready.drop_partition(partition);
        self.backing_off.drop_partition(partition);
        self.leases.remove(partition);
        let called = self.in_callback.extract_if(.., |pending| pending.partition == partition);
        self.orphans.extend(called.map(|pending| (partition, pending.event.number)));
        if let Some(commit) = self.commits.remove(&partition) {
            self.uncommitted -= finished_events(&commit);
        }
        if self.leases.is_empty() {
            self.suspension = Suspension::default();
        }
    }

    /// Returns the events of a partition that are in memory and have no outcome yet.
    fn undelivered(&self, partition: Partition) -> impl Iterator<Item = &Pending> {
        let all = self.ready.iter().chain(self.backing_off.iter()).chain(&self.in_callback);
        all.filter(move |pending| pending.partition == partition)
    }

    /// Notes what a poll says of a partition: of which data it is, and up to which number every event is delivered.
    pub(crate) fn polled(&mut self, partition: Partition, epoch: u64, delivered_through: u64) {
        self.handled.polled(partition, epoch, delivered_through);
    }

    /// What is delivered of a partition: every event up to a number, and the exceptions. `None` if nothing is known.
    pub(crate) fn handled(&self, partition: Partition) -> Option<Handled> {
        let (epoch, through, mut except) = self.handled.get(partition)?;
        except.extend(self.undelivered(partition).map(|pending| pending.event.number));
        let dead = self.commits.get(&partition).into_iter().flat_map(|commit| &commit.dead);
        except.extend(dead.map(|(number, ..)| *number));
        Some(Handled { epoch, through, except })
    }

    /// Whether a callback runs for an event of a partition whose lease was lost since. The event is not fetched again
    /// meanwhile: nobody knows yet whether it is delivered.
    pub(crate) fn has_orphan(&self, partition: Partition) -> bool {
        self.orphans.iter().any(|(other, _)| *other == partition)
    }

    /// Takes the partitions of events whose callback returned after the lease was lost: the store is to hear of it.
    pub(crate) fn take_reports(&mut self) -> Vec<Partition> {
        std::mem::take(&mut self.reports)
    }

    /// The users of a partition whose last event in memory is an `offline` that is not delivered, and when each was seen last.
    pub(crate) fn undelivered_offline(&self, partition: Partition, now: Nanos) -> Vec<(UserId, Nanos)> {
        let mut events: Vec<&Pending> = self.undelivered(partition).collect();
        events.sort_by_key(|pending| pending.event.number);
        // The later event of a user takes the place of the earlier one.
        let last: HashMap<&UserId, &Pending> = events.into_iter().map(|pending| (&pending.event.id, pending)).collect();
        let offline = last.into_values().filter(|pending| pending.event.transition == Transition::Offline);
        offline.map(|pending| (pending.event.id.clone(), now.saturating_sub(pending.as_of(now).seen_ago))).collect()
    }

    /// Suspends or resumes the claims from a partition: its lease is about to be released, or is kept after all.
    pub(crate) fn set_releasing(&mut self, partition: Partition, is_releasing: bool) {
        self.leases.set_releasing(partition, is_releasing);
    }

    /// Whether the lease of a partition can be released: nothing is being delivered, and all that was is committed.
    pub(crate) fn is_settled(&self, partition: Partition) -> bool {
        let is_committed = self.commits.get(&partition).is_none_or(Commit::is_empty);
        is_committed
            && self.in_callback.iter().all(|pending| pending.partition != partition)
            && !self.has_orphan(partition)
    }

    /// Returns how long after `now` an event can be claimed, in nanoseconds, 0 for now; `None` if none waits.
    pub(crate) fn next(&self, now: Nanos) -> Option<Nanos> {
        let new = self.ready.first(&self.leases, now).map(|_| 0);
        let failed = self.backing_off.next(&self.leases, now);
        let (new, failed) = match self.suspension.times() {
            None => (new, failed),
            Some(times) => {
                (new.map(|_| times.new.saturating_sub(now)), failed.map(|_| times.failed.saturating_sub(now)))
            }
        };
        new.into_iter().chain(failed).min()
    }

    /// Takes the events of the next call of a callback: one, or those of several users if `is_batched` says that one
    /// call takes all of a transition. Empty if no event can be claimed. [`Log::delivered`] must follow before the next
    /// claim.
    pub(crate) fn claim(
        &mut self,
        now: Nanos,
        is_batched: impl Fn(Transition) -> bool,
    ) -> (Option<Transition>, Vec<Event>) {
        self.end_last_call(now);
        // No callback runs any more, whether its outcome was reported or not.
        self.orphans.clear();
        match self.suspension.times() {
            // A retry is never batched: this event may be the one that made a whole batch fail.
            None => match self.backing_off.claim(&self.leases, now, false) {
                Some(pending) => self.in_callback.push(pending),
                None => self.claim_ready(now, is_batched),
            },
            // One event is enough to find out whether callbacks work again.
            Some(times) => {
                let new = (times.new <= now).then(|| self.ready.pop_first(&self.leases, now)).flatten();
                let failed = || self.backing_off.claim(&self.leases, now, true);
                let pending = new.or_else(|| (times.failed <= now).then(failed).flatten());
                self.in_callback.extend(pending);
            }
        }
        (
            self.in_callback.first().map(|pending| pending.event.transition),
            self.in_callback.iter().map(|pending| pending.as_of(now)).collect(),
        )
    }

    /// Ends the last call, if a continuation (`callcc`) or a fiber has left it: its outcome never comes. Returns whether there
    /// was one.
    pub(crate) fn end_last_call(&mut self, now: Nanos) -> bool {
        let was_left = self.is_calling();
        self.delivered(&DeliveryOutcome::Interrupted, now);
        was_left
    }

    /// Claims from the ready queue: the first event, and those behind it that fit into the same call. No user is in a
    /// call twice, and the events of each user stay in order.
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

    /// Records the outcome of the call for the claimed events, at `now`.
    pub(crate) fn delivered(&mut self, outcome: &DeliveryOutcome, now: Nanos) {
        for (partition, number) in std::mem::take(&mut self.orphans) {
            if *outcome == DeliveryOutcome::Returned {
                self.handled.delivered(partition, number);
                self.reports.push(partition);
            }
        }
        let events = std::mem::take(&mut self.in_callback);
        if events.is_empty() {
            // The lease was lost meanwhile.
            return;
        }
        match outcome {
            DeliveryOutcome::Returned => {
                self.successes += events.len() as u64;
                if self.suspension.succeeded() {
                    // The cause is gone, so no user needs to back off any longer.
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
                let is_first = events.iter().all(|pending| pending.tries == 0);
                let is_own = events.iter().all(|pending| self.fails_alone(pending));
                self.suspension.failed(now, Failure { is_first, is_own });
                events.into_iter().for_each(|pending| self.failed(pending, error, now));
            }
        }
    }

    /// Whether an event that was just tried has failed before while others succeeded.
    fn fails_alone(&self, pending: &Pending) -> bool {
        pending.event.failures > 0 || (pending.tries > 0 && self.successes > pending.successes)
    }

    /// Counts a failure of an event, which backs off or becomes a dead letter. It does not count if nothing was
    /// delivered successfully since the event failed last: then perhaps every callback fails.
    fn failed(&mut self, pending: Pending, error: &str, now: Nanos) {
        let mut pending = Pending { tries: pending.tries + 1, ..pending };
        // A failure counts if another callback succeeded here since the event was fetched or last tried. Otherwise it counts as
        // soon as one has: while every callback fails nothing is given up, also when the lease goes from member to member.
        if self.successes > pending.successes {
            pending.event.failures += 1 + u32::from(pending.is_uncounted);
            pending.is_uncounted = false;
        } else {
            pending.is_uncounted = pending.is_uncounted || (pending.tries == 1 && pending.event.failures == 0);
        }
        pending.successes = self.successes;
        let (number, failures) = (pending.event.number, pending.event.failures);
        if failures >= MAX_FAILURES {
            self.commit(pending.partition, |commit| commit.dead.push((number, failures, error.to_owned())));
            self.resume_user(&pending.event.id);
        } else {
            let commit = self.commits.entry(pending.partition).or_default();
            commit.failed.push((number, failures, error.to_owned()));
            self.back_off(pending, now);
        }
    }

    /// Adds an event that is done or dead to the commit of its partition.
    fn commit(&mut self, partition: Partition, add: impl FnOnce(&mut Commit)) {
        add(self.commits.entry(partition).or_default());
        self.uncommitted += 1;
    }

    /// Ends the user's back-off: its later events can be claimed next.
    fn resume_user(&mut self, id: &UserId) {
        self.backing_off.end(id).into_iter().rev().for_each(|pending| self.ready.push_front(pending));
    }

    /// Puts an event back that was not delivered, in front of all others.
    fn put_back(&mut self, pending: Pending, now: Nanos) {
        if let Some(pending) = self.backing_off.push_front(pending, now) {
            self.ready.push_front(pending);
        }
    }

    /// Makes the event and all later ones of its user wait.
    fn back_off(&mut self, pending: Pending, now: Nanos) {
        let later = self.ready.take_user(&pending.event.id);
        self.backing_off.start(pending, later, now);
    }

    /// Takes the commits of the available partitions. [`Log::committed`] or [`Log::not_committed`] must follow for
    /// each.
    pub(crate) fn take_commits(&mut self, is_available: impl Fn(Partition) -> bool) -> Vec<(Partition, Commit)> {
        let commits = self.commits.extract_if(|partition, _| is_available(*partition));
        commits.filter(|(_, commit)| !commit.is_empty()).collect()
    }

    /// Notes that a commit has arrived in the store.
    pub(crate) fn committed(&mut self, commit: &Commit) {
        self.uncommitted -= finished_events(commit);
    }

    /// Puts a commit back that has not arrived in the store.
    pub(crate) fn not_committed(&mut self, partition: Partition, commit: Commit) {
        let newer = self.commits.entry(partition).or_default();
        let mut all = commit;
        all.done.append(&mut newer.done);
        all.failed.append(&mut newer.failed);
        all.dead.append(&mut newer.dead);
        *newer = all;
    }

    /// Whether any available partition has something to commit.
    pub(crate) fn has_commits(&self, is_available: impl Fn(Partition) -> bool) -> bool {
        self.commits.iter().any(|(partition, commit)| !commit.is_empty() && is_available(*partition))
    }

    /// Returns whether claimed events await the outcome of their callback. Not so once their lease is lost, even if the
    /// callback still runs: another process calls it again then.
    pub(crate) fn is_calling(&self) -> bool {
        !self.in_callback.is_empty()
    }

    /// Whether a callback is being called, or something is not committed.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_calling() || self.has_commits(|_| true)
    }

    /// Whether the user's callback failed, and waits to be tried again.
    #[cfg(test)]
    pub(crate) fn is_backing_off(&self, id: &UserId) -> bool {
        self.backing_off.has(id)
    }

    /// Returns how many calls of a callback have failed.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }
}

/// Returns how many events a commit takes out of the log.
fn finished_events(commit: &Commit) -> usize {
    commit.done.len() + commit.dead.len()
}
