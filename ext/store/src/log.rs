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
pub const AT_ONCE: usize = 256;

/// How often an event may fail, while others succeed, before it is given up.
pub const MOST_FAILURES: u32 = 5;

/// So many failures one after the other, of different events, and every callback is taken to fail.
const FAILURES_OF_ALL: u32 = 5;

/// No more users than these wait for their turn to be tried again; else no new events are fetched.
const MOST_PARKED: usize = 10_000;

const SECOND: Nanos = 1_000_000_000;
const LONGEST_WAIT: Nanos = 60 * SECOND;

/// `first` after the first failure, twice as long after each further one, up to `longest`.
pub(crate) fn backoff(first: Nanos, longest: Nanos, failures: u32) -> Nanos {
    let doublings = failures.saturating_sub(1).min(Nanos::BITS - 1);
    first.saturating_mul(1 << doublings).min(longest)
}

/// How long to wait after so many failures, the first being 1.
fn wait_after(tries: u32) -> Nanos {
    backoff(SECOND, LONGEST_WAIT, tries)
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The callback returned.
    Returned,
    /// It raised, with that message.
    Failed(String),
    /// It was cut off by something that is no error of its own: a signal, an exit.
    Cut,
    /// It was never called.
    NotCalled,
}

/// An event, and what is known of its failures.
#[derive(Clone, Debug)]
struct Item {
    partition: Partition,
    event: Event,
    /// When it was read from the store.
    read_at: Nanos,
    /// How often it was tried here, and how many deliveries had succeeded by the last time.
    tries: u32,
    successes: u64,
}

impl Item {
    /// The event, as late as it is by now.
    fn as_of(&self, now: Nanos) -> Event {
        let lateness = self.event.lateness.saturating_add(now.saturating_sub(self.read_at));
        Event { lateness, ..self.event.clone() }
    }
}

/// A user whose event failed, and everything that has to wait for it.
#[derive(Debug)]
struct Parked {
    until: Nanos,
    items: VecDeque<Item>,
}

type Leases = HashMap<Partition, (Nanos, u64)>;

/// The events that were fetched and are not committed yet.
#[derive(Debug, Default)]
pub(crate) struct Log {
    ready: VecDeque<Item>,
    parked: HashMap<UserId, Parked, RandomState>,
    /// What a callback is being called for.
    called: Vec<Item>,
    commits: HashMap<Partition, Commit>,
    /// Until when we may deliver, and the last event that was fetched.
    leases: Leases,
    /// How many are in `commits`, or are being committed.
    uncommitted: usize,
    successes: u64,
    failures_in_a_row: u32,
    /// While every callback fails: not before that time is one tried.
    stalled_until: Option<Nanos>,
    stalls: u32,
    retries: u64,
}

impl Log {
    /// For how many more events there is room.
    pub(crate) fn room(&self) -> usize {
        if self.parked.len() < MOST_PARKED {
            AT_ONCE.saturating_sub(self.ready.len() + self.called.len() + self.uncommitted)
        } else {
            0
        }
    }

    /// We have the lease of a partition, until then.
    pub(crate) fn leased(&mut self, partition: Partition, until: Nanos) {
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
    pub(crate) fn last(&self, partition: Partition) -> u64 {
        self.leases.get(&partition).map_or(0, |(_, last)| *last)
    }

    /// Adds what was fetched, in order, at `now`.
    pub(crate) fn add(&mut self, partition: Partition, events: Vec<Event>, now: Nanos) {
        if let (Some(lease), Some(event)) = (self.leases.get_mut(&partition), events.last()) {
            lease.1 = event.number;
        }
        for event in events {
            let item = Item { partition, event, read_at: now, tries: 0, successes: 0 };
            self.line_up(item);
        }
    }

    /// Behind the user's earlier events.
    fn line_up(&mut self, item: Item) {
        match self.parked.get_mut(&item.event.id) {
            Some(parked) => parked.items.push_back(item),
            None => self.ready.push_back(item),
        }
    }

    /// Forgets everything of a partition: its lease has gone to somebody else.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.retire(partition);
        self.leases.remove(&partition);
        self.called.retain(|item| item.partition != partition);
        if let Some(commit) = self.commits.remove(&partition) {
            self.uncommitted -= count(&commit);
        }
        if self.leases.is_empty() {
            self.failures_in_a_row = 0;
            self.stalled_until = None;
            self.stalls = 0;
        }
    }

