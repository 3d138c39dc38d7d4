//! The order of events, retries, back-off, suspension and leases.

use super::back_off::backoff_after;
use super::*;
use crate::id::Kind;
use online_manager_tracker::Reason;

// Beside this file, since a folder of tests is no part of the gem.
#[path = "failing.rs"]
mod failing;

const SECOND: Nanos = 1_000_000_000;
const MAX_BACKOFF: Nanos = 60 * SECOND;

fn id(user: u64) -> UserId {
    UserId::new(Kind::Integer, user.to_string().as_bytes())
}

fn event(number: u64, user: u64, transition: Transition, version: i64) -> Event {
    let reason = if transition == Transition::Online { Reason::Heartbeat } else { Reason::Timeout };
    Event { number, id: id(user), transition, reason, lateness: 0, seen_ago: 0, version, failures: 0 }
}

/// Returns a log with events of these users, numbered from 1. The first event of each is online.
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

/// Delivers all events that can be claimed, failing for some users. Returns their numbers in the order of the calls.
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
fn events_are_claimed_in_order_and_committed() {
    let mut log = log(&[1, 2, 1]);
    assert_eq!(deliver(&mut log, 0, &[]), [1, 2, 3]);
    let commits = log.take_commits(|_| true);
    assert_eq!(commits, [(0, Commit { done: vec![1, 2, 3], ..Commit::default() })]);
    assert!(!log.has_commits(|_| true));
    assert_eq!(log.next(0), None);
}

#[test]
fn an_events_lateness_and_age_include_its_time_in_the_queue() {
    let mut log = Log::default();
    log.set_lease(0, Nanos::MAX);
    let times = Event { lateness: SECOND, seen_ago: 4 * SECOND, ..event(1, 1, Transition::Offline, 1) };
    log.add_fetched(0, vec![times], 5 * SECOND);
    let ages = |log: &mut Log, now| log.claim(now, |_| false).1.first().map(|event| (event.lateness, event.seen_ago));
    assert_eq!(ages(&mut log, 7 * SECOND), Some((3 * SECOND, 6 * SECOND)));
    fail(&mut log, 7 * SECOND);
    assert_eq!(ages(&mut log, 9 * SECOND), Some((5 * SECOND, 8 * SECOND)), "retried");
}

#[test]
fn a_failed_event_holds_back_the_later_events_of_its_user() {
    let mut log = log(&[1, 2, 1, 3]);
    assert_eq!(deliver(&mut log, 0, &[1]), [1, 2, 4]);
    assert_eq!(log.next(0), Some(SECOND));
    assert_eq!(deliver(&mut log, SECOND - 1, &[]), Vec::<u64>::new());
    assert_eq!(deliver(&mut log, SECOND, &[]), [1, 3]);
}

#[test]
fn the_back_off_doubles_up_to_one_minute() {
    assert_eq!([1, 2, 3, 6, 7, 64, 1_000].map(|tries| backoff_after(tries) / SECOND), [1, 2, 4, 32, 60, 60, 60]);
}

#[test]
fn thousands_of_users_back_off_and_each_is_tried_at_its_time() {
    let mut log = Log::default();
    log.set_lease(0, Nanos::MAX);
    let count = MAX_BACKING_OFF as u64;
    for user in 1..=count {
        // Another user's success in between, so that delivery is not suspended.
        let others = event(count + user, 0, Transition::Online, 1);
        log.add_fetched(0, vec![event(user, user, Transition::Online, 1), others], user);
        assert_eq!(numbers(&mut log, user), [user]);
        fail(&mut log, user);
        assert_eq!(deliver(&mut log, user, &[]), [count + user]);
        log.take_commits(|_| true).into_iter().for_each(|(_, commit)| log.committed(&commit));
        assert_eq!(log.free_slots() > 0, user < count, "{user}: no more are fetched than may back off");
    }
    for user in 1..=count {
        assert_eq!(log.next(user), Some(SECOND), "user {user}");
        assert_eq!(deliver(&mut log, user + SECOND, &[]), [user]);
    }
    assert_eq!(log.next(count), None);
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
    // The later event of that user is next.
    let commit = log.take_commits(|_| true).remove(0).1;
    assert_eq!(commit.dead, [(1, MAX_FAILURES, "no".to_owned())]);
    // The first failure counts as soon as another callback has succeeded.
    let failures: Vec<u32> =
        commit.failed.iter().filter(|(number, ..)| *number == 1).map(|(_, failures, _)| *failures).collect();
    assert_eq!(failures, [0, 2, 3, 4]);
    log.committed(&commit);
    assert_eq!(log.free_slots(), MAX_IN_FLIGHT, "what is done or dead has left, and what backs off does not count");
    assert_eq!(deliver(&mut log, now, &[]), [2]);
}

