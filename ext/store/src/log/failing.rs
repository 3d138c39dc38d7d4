//! Whose events are tried while the callbacks of some users, or all, fail.

use super::*;

#[test]
fn users_whose_callbacks_always_fail_hold_up_nobody_else_and_are_given_up() {
    for bad in [5, 20, 100] {
        let failing: Vec<u64> = (1..=bad).collect();
        let mut log = log(&failing);
        let (mut first, mut calls, mut seconds) = (None, 0, 0..bad + 120);
        for second in &mut seconds {
            log.add_fetched(0, vec![event(1_000 + second, 0, Transition::Online, 1)], second * SECOND);
            let delivered = deliver(&mut log, second * SECOND, &failing);
            first = first.or(delivered.iter().any(|number| *number >= 1_000).then_some(second));
            calls += delivered.iter().filter(|number| **number < 1_000).count() as u64;
        }
        assert!(first.unwrap() <= bad, "a new event is tried each second, and this one in second {first:?}");
        let commit = log.take_commits(|_| true).remove(0).1;
        assert_eq!((commit.dead.len() as u64, commit.done.len() as u64), (bad, seconds.end));
        assert!(calls <= (u64::from(MAX_FAILURES) + 1) * bad, "{calls} calls");
    }
}

/// Perhaps it is what is new that fails.
#[test]
fn what_has_failed_is_tried_again_however_many_new_events_fail() {
    let everybody: Vec<u64> = (1..=200).collect();
    let mut log = log(&everybody);
    (0..3).for_each(|second| drop(deliver(&mut log, second * SECOND, &everybody)));
    let calls: Vec<_> = (3..10).flat_map(|second| deliver(&mut log, second * SECOND, &everybody[5..])).collect();
    assert!(calls.iter().any(|number| *number <= 5), "{calls:?}");
}

#[test]
fn while_every_callback_fails_two_events_a_second_are_tried_at_most() {
    let mut log = log(&(1..=100).collect::<Vec<_>>());
    let mut calls = 0;
    let mut now = 0;
    while now < 60 * SECOND {
        calls += deliver(&mut log, now, &(1..=100).collect::<Vec<_>>()).len();
        now += log.next(now).unwrap().max(1);
    }
    assert!((60..=75).contains(&calls), "{calls} calls in a minute");
}

/// They fail by themselves.
#[test]
fn events_that_have_failed_before_while_others_succeeded_suspend_nothing() {
    let mut log = Log::default();
    log.set_lease(0, Nanos::MAX);
    let failed = |number| Event { failures: 1, ..event(number, number, Transition::Online, 1) };
    log.add_fetched(0, (1..=9).map(failed).collect(), 0);
    log.add_fetched(0, vec![event(10, 10, Transition::Online, 1)], 0);
    assert_eq!(deliver(&mut log, 0, &(1..=9).collect::<Vec<_>>()).last(), Some(&10));
}

#[test]
fn nothing_is_given_up_while_every_callback_fails() {
    let users: Vec<u64> = (1..=20).collect();
    let mut log = log(&users);
    let mut calls = 0;
    for minute in 0..100 {
        calls += deliver(&mut log, minute * MAX_BACKOFF, &users).len();
    }
    assert!(calls < 130, "not every event is tried each minute: {calls}");
    assert!(log.take_commits(|_| true).iter().all(|(_, commit)| commit.dead.is_empty()));
    let mut delivered = deliver(&mut log, 100 * MAX_BACKOFF, &[]);
    delivered.sort_unstable();
    assert_eq!(delivered, users);
}

#[test]
fn nothing_is_given_up_while_every_callback_fails_and_the_lease_comes_and_goes() {
    let mut log = log(&[1]);
    assert_eq!(deliver(&mut log, 0, &[]), [1], "a callback succeeded before");
    log.take_commits(|_| true).iter().for_each(|(_, commit)| log.committed(commit));
    let mut failing = event(2, 2, Transition::Online, 2);
    for _ in 0..2 * MAX_FAILURES {
        log.set_lease(0, Nanos::MAX);
        log.add_fetched(0, vec![failing.clone()], 0);
        assert_eq!(deliver(&mut log, 0, &[2]), [2]);
        let commits = log.take_commits(|_| true);
        let [(0, Commit { failed, dead, .. })] = &commits[..] else { panic!("{commits:?}") };
        assert_eq!(dead, &[]);
        failing.failures = failed[0].1;
        log.forget_partition(0);
    }
    assert_eq!(failing.failures, 0);
}

#[test]
fn a_suspension_outlives_the_loss_of_one_of_several_leases() {
    let mut log = Log::default();
    (0..6).for_each(|partition| {
        log.set_lease(partition, Nanos::MAX);
        log.add_fetched(partition, vec![event(1, u64::from(partition), Transition::Online, 1)], 0);
    });
    deliver(&mut log, 0, &[0, 1, 2, 3, 4]);
    log.forget_partition(0);
    assert_eq!(numbers(&mut log, 1), [], "every callback fails");
}