    /// Forgets what of a partition has not been delivered: its lease is about to be given back.
    pub(crate) fn retire(&mut self, partition: Partition) {
        self.ready.retain(|item| item.partition != partition);
        self.parked.retain(|_, parked| {
            parked.items.retain(|item| item.partition != partition);
            !parked.items.is_empty()
        });
    }

    /// Whether nothing of a partition has been delivered of which the store has not been told.
    pub(crate) fn is_clear(&self, partition: Partition) -> bool {
        let is_committed = self.commits.get(&partition).is_none_or(Commit::is_empty);
        is_committed && self.called.iter().all(|item| item.partition != partition)
    }

    /// When somebody can be taken: `Some(0)` now, `None` not before more events come.
    pub(crate) fn next(&self, now: Nanos) -> Option<Nanos> {
        if self.ready.is_empty() && self.parked.is_empty() {
            return None;
        }
        if let Some(until) = self.stalled_until {
            return Some(until.saturating_sub(now));
        }
        if self.first_ready(now).is_some() {
            return Some(0);
        }
        self.parked.values().map(|parked| parked.until.saturating_sub(now)).min()
    }

    /// Takes the next event, or several users' events for one call of an `_all` method if `together` says so for their
    /// transition. Empty when nobody's turn has come. Another call must not come before [`Log::delivered`].
    pub(crate) fn take(
        &mut self,
        now: Nanos,
        together: impl Fn(Transition) -> bool,
    ) -> (Option<Transition>, Vec<Event>) {
        debug_assert!(self.called.is_empty());
        if self.stalled_until.is_some_and(|until| until > now) {
            return (None, Vec::new());
        }
        if let Some(item) = self.take_parked(now) {
            self.called.push(item);
        } else if self.stalled_until.is_some() {
            // One is enough to find out whether callbacks work again.
            let first = self.first_ready(now);
            self.called.extend(first.and_then(|first| self.ready.remove(first)));
        } else {
            self.take_ready(now, together);
        }
        (
            self.called.first().map(|item| item.event.transition),
            self.called.iter().map(|item| item.as_of(now)).collect(),
        )
    }

    /// One who has waited long enough is tried alone: it may be the one because of whom a whole call failed.
    fn take_parked(&mut self, now: Nanos) -> Option<Item> {
        let is_stalled = self.stalled_until.is_some();
        let due = self.parked.iter_mut().filter(|(_, parked)| {
            let is_ours = parked.items.front().is_some_and(|item| is_in_time(&self.leases, item.partition, now));
            is_ours && (is_stalled || parked.until <= now)
        });
        let (_, parked) = due.min_by_key(|(_, parked)| parked.items.front().map(|item| item.event.number))?;
        // In place as long as it is tried, so that later events of the user line up behind it.
        parked.until = Nanos::MAX;
        parked.items.pop_front()
    }

    /// The first whose partition is still ours.
    fn first_ready(&self, now: Nanos) -> Option<usize> {
        self.ready.iter().position(|item| is_in_time(&self.leases, item.partition, now))
    }

