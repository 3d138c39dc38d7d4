//! Events on their way from the store's log to the callbacks: in order for each user, at least once, and again later when a
//! callback fails.
//!
//! Over 400 lines: the states of an event depend on each other, and more than a third of it is their tests.
//!
//! Whoever failed waits for 1, 2, 4 … 60 s, and the user's later events behind it; the others go on. An event that has
//! failed five times while others succeeded is given up. While *every* callback fails (the application's database is
//! down, say) nothing counts as a failure, and all wait but one, which is tried now and then.

use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::quality::RandomState;
use online_manager_tracker::{Nanos, Transition};

use crate::id::UserId;
use crate::store::{Commit, Event, Partition};

/// How many events are in memory, delivered or not, that the store has in its log. So many may come twice after a crash.
pub const MAX_IN_FLIGHT: usize = 256;

/// How often an event may fail, while others succeed, before it is given up.
pub const MAX_FAILURES: u32 = 5;

/// So many failures one after the other, of different events, and every callback is taken to fail.
const OUTAGE_THRESHOLD: u32 = 5;

/// No more users than these wait for their turn to be tried again; else no new events are fetched.
const MAX_BACKING_OFF: usize = 10_000;

const SECOND: Nanos = 1_000_000_000;
const MAX_BACKOFF: Nanos = 60 * SECOND;

/// `first` after the first failure, twice as long after each further one, up to `longest`.
pub(crate) fn backoff(first: Nanos, longest: Nanos, failures: u32) -> Nanos {
    let doublings = failures.saturating_sub(1).min(Nanos::BITS - 1);
    first.saturating_mul(1 << doublings).min(longest)
}

/// How long to wait after so many failures, the first being 1.
fn backoff_after(tries: u32) -> Nanos {
    backoff(SECOND, MAX_BACKOFF, tries)
}

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

/// An event, and what is known of its failures.
#[derive(Clone, Debug)]
struct Pending {
    partition: Partition,
    event: Event,
    /// When it was read from the store.
    read_at: Nanos,
    /// How often it was tried here, and how many deliveries had succeeded by the last time.
    tries: u32,
    successes: u64,
}

impl Pending {
    /// The event, as late as it is by now.
    fn as_of(&self, now: Nanos) -> Event {
        let lateness = self.event.lateness.saturating_add(now.saturating_sub(self.read_at));
        Event { lateness, ..self.event.clone() }
    }
}

/// A user whose event failed, and everything that has to wait for it.
#[derive(Debug)]
struct BackingOff {
    until: Nanos,
    events: VecDeque<Pending>,
}

type Leases = HashMap<Partition, (Nanos, u64)>;

/// The events that were fetched and are not committed yet.
#[derive(Debug, Default)]
pub(crate) struct Log {
    ready: VecDeque<Pending>,
    backing_off: HashMap<UserId, BackingOff, RandomState>,
    /// What a callback is being called for.
    called: Vec<Pending>,
    commits: HashMap<Partition, Commit>,
    /// Until when we may deliver, and the last event that was fetched.
    leases: Leases,
    /// How many are in `commits`, or are being committed.
    uncommitted: usize,
    successes: u64,
    failures_in_a_row: u32,
    /// While every callback fails: not before that time is one tried.
    suspended_until: Option<Nanos>,
    suspensions: u32,
    retries: u64,
}

impl Log {
    /// For how many more events there is room.
    pub(crate) fn free_slots(&self) -> usize {
        if self.backing_off.len() < MAX_BACKING_OFF {
            MAX_IN_FLIGHT.saturating_sub(self.ready.len() + self.called.len() + self.uncommitted)
        } else {
            0
        }
    }

    /// We have the lease of a partition, until then.
    pub(crate) fn set_lease(&mut self, partition: Partition, until: Nanos) {
        self.leases.entry(partition).or_default().0 = until;
    }

    /// Whether we have the lease of a partition, as far as we know.
    pub(crate) fn is_leased(&self, partition: Partition) -> bool {
        self.leases.contains_key(&partition)
    }