#[test]
fn a_batch_holds_several_users_but_none_twice() {
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
fn after_a_failed_batch_each_event_is_tried_alone() {
    let mut log = log(&[1, 2, 3]);
    assert_eq!(log.claim(0, |_| true).1.len(), 3);
    fail(&mut log, 0);
    assert_eq!(deliver(&mut log, SECOND, &[2]), [1, 2, 3]);
}

#[test]
fn an_event_whose_callback_was_not_called_is_next() {
    let mut log = log(&[1, 2]);
    assert_eq!(numbers(&mut log, 0), [1]);
    log.delivered(&DeliveryOutcome::NotCalled, 0);
    assert_eq!(deliver(&mut log, 0, &[]), [1, 2]);
}

#[test]
fn an_event_whose_outcome_never_came_is_retried() {
    let mut log = log(&[1, 2]);
    assert_eq!(numbers(&mut log, 0), [1]);
    assert_eq!(numbers(&mut log, 0), [2], "a continuation has left the first callback");
    log.delivered(&DeliveryOutcome::Returned, 0);
    assert_eq!(deliver(&mut log, SECOND, &[]), [1]);
}

#[test]
fn an_interrupted_event_is_retried_and_not_counted_as_a_failure() {
    let mut log = log(&[1, 2]);
    assert_eq!(numbers(&mut log, 0), [1]);
    log.delivered(&DeliveryOutcome::Interrupted, 0);
    assert_eq!(deliver(&mut log, 0, &[]), [2]);
    assert_eq!(deliver(&mut log, SECOND, &[]), [1]);
    assert_eq!(log.take_commits(|_| true).remove(0).1, Commit { done: vec![2, 1], ..Commit::default() });
}

#[test]
fn an_interrupted_event_waits_longer_each_time() {
    let mut log = log(&[1]);
    for (now, wait) in [(0, SECOND), (SECOND, 2 * SECOND)] {
        assert_eq!(numbers(&mut log, now), [1]);
        log.delivered(&DeliveryOutcome::Interrupted, now);
        assert_eq!(log.next(now), Some(wait));
    }
    assert_eq!(log.retries(), 0, "it is not the callback's failure");
}

#[test]
fn each_call_that_fails_is_counted() {
    let mut log = log(&[1, 2]);
    for round in 0..3 {
        numbers(&mut log, round * MAX_BACKOFF);
        fail(&mut log, round * MAX_BACKOFF);
    }
    assert_eq!(log.retries(), 3);
}

/// That failure may have been counted already.
#[test]
fn a_failure_before_any_success_is_not_made_up_for_if_the_event_has_failed_elsewhere() {
    let mut log = Log::default();
    log.set_lease(0, Nanos::MAX);
    log.add_fetched(0, vec![Event { failures: 2, ..event(1, 1, Transition::Online, 1) }], 0);
    numbers(&mut log, 0);
    fail(&mut log, 0);
    log.add_fetched(0, vec![event(2, 2, Transition::Online, 1)], MAX_BACKOFF);
    deliver(&mut log, MAX_BACKOFF, &[1]);
    deliver(&mut log, 3 * MAX_BACKOFF, &[1]);
    let failed = log.take_commits(|_| true).remove(0).1.failed;
    assert_eq!(failed.last().unwrap(), &(1, 3, "no".to_owned()));
}

#[test]
fn a_log_is_busy_in_a_call_and_until_the_store_has_its_outcome() {
    let mut log = log(&[1]);
    let state = |log: &Log| (log.is_calling(), log.has_commits(|_| true), log.is_busy());
    assert_eq!(state(&log), (false, false, false));
    assert_eq!(numbers(&mut log, 0), [1]);
    assert_eq!(state(&log), (true, false, true));
    log.delivered(&DeliveryOutcome::Returned, 0);
    assert_eq!(state(&log), (false, true, true));
    assert!(!log.has_commits(|partition| partition > 0), "another partition is available");
    let (partition, commit) = log.take_commits(|_| true).remove(0);
    assert_eq!(state(&log), (false, false, false));
    log.not_committed(partition, commit);
    assert_eq!(state(&log), (false, true, true));
    log.take_commits(|_| true);
    log.not_committed(partition, Commit::default());
    assert_eq!(state(&log), (false, false, false), "an empty commit is none");
}

#[test]
fn of_a_users_events_in_memory_the_last_one_says_whether_its_offline_is_undelivered() {
    let mut log = log(&[]);
    let transitions =
        [(1, Transition::Offline), (1, Transition::Online), (2, Transition::Online), (2, Transition::Offline)];
    let events = (1..).zip(transitions).map(|(number, (user, transition))| event(number, user, transition, 1));
    log.add_fetched(0, events.collect(), 0);
    let offline = |log: &Log| log.undelivered_offline(0, 0).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(offline(&log), [id(2)]);
    assert_eq!(numbers(&mut log, 0), [1], "the earlier one is in a callback, and the later one waits");
    assert_eq!(offline(&log), [id(2)]);
}

#[test]
fn free_slots_count_uncommitted_events_as_taken() {
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
fn nothing_is_claimed_after_the_lease_has_expired() {
    let mut log = log(&[1]);
    assert_eq!(log.last_fetched(0), 1);
    log.set_lease(0, 10);
    assert_eq!(numbers(&mut log, 10), []);
    log.set_lease(0, 20);
    assert_eq!(numbers(&mut log, 10), [1]);
}

#[test]
fn a_lease_that_has_run_out_is_not_counted_for_an_operator() {
    let mut log = Log::default();
    log.set_lease(0, 5 * SECOND);
    log.set_lease(1, 9 * SECOND);
    assert_eq!([4, 5, 9].map(|second| log.unexpired_leases(second * SECOND)), [2, 1, 0]);
    assert_eq!(log.leases(), 2, "the member asks for both");
}

#[test]
fn a_lost_lease_drops_all_events_and_commits() {
    let mut log = log(&[1, 2, 1, 3, 4]);
    deliver(&mut log, 0, &[1]);
    assert_eq!(numbers(&mut log, SECOND), [1]);
    log.forget_partition(0);
    log.delivered(&DeliveryOutcome::Returned, SECOND);
    assert_eq!((log.next(0), log.take_commits(|_| true)), (None, vec![]));
    assert_eq!(log.free_slots(), MAX_IN_FLIGHT);
}

/// Returns a log with events of users 1 and 2, in partitions 1 and 2.
fn log_of_two_partitions() -> Log {
    let mut log = Log::default();
    for partition in [1, 2] {
        log.set_lease(partition, u64::from(partition) * 10);
        log.add_fetched(partition, vec![event(7, u64::from(partition), Transition::Online, 1)], 0);
    }
    log
}

#[test]
fn an_expired_lease_does_not_block_other_partitions() {
    let mut log = log_of_two_partitions();
    let (_, events) = log.claim(15, |_| false);
    assert_eq!(events.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), [id(2)]);
    log.delivered(&DeliveryOutcome::Returned, 15);
    assert_eq!((numbers(&mut log, 15), log.next(15)), (vec![], None));
    log.set_lease(1, 20);
    assert_eq!(log.next(15), Some(0));
    assert_eq!(numbers(&mut log, 15), [7]);
}

#[test]
fn a_partition_is_settled_when_all_its_deliveries_are_committed() {
    let mut log = log_of_two_partitions();
    assert_eq!(log.claim(0, |_| false).1[0].id, id(1));
    log.set_releasing(2, true);
    assert!(log.is_settled(2) && !log.is_settled(1), "user 2 was waiting, user 1 is in the callback");
    log.delivered(&DeliveryOutcome::Returned, 0);
    assert!(!log.is_settled(1), "not committed");
    assert_eq!(numbers(&mut log, 0), [], "no event waits");
    let commits = log.take_commits(|partition| partition == 2);
    assert_eq!(commits, []);
    let (_, commit) = log.take_commits(|_| true).remove(0);
    log.committed(&commit);
    assert!(log.is_settled(1));
    log.forget_partition(1);
    assert_eq!((log.leases(), log.free_slots()), (1, MAX_IN_FLIGHT - 1));
    log.set_releasing(2, false);
    assert_eq!(numbers(&mut log, 0), [7], "the release was called off, and nothing is lost");
}

/// What a log says of events up to 3 after the lease was lost while the callback of 1 ran.
fn handled_after(outcome: &DeliveryOutcome) -> (Option<Handled>, Vec<Partition>) {
    let mut log = log(&[1, 2, 3]);
    log.polled(0, 5, 0);
    log.add_fetched(0, vec![event(4, 4, Transition::Online, 1)], 0);
    assert_eq!(numbers(&mut log, 0), [1]);
    log.forget_partition(0);
    assert!(log.has_orphan(0) && !log.is_settled(0));
    log.delivered(outcome, 0);
    assert!(!log.has_orphan(0) && log.is_settled(0));
    (log.handled(0), log.take_reports())
}

#[test]
fn an_event_whose_callback_returns_after_the_lease_was_lost_is_reported() {
    let handled = |except| Some(Handled { epoch: 5, through: 4, except });
    assert_eq!(handled_after(&DeliveryOutcome::Returned), (handled(vec![2, 3, 4]), vec![0]));
    assert_eq!(
        handled_after(&DeliveryOutcome::Interrupted),
        (handled(vec![1, 2, 3, 4]), vec![]),
        "it is to be called again"
    );
}

#[test]
fn what_the_store_no_longer_has_is_delivered_by_this_process_or_another_one() {
    let mut log = Log::default();
    assert_eq!(log.handled(0), None);
    log.polled(0, 5, 10);
    assert_eq!(log.handled(0), Some(Handled { epoch: 5, through: 10, except: vec![] }));
    log.polled(0, 5, 8);
    assert_eq!(log.handled(0).map(|handled| handled.through), Some(10), "the data went back");
    log.polled(0, 6, 3);
    assert_eq!(log.handled(0), Some(Handled { epoch: 6, through: 3, except: vec![] }), "these are other data");
}