    fn take_ready(&mut self, now: Nanos, together: impl Fn(Transition) -> bool) {
        let mut users = HashSet::new();
        while let Some(place) = self.first_ready(now)
            && let Some(item) = self.ready.get(place)
        {
            let (transition, id) = (item.event.transition, &item.event.id);
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
    pub(crate) fn delivered(&mut self, how: &Delivered, now: Nanos) {
        let items = std::mem::take(&mut self.called);
        if items.is_empty() {
            // The lease was lost meanwhile.
            return;
        }
        match how {
            Delivered::Returned => {
                self.successes += items.len() as u64;
                self.failures_in_a_row = 0;
                if self.stalled_until.take().is_some() {
                    self.stalls = 0;
                    // Whatever it was, it is over: nobody need wait any longer.
                    self.parked
                        .values_mut()
                        .filter(|parked| parked.until != Nanos::MAX)
                        .for_each(|parked| parked.until = now);
                }
                for item in items {
                    self.commit(item.partition, |commit| commit.done.push(item.event.number));
                    self.go_on(&item.event.id);
                }
            }
            Delivered::NotCalled => items.into_iter().rev().for_each(|item| self.put_back(item, now)),
            Delivered::Cut => items.into_iter().for_each(|item| {
                let tries = item.tries + 1;
                self.park(Item { tries, ..item }, now);
            }),
            Delivered::Failed(error) => {
                self.retries += 1;
                self.failures_in_a_row += 1;
                if self.stalled_until.is_some() || self.failures_in_a_row >= FAILURES_OF_ALL {
                    self.stalls += 1;
                    self.stalled_until = Some(now.saturating_add(wait_after(self.stalls)));
                }
                items.into_iter().for_each(|item| self.failed(item, error, now));
            }
        }
    }

    fn failed(&mut self, item: Item, error: &str, now: Nanos) {
        let mut item = Item { tries: item.tries + 1, ..item };
        if item.tries == 1 || self.successes > item.successes {
            item.event.failures += 1;
        }
        item.successes = self.successes;
        let number = item.event.number;
        if item.event.failures >= MOST_FAILURES {
            self.commit(item.partition, |commit| commit.dead.push((number, error.to_owned())));
            self.go_on(&item.event.id);
        } else {
            let failures = item.event.failures;
            let commit = self.commits.entry(item.partition).or_default();
            commit.failed.push((number, failures, error.to_owned()));
            self.park(item, now);
        }
    }

    fn commit(&mut self, partition: Partition, add: impl FnOnce(&mut Commit)) {
        add(self.commits.entry(partition).or_default());
        self.uncommitted += 1;
    }

    /// The user's later events need not wait any longer.
    fn go_on(&mut self, id: &UserId) {
        if let Some(parked) = self.parked.remove(id) {
            parked.items.into_iter().rev().for_each(|item| self.ready.push_front(item));
        }
    }

    fn put_back(&mut self, item: Item, now: Nanos) {
        match self.parked.get_mut(&item.event.id) {
            Some(parked) => {
                parked.until = now;
                parked.items.push_front(item);
            }
            None => self.ready.push_front(item),
        }
    }

    /// Has the event and all later ones of its user wait.
    fn park(&mut self, item: Item, now: Nanos) {
        let id = item.event.id.clone();
        let until = now.saturating_add(wait_after(item.tries));
        let parked = self.parked.entry(id.clone()).or_insert_with(|| Parked { until, items: VecDeque::new() });
        parked.until = until;
        parked.items.push_front(item);
        // Those that were fetched already.
        let (later, ready) = std::mem::take(&mut self.ready).into_iter().partition(|item: &Item| item.event.id == id);
        self.ready = ready;
        parked.items.extend::<VecDeque<Item>>(later);
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
fn is_in_time(leases: &Leases, partition: Partition, now: Nanos) -> bool {
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
        log.leased(0, Nanos::MAX);
        let events = users.iter().enumerate().map(|(index, user)| {
            let before = users[..index].iter().filter(|earlier| *earlier == user).count();
            let transition = if before % 2 == 0 { Transition::Online } else { Transition::Offline };
            event(index as u64 + 1, *user, transition, index as i64)
        });
        log.add(0, events.collect(), 0);
        log
    }

    fn numbers(log: &mut Log, now: Nanos) -> Vec<u64> {
        log.take(now, |_| false).1.iter().map(|event| event.number).collect()
    }

    fn fail(log: &mut Log, now: Nanos) {
        log.delivered(&Delivered::Failed("no".into()), now);
    }

    /// Delivers what there is, failing for some users. Answers the numbers in the order of the calls.
    fn deliver(log: &mut Log, now: Nanos, failing: &[u64]) -> Vec<u64> {
        let mut calls = Vec::new();
        loop {
            let (_, events) = log.take(now, |_| false);
            let Some(event) = events.first() else { return calls };
            calls.push(event.number);
            if failing.iter().any(|user| id(*user) == event.id) {
                fail(log, now)
            } else {
                log.delivered(&Delivered::Returned, now)
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
        log.leased(0, Nanos::MAX);
        log.add(0, vec![Event { lateness: SECOND, ..event(1, 1, Transition::Offline, 1) }], 5 * SECOND);
        let lateness = |log: &mut Log, now| log.take(now, |_| false).1.first().map(|event| event.lateness);
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
        assert_eq!([1, 2, 3, 6, 7, 64, 1_000].map(|tries| wait_after(tries) / SECOND), [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn an_event_that_fails_while_others_succeed_is_given_up_after_five_times() {
        let mut log = log(&[1, 1]);
        let mut now = 0;
        for round in 0..MOST_FAILURES {
            log.add(0, vec![event(100 + u64::from(round), 2, Transition::Online, 0)], now);
            let calls = deliver(&mut log, now, &[1]);
            assert_eq!(calls.iter().filter(|number| **number == 1).count(), 1, "{calls:?}");
            now += LONGEST_WAIT;
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
            calls += deliver(&mut log, minute * LONGEST_WAIT, &users).len();
        }
        assert!(calls < 110, "they are not tried one and all: {calls}");
        assert!(log.take_commits(|_| true).iter().all(|(_, commit)| commit.dead.is_empty()));
        let mut delivered = deliver(&mut log, 100 * LONGEST_WAIT, &[]);
        delivered.sort_unstable();
        assert_eq!(delivered, users);
    }

    #[test]
    fn several_go_into_one_call_but_none_twice() {
        let mut log = log(&[1, 2, 1, 2, 3]);
        let mut calls = Vec::new();
        loop {
            let (transition, events) = log.take(0, |transition| transition == Transition::Online);
            let Some(transition) = transition else { break };
            calls.push((transition, events.iter().map(|event| event.number).collect::<Vec<_>>()));
            log.delivered(&Delivered::Returned, 0);
        }
        let (online, offline) = (Transition::Online, Transition::Offline);
        assert_eq!(calls, [(online, vec![1, 2]), (offline, vec![3]), (offline, vec![4]), (online, vec![5])]);
    }

    #[test]
    fn after_a_call_for_several_has_failed_each_is_tried_alone() {
        let mut log = log(&[1, 2, 3]);
        assert_eq!(log.take(0, |_| true).1.len(), 3);
        fail(&mut log, 0);
        assert_eq!(deliver(&mut log, SECOND, &[2]), [1, 2, 3]);
    }

    #[test]
    fn what_was_not_called_is_next() {
        let mut log = log(&[1, 2]);
        assert_eq!(numbers(&mut log, 0), [1]);
        log.delivered(&Delivered::NotCalled, 0);
        assert_eq!(deliver(&mut log, 0, &[]), [1, 2]);
    }

    #[test]
    fn what_was_cut_off_is_tried_again_and_not_counted() {
        let mut log = log(&[1, 2]);
        assert_eq!(numbers(&mut log, 0), [1]);
        log.delivered(&Delivered::Cut, 0);
        assert_eq!(deliver(&mut log, 0, &[]), [2]);
        assert_eq!(deliver(&mut log, SECOND, &[]), [1]);
        assert_eq!(log.take_commits(|_| true).remove(0).1, Commit { done: vec![2, 1], ..Commit::default() });
    }

    #[test]
    fn no_more_is_fetched_than_may_come_twice() {
        let mut log = log(&(0..AT_ONCE as u64).collect::<Vec<_>>());
        assert_eq!(log.room(), 0);
        deliver(&mut log, 0, &[]);
        assert_eq!(log.room(), 0, "nothing is committed yet");
        let (partition, commit) = log.take_commits(|_| true).remove(0);
        log.not_committed(partition, commit);
        let (_, commit) = log.take_commits(|_| true).remove(0);
        assert_eq!(commit.done.len(), AT_ONCE);
        log.committed(&commit);
        assert!(log.room() > 0);
    }

    #[test]
    fn nothing_is_delivered_when_the_lease_is_over() {
        let mut log = log(&[1]);
        assert_eq!(log.last(0), 1);
        log.leased(0, 10);
        assert_eq!(numbers(&mut log, 10), []);
        log.leased(0, 20);
        assert_eq!(numbers(&mut log, 10), [1]);
    }

    #[test]
    fn with_the_lease_everything_is_forgotten() {
        let mut log = log(&[1, 2, 1, 3, 4]);
        deliver(&mut log, 0, &[1]);
        assert_eq!(numbers(&mut log, SECOND), [1]);
        log.forget(0);
        log.delivered(&Delivered::Returned, SECOND);
        assert_eq!((log.next(0), log.take_commits(|_| true)), (None, vec![]));
        assert!(log.room() > 0);
    }

    /// Events of users 1 and 2, in partitions 1 and 2.
    fn log_of_two() -> Log {
        let mut log = Log::default();
        for partition in [1, 2] {
            log.leased(partition, u64::from(partition) * 10);
            log.add(partition, vec![event(7, u64::from(partition), Transition::Online, 1)], 0);
        }
        log
    }

    #[test]
    fn a_lease_that_is_over_holds_up_no_other_partition() {
        let mut log = log_of_two();
        let (_, events) = log.take(15, |_| false);
        assert_eq!(events.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), [id(2)]);
        log.delivered(&Delivered::Returned, 15);
        assert_eq!((numbers(&mut log, 15), log.next(15)), (vec![], None));
        log.leased(1, 20);
        assert_eq!(log.next(15), Some(0));
        assert_eq!(numbers(&mut log, 15), [7]);
    }

    #[test]
    fn a_lease_is_given_back_when_all_that_was_delivered_is_committed() {
        let mut log = log_of_two();
        assert_eq!(log.take(0, |_| false).1[0].id, id(1));
        log.retire(2);
        assert!(log.is_clear(2) && !log.is_clear(1), "who waits is not delivered, who is called is");
        log.delivered(&Delivered::Returned, 0);
        assert!(!log.is_clear(1), "not committed");
        assert_eq!(numbers(&mut log, 0), [], "nobody waits any more");
        let commits = log.take_commits(|partition| partition == 2);
        assert_eq!(commits, []);
        let (_, commit) = log.take_commits(|_| true).remove(0);
        log.committed(&commit);
        assert!(log.is_clear(1));
        log.forget(1);
        assert_eq!((log.leases(), log.room()), (1, AT_ONCE));
    }

    #[test]
    fn a_stall_goes_on_when_another_partition_is_handed_on() {
        let mut log = Log::default();
        (0..6).for_each(|partition| {
            log.leased(partition, Nanos::MAX);
            log.add(partition, vec![event(1, u64::from(partition), Transition::Online, 1)], 0);
        });
        deliver(&mut log, 0, &[0, 1, 2, 3, 4]);
        log.forget(0);
        assert_eq!(numbers(&mut log, 1), [], "every callback fails");
    }
}