    /// How many leases we have.
    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// The number of the last event of a partition that was fetched.
    pub(crate) fn last_fetched(&self, partition: Partition) -> u64 {
        self.leases.get(&partition).map_or(0, |(_, last)| *last)
    }

    /// Adds what was fetched, in order, at `now`.
    pub(crate) fn add_fetched(&mut self, partition: Partition, events: Vec<Event>, now: Nanos) {
        if let (Some(lease), Some(event)) = (self.leases.get_mut(&partition), events.last()) {
            lease.1 = event.number;
        }
        for event in events {
            let pending = Pending { partition, event, read_at: now, tries: 0, successes: 0 };
            self.enqueue(pending);
        }
    }

    /// Behind the user's earlier events.
    fn enqueue(&mut self, pending: Pending) {
        match self.backing_off.get_mut(&pending.event.id) {
            Some(backing_off) => backing_off.events.push_back(pending),
            None => self.ready.push_back(pending),
        }
    }

    /// Forgets everything of a partition: its lease has gone to somebody else.
    pub(crate) fn forget_partition(&mut self, partition: Partition) {
        self.drop_undelivered(partition);
        self.leases.remove(&partition);
        self.called.retain(|pending| pending.partition != partition);
        if let Some(commit) = self.commits.remove(&partition) {
            self.uncommitted -= count(&commit);
        }
        if self.leases.is_empty() {
            self.failures_in_a_row = 0;
            self.suspended_until = None;
            self.suspensions = 0;
        }
    }

    /// Forgets what of a partition has not been delivered: its lease is about to be given back.
    pub(crate) fn drop_undelivered(&mut self, partition: Partition) {
        self.ready.retain(|pending| pending.partition != partition);
        self.backing_off.retain(|_, backing_off| {
            backing_off.events.retain(|pending| pending.partition != partition);
            !backing_off.events.is_empty()
        });
    }

    /// Whether nothing of a partition has been delivered of which the store has not been told.
    pub(crate) fn is_settled(&self, partition: Partition) -> bool {
        let is_committed = self.commits.get(&partition).is_none_or(Commit::is_empty);
        is_committed && self.called.iter().all(|pending| pending.partition != partition)
    }

    /// When somebody can be taken: `Some(0)` now, `None` not before more events come.
    pub(crate) fn next(&self, now: Nanos) -> Option<Nanos> {
        if self.ready.is_empty() && self.backing_off.is_empty() {
            return None;
        }
        if let Some(until) = self.suspended_until {
            return Some(until.saturating_sub(now));
        }
        if self.first_ready(now).is_some() {
            return Some(0);
        }
        self.backing_off.values().map(|backing_off| backing_off.until.saturating_sub(now)).min()
    }

    /// Takes the next event, or several users' events for one call of an `_all` method if `together` says so for their
    /// transition. Empty when nobody's turn has come. Another call must not come before [`Log::delivered`].
    pub(crate) fn claim(
        &mut self,
        now: Nanos,
        together: impl Fn(Transition) -> bool,
    ) -> (Option<Transition>, Vec<Event>) {
        debug_assert!(self.called.is_empty());
        if self.suspended_until.is_some_and(|until| until > now) {
            return (None, Vec::new());
        }
        if let Some(pending) = self.claim_retry(now) {
            self.called.push(pending);
        } else if self.suspended_until.is_some() {
            // One is enough to find out whether callbacks work again.
            let first = self.first_ready(now);
            self.called.extend(first.and_then(|first| self.ready.remove(first)));
        } else {
            self.claim_ready(now, together);
        }
        (
            self.called.first().map(|pending| pending.event.transition),
            self.called.iter().map(|pending| pending.as_of(now)).collect(),
        )
    }

    /// One who has waited long enough is tried alone: it may be the one because of whom a whole call failed.
    fn claim_retry(&mut self, now: Nanos) -> Option<Pending> {
        let is_suspended = self.suspended_until.is_some();
        let due = self.backing_off.iter_mut().filter(|(_, backing_off)| {
            let is_held =
                backing_off.events.front().is_some_and(|pending| is_lease_valid(&self.leases, pending.partition, now));
            is_held && (is_suspended || backing_off.until <= now)
        });
        let (_, backing_off) =
            due.min_by_key(|(_, backing_off)| backing_off.events.front().map(|pending| pending.event.number))?;
        // In place as long as it is tried, so that later events of the user line up behind it.
        backing_off.until = Nanos::MAX;
        backing_off.events.pop_front()
    }

    /// The first whose partition is still ours.
    fn first_ready(&self, now: Nanos) -> Option<usize> {
        self.ready.iter().position(|pending| is_lease_valid(&self.leases, pending.partition, now))
    }

    fn claim_ready(&mut self, now: Nanos, together: impl Fn(Transition) -> bool) {
        let mut users = HashSet::new();
        while let Some(place) = self.first_ready(now)
            && let Some(pending) = self.ready.get(place)
        {
            let (transition, id) = (pending.event.transition, &pending.event.id);
            let fits = match self.called.first() {
                None => true,
                Some(first) => first.event.transition == transition && together(transition) && !users.contains(id),
            };
            if !fits {
                break;
            }
            users.insert(id.clone());
            self.called.extend(self.ready.remove(place));
        }
    }

    /// What became of those who were taken.
    pub(crate) fn delivered(&mut self, how: &DeliveryOutcome, now: Nanos) {
        let events = std::mem::take(&mut self.called);
        if events.is_empty() {
            // The lease was lost meanwhile.
            return;
        }
        match how {
            DeliveryOutcome::Returned => {
                self.successes += events.len() as u64;
                self.failures_in_a_row = 0;
                if self.suspended_until.take().is_some() {
                    self.suspensions = 0;
                    // Whatever it was, it is over: nobody need wait any longer.
                    self.backing_off
                        .values_mut()
                        .filter(|backing_off| backing_off.until != Nanos::MAX)
                        .for_each(|backing_off| backing_off.until = now);
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
                self.failures_in_a_row += 1;
                if self.suspended_until.is_some() || self.failures_in_a_row >= OUTAGE_THRESHOLD {
                    self.suspensions += 1;
                    self.suspended_until = Some(now.saturating_add(backoff_after(self.suspensions)));
                }
                events.into_iter().for_each(|pending| self.failed(pending, error, now));
            }
        }
    }

    fn failed(&mut self, pending: Pending, error: &str, now: Nanos) {
        let mut pending = Pending { tries: pending.tries + 1, ..pending };
        if pending.tries == 1 || self.successes > pending.successes {
            pending.event.failures += 1;
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
        if let Some(backing_off) = self.backing_off.remove(id) {
            backing_off.events.into_iter().rev().for_each(|pending| self.ready.push_front(pending));
        }
    }

    fn put_back(&mut self, pending: Pending, now: Nanos) {
        match self.backing_off.get_mut(&pending.event.id) {
            Some(backing_off) => {
                backing_off.until = now;
                backing_off.events.push_front(pending);
            }
            None => self.ready.push_front(pending),
        }
    }

    /// Has the event and all later ones of its user wait.
    fn back_off(&mut self, pending: Pending, now: Nanos) {
        let id = pending.event.id.clone();
        let until = now.saturating_add(backoff_after(pending.tries));
        let backing_off =
            self.backing_off.entry(id.clone()).or_insert_with(|| BackingOff { until, events: VecDeque::new() });
        backing_off.until = until;
        backing_off.events.push_front(pending);
        // Those that were fetched already.
        let (later, ready) =
            std::mem::take(&mut self.ready).into_iter().partition(|pending: &Pending| pending.event.id == id);
        self.ready = ready;
        backing_off.events.extend::<VecDeque<Pending>>(later);
    }

    /// What the store has to be told, for those partitions that can be told. [`Log::committed`] follows.
    pub(crate) fn take_commits(&mut self, is_up: impl Fn(Partition) -> bool) -> Vec<(Partition, Commit)> {
        let commits = self.commits.extract_if(|partition, _| is_up(*partition));
        commits.filter(|(_, commit)| !commit.is_empty()).collect()
    }

    /// The store has been told.
    pub(crate) fn committed(&mut self, commit: &Commit) {
        self.uncommitted -= count(commit);
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

    pub(crate) fn has_commits(&self, is_up: impl Fn(Partition) -> bool) -> bool {
        self.commits.iter().any(|(partition, commit)| !commit.is_empty() && is_up(*partition))
    }

    /// Whether a callback is being called.
    pub(crate) fn is_calling(&self) -> bool {
        !self.called.is_empty()
    }

    /// Whether a callback is being called, or one has been that the store does not know of.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_calling() || self.has_commits(|_| true)
    }

    /// How many callbacks have failed so far.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }
}

/// Whether a partition's lease is not over yet. If it is, it may be another's by now: it is renewed, or all of its partition
/// forgotten.
fn is_lease_valid(leases: &Leases, partition: Partition, now: Nanos) -> bool {
    leases.get(&partition).is_some_and(|(until, _)| *until > now)
}

fn count(commit: &Commit) -> usize {
    commit.done.len() + commit.dead.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;
    use online_manager_tracker::Reason;

    fn id(user: u64) -> UserId {
        UserId::new(Kind::Integer, user.to_string().as_bytes())
    }

    fn event(number: u64, user: u64, transition: Transition, version: i64) -> Event {
        let reason = if transition == Transition::Online { Reason::Heartbeat } else { Reason::Timeout };
        Event { number, id: id(user), transition, reason, lateness: 0, version, failures: 0 }
    }

    /// Events of these users, numbered from 1 on, online first.
    fn log(users: &[u64]) -> Log {
        let mut log = Log::default();
        log.set_lease(0, Nanos::MAX);
        let events = users.iter().enumerate().map(|(index, user)| {
            let before = users[..index].iter().filter(|earlier| *earlier == user).count();
            let transition = if before % 2 == 0 { Transition::Online } else { Transition::Offline };
            event(index as u64 + 1, *user, transition, index as i64)
        });
        log.add_fetched(0, events.collect(), 0);
        log
    }

    fn numbers(log: &mut Log, now: Nanos) -> Vec<u64> {
        log.claim(now, |_| false).1.iter().map(|event| event.number).collect()
    }

    fn fail(log: &mut Log, now: Nanos) {
        log.delivered(&DeliveryOutcome::Failed("no".into()), now);
    }

    /// Delivers what there is, failing for some users. Answers the numbers in the order of the calls.
    fn deliver(log: &mut Log, now: Nanos, failing: &[u64]) -> Vec<u64> {
        let mut calls = Vec::new();
        loop {
            let (_, events) = log.claim(now, |_| false);
            let Some(event) = events.first() else { return calls };
            calls.push(event.number);
            if failing.iter().any(|user| id(*user) == event.id) {
                fail(log, now)
            } else {
                log.delivered(&DeliveryOutcome::Returned, now)
            }
        }
    }

    #[test]
    fn events_come_in_order_and_are_committed() {
        let mut log = log(&[1, 2, 1]);
        assert_eq!(deliver(&mut log, 0, &[]), [1, 2, 3]);
        let commits = log.take_commits(|_| true);
        assert_eq!(commits, [(0, Commit { done: vec![1, 2, 3], ..Commit::default() })]);
        assert!(!log.has_commits(|_| true));
        assert_eq!(log.next(0), None);
    }

    #[test]
    fn an_event_is_as_late_as_it_has_waited() {
        let mut log = Log::default();
        log.set_lease(0, Nanos::MAX);
        log.add_fetched(0, vec![Event { lateness: SECOND, ..event(1, 1, Transition::Offline, 1) }], 5 * SECOND);
        let lateness = |log: &mut Log, now| log.claim(now, |_| false).1.first().map(|event| event.lateness);
        assert_eq!(lateness(&mut log, 7 * SECOND), Some(3 * SECOND));
        fail(&mut log, 7 * SECOND);
        assert_eq!(lateness(&mut log, 9 * SECOND), Some(5 * SECOND), "tried again");
    }

    #[test]
    fn who_fails_waits_and_its_later_events_with_it() {
        let mut log = log(&[1, 2, 1, 3]);
        assert_eq!(deliver(&mut log, 0, &[1]), [1, 2, 4]);
        assert_eq!(log.next(0), Some(SECOND));
        assert_eq!(deliver(&mut log, SECOND - 1, &[]), Vec::<u64>::new());
        assert_eq!(deliver(&mut log, SECOND, &[]), [1, 3]);
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute() {
        assert_eq!([1, 2, 3, 6, 7, 64, 1_000].map(|tries| backoff_after(tries) / SECOND), [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn an_event_that_fails_while_others_succeed_is_given_up_after_five_times() {
        let mut log = log(&[1, 1]);
        let mut now = 0;
        for round in 0..MAX_FAILURES {
            log.add_fetched(0, vec![event(100 + u64::from(round), 2, Transition::Online, 0)], now);
            let calls = deliver(&mut log, now, &[1]);
            assert_eq!(calls.iter().filter(|number| **number == 1).count(), 1, "{calls:?}");
            now += MAX_BACKOFF;
        }
        // The next one of that user has its turn then.
        let commit = log.take_commits(|_| true).remove(0).1;
        assert_eq!(commit.dead, [(1, "no".to_owned())]);
        assert_eq!(commit.failed.first(), Some(&(1, 1, "no".to_owned())));
        assert_eq!(deliver(&mut log, now, &[]), [2]);
    }

    #[test]
    fn nothing_is_given_up_while_every_callback_fails() {
        let users: Vec<u64> = (1..=20).collect();
        let mut log = log(&users);
        let mut calls = 0;
        for minute in 0..100 {
            calls += deliver(&mut log, minute * MAX_BACKOFF, &users).len();
        }
        assert!(calls < 110, "they are not tried one and all: {calls}");
        assert!(log.take_commits(|_| true).iter().all(|(_, commit)| commit.dead.is_empty()));
        let mut delivered = deliver(&mut log, 100 * MAX_BACKOFF, &[]);
        delivered.sort_unstable();
        assert_eq!(delivered, users);
    }

    #[test]
    fn several_go_into_one_call_but_none_twice() {
        let mut log = log(&[1, 2, 1, 2, 3]);
        let mut calls = Vec::new();
        loop {
            let (transition, events) = log.claim(0, |transition| transition == Transition::Online);
            let Some(transition) = transition else { break };
            calls.push((transition, events.iter().map(|event| event.number).collect::<Vec<_>>()));
            log.delivered(&DeliveryOutcome::Returned, 0);
        }
        let (online, offline) = (Transition::Online, Transition::Offline);
        assert_eq!(calls, [(online, vec![1, 2]), (offline, vec![3]), (offline, vec![4]), (online, vec![5])]);
    }

    #[test]
    fn after_a_call_for_several_has_failed_each_is_tried_alone() {
        let mut log = log(&[1, 2, 3]);
        assert_eq!(log.claim(0, |_| true).1.len(), 3);
        fail(&mut log, 0);
        assert_eq!(deliver(&mut log, SECOND, &[2]), [1, 2, 3]);
    }

    #[test]
    fn what_was_not_called_is_next() {
        let mut log = log(&[1, 2]);
        assert_eq!(numbers(&mut log, 0), [1]);
        log.delivered(&DeliveryOutcome::NotCalled, 0);
        assert_eq!(deliver(&mut log, 0, &[]), [1, 2]);
    }

    #[test]
    fn what_was_cut_off_is_tried_again_and_not_counted() {
        let mut log = log(&[1, 2]);
        assert_eq!(numbers(&mut log, 0), [1]);
        log.delivered(&DeliveryOutcome::Interrupted, 0);
        assert_eq!(deliver(&mut log, 0, &[]), [2]);
        assert_eq!(deliver(&mut log, SECOND, &[]), [1]);
        assert_eq!(log.take_commits(|_| true).remove(0).1, Commit { done: vec![2, 1], ..Commit::default() });
    }

    #[test]
    fn no_more_is_fetched_than_may_come_twice() {
        let mut log = log(&(0..MAX_IN_FLIGHT as u64).collect::<Vec<_>>());
        assert_eq!(log.free_slots(), 0);
        deliver(&mut log, 0, &[]);
        assert_eq!(log.free_slots(), 0, "nothing is committed yet");
        let (partition, commit) = log.take_commits(|_| true).remove(0);
        log.not_committed(partition, commit);
        let (_, commit) = log.take_commits(|_| true).remove(0);
        assert_eq!(commit.done.len(), MAX_IN_FLIGHT);
        log.committed(&commit);
        assert!(log.free_slots() > 0);
    }

    #[test]
    fn nothing_is_delivered_when_the_lease_is_over() {
        let mut log = log(&[1]);
        assert_eq!(log.last_fetched(0), 1);
        log.set_lease(0, 10);
        assert_eq!(numbers(&mut log, 10), []);
        log.set_lease(0, 20);
        assert_eq!(numbers(&mut log, 10), [1]);
    }

    #[test]
    fn with_the_lease_everything_is_forgotten() {
        let mut log = log(&[1, 2, 1, 3, 4]);
        deliver(&mut log, 0, &[1]);
        assert_eq!(numbers(&mut log, SECOND), [1]);
        log.forget_partition(0);
        log.delivered(&DeliveryOutcome::Returned, SECOND);
        assert_eq!((log.next(0), log.take_commits(|_| true)), (None, vec![]));
        assert!(log.free_slots() > 0);
    }

    /// Events of users 1 and 2, in partitions 1 and 2.
    fn log_of_two() -> Log {
        let mut log = Log::default();
        for partition in [1, 2] {
            log.set_lease(partition, u64::from(partition) * 10);
            log.add_fetched(partition, vec![event(7, u64::from(partition), Transition::Online, 1)], 0);
        }
        log
    }

    #[test]
    fn a_lease_that_is_over_holds_up_no_other_partition() {
        let mut log = log_of_two();
        let (_, events) = log.claim(15, |_| false);
        assert_eq!(events.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), [id(2)]);
        log.delivered(&DeliveryOutcome::Returned, 15);
        assert_eq!((numbers(&mut log, 15), log.next(15)), (vec![], None));
        log.set_lease(1, 20);
        assert_eq!(log.next(15), Some(0));
        assert_eq!(numbers(&mut log, 15), [7]);
    }

    #[test]
    fn a_lease_is_given_back_when_all_that_was_delivered_is_committed() {
        let mut log = log_of_two();
        assert_eq!(log.claim(0, |_| false).1[0].id, id(1));
        log.drop_undelivered(2);
        assert!(log.is_settled(2) && !log.is_settled(1), "who waits is not delivered, who is called is");
        log.delivered(&DeliveryOutcome::Returned, 0);
        assert!(!log.is_settled(1), "not committed");
        assert_eq!(numbers(&mut log, 0), [], "nobody waits any more");
        let commits = log.take_commits(|partition| partition == 2);
        assert_eq!(commits, []);
        let (_, commit) = log.take_commits(|_| true).remove(0);
        log.committed(&commit);
        assert!(log.is_settled(1));
        log.forget_partition(1);
        assert_eq!((log.leases(), log.free_slots()), (1, MAX_IN_FLIGHT));
    }

    #[test]
    fn a_stall_goes_on_when_another_partition_is_handed_on() {
        let mut log = Log::default();
        (0..6).for_each(|partition| {
            log.set_lease(partition, Nanos::MAX);
            log.add_fetched(partition, vec![event(1, u64::from(partition), Transition::Online, 1)], 0);
        });
        deliver(&mut log, 0, &[0, 1, 2, 3, 4]);
        log.forget_partition(0);
        assert_eq!(numbers(&mut log, 1), [], "every callback fails");
    }
}
