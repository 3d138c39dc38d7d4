//! What every store promises (see the trait `Store`), tested with several connections, as several processes have them.
//!
//! Over 400 lines: it is one list of rules, and each store runs all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use online_manager_store::StoreError;
use online_manager_store::id::UserId;
use online_manager_store::store::{
    Commit, Heartbeat, Known, LeaseRequest, LeaseState, Membership, Notice, ORDER_TOLERANCE, PollRequest, PollResult,
    Purpose, Store, Sweep, Write,
};
use online_manager_tracker::{Nanos, Reason, Transition};

mod support;
use support::*;

/// Runs each rule on a store of each kind.
macro_rules! on_every_store {
    ($($rule:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $rule() { super::$rule(&super::Folder::new()) })+
        }
        mod redis {
            $(#[test] fn $rule() { super::$rule(&super::Server::new()) })+
        }
    };
}

on_every_store!(
    only_the_first_heartbeat_is_a_transition,
    a_silent_user_expires_once_and_not_before_the_timeout,
    a_heartbeat_after_the_deadline_and_before_the_sweep_keeps_its_user_online,
    a_shorter_timeout_takes_effect_at_once,
    of_two_heartbeats_without_a_certain_order_the_later_arrival_counts,
    a_late_heartbeat_never_lowers_a_deadline,
    only_a_later_heartbeat_undoes_a_leave,
    an_event_carries_its_reason_its_lateness_and_the_last_heartbeat,
    a_leave_never_postpones_the_deadline,
    nobody_expires_for_one_timeout_after_a_gap_in_the_sweeps,
    versions_grow_even_when_the_data_is_lost,
    versions_grow_above_what_a_member_knew_of_data_that_were_lost_twice,
    a_snapshot_holds_the_age_of_the_last_heartbeat,
    a_lease_is_held_until_it_expires_or_is_released,
    a_lease_is_acquired_anew_after_another_member_has_held_it,
    only_the_lease_holder_reads_events,
    only_the_lease_holder_commits,
    requeued_dead_letters_are_delivered_again_unless_superseded,
    a_dead_letter_is_superseded_by_an_event_that_was_in_the_log_already,
    a_sweep_expires_no_more_users_than_its_limit,
    timeouts_of_any_length_are_kept,
    namespaces_do_not_know_each_other,
    a_leave_of_an_unknown_user_binds_its_earlier_heartbeats,
    of_equal_times_the_leave_counts,
    a_leave_counts_that_seems_a_little_older_than_the_last_heartbeat,
    a_leave_that_is_clearly_older_than_the_last_heartbeat_changes_nothing,
    of_several_leaves_the_soonest_deadline_counts,
    a_heartbeat_that_is_no_longer_good_is_recorded_and_brings_nobody_online,
    a_resent_heartbeat_that_is_no_longer_good_sets_an_unknown_user_offline_once,
    a_resent_heartbeat_counts_though_a_newer_one_that_is_not_resent_is_no_longer_good_either,
    a_resent_heartbeat_that_is_no_longer_good_sets_nobody_offline_whom_another_process_has_seen,
    data_that_went_back_twice_are_replaced_for_a_member_that_saw_it_once,
    a_heartbeat_that_is_nearly_over_brings_nobody_online,
    every_member_hears_of_a_leave,
    a_notice_says_in_how_long_its_user_is_due_and_when_the_user_left,
    every_member_hears_of_an_earlier_leave_that_is_due_sooner,
    every_member_hears_of_a_heartbeat_with_a_timeout_of_less_than_two_thirds_of_the_longest,
    a_user_who_went_offline_is_kept_for_the_longest_timeout_in_use,
    a_renewal_takes_no_lease_that_another_member_has_held,
    a_release_by_another_member_changes_nothing,
    a_member_that_knows_other_data_changes_nothing_but_the_hold,
    after_a_loss_the_deadline_of_who_leaves_is_held_for_a_lease_length_only,
    after_a_gap_the_deadline_of_who_leaves_is_held_for_a_lease_length_only,
    members_hear_of_a_leave_that_is_written_long_after_it,
    the_oldest_event_has_its_age,
    a_user_who_was_set_offline_late_counts_from_its_deadline,
    a_heartbeat_that_only_puts_the_deadline_off_brings_nobody_online,
    a_user_who_was_set_offline_late_does_not_count_for_ever,
    a_summary_has_the_lease_holder_and_the_members,
    a_purge_deletes_everything_unless_a_member_is_registered,
);

/// Returns whether the store says that its data are others, or older.
fn is_replaced(store: &mut dyn Store, membership: &Membership, writes: &[Write]) -> bool {
    let results = store.write(membership, writes);
    let result = results.and_then(|results| results.into_iter().try_for_each(|(_, result)| result.map(|_| ())));
    match result {
        Ok(()) => false,
        Err(StoreError::Replaced(_)) => true,
        Err(error) => panic!("{error:?}"),
    }
}

/// Polls the partition of a user.
fn poll_of(store: &mut dyn Store, name: &str, membership: &Membership, request: PollRequest) -> PollResult {
    let partition = store.partition_of(&user(name));
    store.poll(membership, &[PollRequest { partition, ..request }]).unwrap().remove(0).unwrap()
}

fn is_online(store: &mut dyn Store, name: &str) -> bool {
    ago(store, name).is_some()
}

fn came_and_left(name: &str) -> Vec<(String, Transition)> {
    vec![(name.to_owned(), Transition::Online), (name.to_owned(), Transition::Offline)]
}

/// Returns how long ago a user was last seen.
fn ago(store: &mut dyn Store, name: &str) -> Option<Nanos> {
    store.snapshot().unwrap().users.get(&user(name)).copied()
}

fn only_the_first_heartbeat_is_a_transition(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    write(&mut *one, &[heartbeat("ada", 0, MINUTE)]);
    write(&mut *other, &[heartbeat("ada", 0, MINUTE), heartbeat("bob", 0, MINUTE)]);
    assert_eq!(events(&mut *one), [("ada".to_owned(), Transition::Online), ("bob".to_owned(), Transition::Online)]);
    assert_eq!(one.snapshot().unwrap().users.len(), 2);
}

fn a_silent_user_expires_once_and_not_before_the_timeout(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    sweep(&mut *one);
    write(&mut *one, &[heartbeat("ada", 0, 1_000 * MILLISECOND), heartbeat("bob", 0, MINUTE)]);
    let Sweep { expired, next, .. } = sweep(&mut *one);
    assert_eq!(expired, 0);
    // A store may keep deadlines in milliseconds.
    assert!(next.unwrap() <= 1_002 * MILLISECOND);
    thread::sleep(Duration::from_millis(1_010));
    assert_eq!([sweep(&mut *one).expired, sweep(&mut *other).expired], [1, 0]);
    assert_eq!(events(&mut *one)[2..], came_and_left("ada")[1..]);
}

fn a_heartbeat_after_the_deadline_and_before_the_sweep_keeps_its_user_online(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &soon_due("ada", 10 * MILLISECOND));
    thread::sleep(Duration::from_millis(20));
    write(&mut *store, &[heartbeat("ada", 0, 1_000 * MILLISECOND)]);
    let Sweep { expired, next, .. } = sweep(&mut *store);
    assert_eq!(expired, 0);
    assert!((1..=1_002 * MILLISECOND).contains(&next.unwrap()));
    thread::sleep(Duration::from_millis(1_010));
    assert_eq!(sweep(&mut *store).expired, 1);
}

fn a_shorter_timeout_takes_effect_at_once(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    thread::sleep(Duration::from_millis(2));
    write(&mut *store, &[heartbeat("ada", 0, MILLISECOND)]);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut *store).expired, 1);
}

fn of_two_heartbeats_without_a_certain_order_the_later_arrival_counts(place: &dyn Place) {
    let mut store = place.open();
    let tie = ORDER_TOLERANCE / 2;
    write(&mut *store, &[heartbeat("short then long", 0, 100 * MILLISECOND), heartbeat("long then short", 0, MINUTE)]);
    write(&mut *store, &[heartbeat("short then long", tie, MINUTE)]);
    write(&mut *store, &[heartbeat("long then short", tie, 100 * MILLISECOND)]);
    thread::sleep(Duration::from_millis(250));
    sweep(&mut *store);
    assert!(is_online(&mut *store, "short then long"));
    assert!(!is_online(&mut *store, "long then short"));
}

fn a_late_heartbeat_never_lowers_a_deadline(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    write(&mut *store, &[heartbeat("ada", MINUTE, MILLISECOND)]);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut *store).expired, 0);
}

fn only_a_later_heartbeat_undoes_a_leave(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let names = ["early", "late", "none", "later"];
    let heartbeats = names.map(|name| heartbeat(name, 9_000 * MILLISECOND, MINUTE));
    write(&mut *store, &heartbeats);
    let leaves = names.map(|name| leave(name, 5_000 * MILLISECOND, if name == "later" { MINUTE / 2 } else { 0 }));
    write(&mut *store, &leaves);
    // A heartbeat before the leave, from a process that did not know of it; and one after it.
    write(
        &mut *store,
        &[heartbeat("early", 6_000 * MILLISECOND, MINUTE), heartbeat("late", 3_000 * MILLISECOND, MINUTE)],
    );
    // A leave right after a heartbeat counts.
    write(&mut *store, &[heartbeat("ada", 1_000 * MILLISECOND, MINUTE), leave("ada", 1_000 * MILLISECOND, 0)]);
    write(&mut *store, &[heartbeat("bob", 1_000 * MILLISECOND, MINUTE)]);
    write(&mut *store, &[leave("bob", 1_000 * MILLISECOND, 0)]);
    assert_eq!(sweep(&mut *store).expired, 4);
    let expected: Vec<_> = [user("late"), user("later")].into();
    let mut online: Vec<_> = store.snapshot().unwrap().users.into_keys().collect();
    online.sort();
    assert_eq!(online, expected);
    // A heartbeat from before the leave does not set a user online who is offline already.
    write(&mut *store, &[heartbeat("early", 6_000 * MILLISECOND, MINUTE)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 2);
    write(&mut *store, &[heartbeat("early", 0, MINUTE)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 3);
}

fn an_event_carries_its_reason_its_lateness_and_the_last_heartbeat(place: &dyn Place) {
    let mut store = place.open();
    let reasons = |store: &mut dyn Store| -> Vec<_> {
        let mut reasons: Vec<_> = undelivered(store)
            .iter()
            .map(|event| {
                let minutes = (event.lateness / MINUTE, event.seen_ago / MINUTE);
                (name(&event.id), event.transition == Transition::Offline, event.reason, minutes)
            })
            .collect();
        reasons.sort_by_key(|(name, is_offline, ..)| (*is_offline, name.clone()));
        reasons.into_iter().map(|(_, _, reason, (late, seen_ago))| (reason, late, seen_ago)).collect()
    };
    sweep(&mut *store);
    // Ada is silent; Bob leaves; Cy leaves, and a heartbeat undoes it.
    write(&mut *store, &[heartbeat("ada", 4 * MINUTE, 10 * MINUTE), heartbeat("ada", 3 * MINUTE, MINUTE)]);
    write(&mut *store, &[heartbeat("bob", 3 * MINUTE, 10 * MINUTE), leave("bob", 2 * MINUTE, MINUTE)]);
    write(
        &mut *store,
        &[heartbeat("cy", 5 * MINUTE, 9 * MINUTE), leave("cy", 5 * MINUTE, 0), heartbeat("cy", 4 * MINUTE, MINUTE)],
    );
    assert_eq!(sweep(&mut *store).expired, 3);
    // A store may keep deadlines in milliseconds, rounded up.
    thread::sleep(Duration::from_millis(5));
    let online = [4, 3, 5].map(|minutes| (Reason::Heartbeat, minutes, minutes));
    let offline = [(Reason::Timeout, 2, 3), (Reason::Leave, 1, 3), (Reason::Timeout, 3, 4)];
    assert_eq!(reasons(&mut *store), [&online[..], &offline[..]].concat());

    // A dead letter keeps all three.
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let left = undelivered(&mut *store).into_iter().rfind(|event| event.id == user("bob")).unwrap();
    assert!(commit(&mut *store, MEMBER_A, &[(&left, Outcome::Dead)]));
    assert_eq!(store.dead_letters().unwrap()[0].event.reason, Reason::Leave);
    assert_eq!(store.dead_letters().unwrap()[0].event.seen_ago / MINUTE, 3);
    assert_eq!(store.requeue_dead_letters().unwrap(), (1, 0));
    assert_eq!(reasons(&mut *store)[4], (Reason::Leave, 1, 3));
}

fn a_leave_never_postpones_the_deadline(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &soon_due("ada", MILLISECOND));
    write(&mut *store, &[leave("ada", 0, MINUTE)]);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut *store).expired, 1);
}

fn nobody_expires_for_one_timeout_after_a_gap_in_the_sweeps(place: &dyn Place) {
    let mut store = place.open();
    let timeout = 1_000 * MILLISECOND;
    let mut sweep = || {
        let Sweep { expired, next, .. } = sweep_for(&mut *store, timeout);
        (expired, next)
    };
    sweep();
    let mut other = place.open();
    write(&mut *other, &[heartbeat("ada", 0, timeout), heartbeat("ada", 0, 50 * MILLISECOND)]);
    thread::sleep(Duration::from_millis(600));
    let held_at = Instant::now();
    let (expired, next) = sweep();
    assert_eq!(expired, 0, "held");
    assert!((timeout - MILLISECOND..=timeout + 2 * MILLISECOND).contains(&next.unwrap()), "{next:?}");
    while sweep().0 == 0 {
        thread::sleep(Duration::from_millis(10));
        assert!(held_at.elapsed() < Duration::from_secs(30), "held for ever");
    }
    // The store's clock has steps of up to 10 ms, so that its hold may have begun before `held_at`.
    let least = Duration::from_nanos(timeout - 10 * MILLISECOND);
    assert!(held_at.elapsed() >= least, "held for {:?} only", held_at.elapsed());
}

fn versions_grow_even_when_the_data_is_lost(place: &dyn Place) {
    let mut store = place.open();
    let version = |store: &mut dyn Store| undelivered(store).last().unwrap().version;
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let first = version(&mut *store);
    write(&mut *store, &[leave("ada", 0, 0)]);
    thread::sleep(Duration::from_millis(2));
    sweep(&mut *store);
    let second = version(&mut *store);
    assert!(second > first);
    let before = knowing(&mut *store, MEMBER_A, MINUTE);
    place.lose();
    assert!(is_replaced(&mut *store, &before, &[heartbeat("ada", 0, MINUTE)]));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert!(version(&mut *store) > second);
}

fn versions_grow_above_what_a_member_knew_of_data_that_were_lost_twice(place: &dyn Place) {
    let mut store = place.open();
    let day = 86_400_000_000;
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let last = undelivered(&mut *store).last().unwrap().version as u64 + day;
    place.lose();
    let known = vec![Known { last, ..Known::default() }; usize::from(store.partitions())];
    let membership = Membership { known, ..membership(MEMBER_A, MINUTE) };
    assert!(!is_replaced(&mut *store, &membership, &[heartbeat("ada", 0, MINUTE)]));
    assert!(undelivered(&mut *store).last().unwrap().version > last as i64);
}

fn a_snapshot_holds_the_age_of_the_last_heartbeat(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let heartbeats = [heartbeat("ada", 5_000 * MILLISECOND, MINUTE), heartbeat("bob", 7_000 * MILLISECOND, 2 * MINUTE)];
    write(&mut *store, &heartbeats);
    write(&mut *store, &[leave("bob", 0, MINUTE), heartbeat("ada", 6_000 * MILLISECOND, MINUTE)]);
    for (name, seconds) in [("ada", 5), ("bob", 7)] {
        let ago = ago(&mut *store, name).unwrap();
        // A store may keep deadlines in milliseconds, rounded up.
        assert!((seconds * 1_000 - 1..seconds * 1_000 + 900).contains(&(ago / MILLISECOND)), "{name}: {ago}");
    }
    assert_eq!(ago(&mut *store, "cy"), None);
}

fn a_lease_is_held_until_it_expires_or_is_released(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    assert!(acquire(&mut *one, MEMBER_A, MINUTE));
    assert!(!acquire(&mut *other, MEMBER_B, MINUTE));
    assert!(acquire(&mut *one, MEMBER_A, MILLISECOND), "renewed");
    thread::sleep(Duration::from_millis(20));
    assert!(acquire(&mut *other, MEMBER_B, MINUTE));
    assert!(!acquire(&mut *one, MEMBER_A, MINUTE));
    release(&mut *one, MEMBER_A);
    assert!(!acquire(&mut *one, MEMBER_A, MINUTE), "another member held it");
    release(&mut *other, MEMBER_B);
    assert!(acquire(&mut *one, MEMBER_A, MINUTE));
}

fn a_lease_is_acquired_anew_after_another_member_has_held_it(place: &dyn Place) {
    let mut store = place.open();
    let mut ask = |token, request| {
        poll_all(&mut *store, &membership(token, MINUTE), PollRequest { lease: request, ..EMPTY_POLL })[0].lease
    };
    assert_eq!(ask(MEMBER_A, LeaseRequest::None), LeaseState::Free);
    assert_eq!(
        [ask(MEMBER_A, LeaseRequest::Acquire), ask(MEMBER_A, LeaseRequest::Renew), ask(MEMBER_A, LeaseRequest::None)],
        [LeaseState::Acquired, LeaseState::Renewed, LeaseState::Renewed]
    );
    assert_eq!(
        [ask(MEMBER_B, LeaseRequest::None), ask(MEMBER_B, LeaseRequest::Acquire)],
        [LeaseState::HeldByOther, LeaseState::HeldByOther]
    );
    assert_eq!(
        [
            ask(MEMBER_A, LeaseRequest::Release),
            ask(MEMBER_B, LeaseRequest::Acquire),
            ask(MEMBER_B, LeaseRequest::Release)
        ],
        [LeaseState::Free, LeaseState::Acquired, LeaseState::Free]
    );
    assert_eq!(ask(MEMBER_A, LeaseRequest::Acquire), LeaseState::Acquired);
}

fn only_the_lease_holder_reads_events(place: &dyn Place) {
    let mut store = place.open();
    let names = neighbours(&*store, 3);
    write(&mut *store, &names.iter().map(|name| heartbeat(name, 0, MINUTE)).collect::<Vec<_>>());
    let partition = store.partition_of(&user(&names[0]));
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let mut read = |token, after, limit| {
        let request = PollRequest { partition, events: Some((after, limit)), ..EMPTY_POLL };
        let result = store.poll(&membership(token, MINUTE), &[request]).unwrap().remove(0).unwrap();
        result.events.iter().map(|event| event.number).collect::<Vec<_>>()
    };
    let all = read(MEMBER_A, 0, 10);
    assert_eq!(all.len(), 3);
    assert_eq!(read(MEMBER_A, 0, 2), all[..2]);
    assert_eq!(read(MEMBER_A, all[0], 10), all[1..]);
    assert_eq!(read(MEMBER_B, 0, 10), []);
}

fn only_the_lease_holder_commits(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    write(&mut *one, &[heartbeat("ada", 0, MINUTE), heartbeat("bob", 0, MINUTE), heartbeat("eve", 0, MINUTE)]);
    let all = undelivered(&mut *one);
    let by_name = |wanted: &str| all.iter().find(|event| name(&event.id) == wanted).unwrap();
    let outcomes =
        || [(by_name("ada"), Outcome::Done), (by_name("bob"), Outcome::Failed(2)), (by_name("eve"), Outcome::Dead)];
    assert!(acquire(&mut *one, MEMBER_A, MINUTE));
    assert!(!commit(&mut *other, MEMBER_B, &outcomes()));
    assert_eq!(events(&mut *one).len(), 3);
    assert!(commit(&mut *one, MEMBER_A, &outcomes()));
    let left = undelivered(&mut *other);
    assert_eq!((left.len(), &left[0].id, left[0].failures), (1, &user("bob"), 2));
    let letters = other.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].error.as_str(), letters[0].is_superseded), (1, "never", false));
    assert_eq!(letters[0].event.failures, 1, "the failure that made it a dead letter counts");
    let snapshot = other.snapshot().unwrap();
    assert_eq!((snapshot.undelivered_events, snapshot.dead_letters), (1, 1));
}

fn requeued_dead_letters_are_delivered_again_unless_superseded(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), heartbeat("bob", 0, MINUTE)]);
    let dead = undelivered(&mut *store);
    assert!(commit(&mut *store, MEMBER_A, &dead.iter().map(|event| (event, Outcome::Dead)).collect::<Vec<_>>()));
    write(&mut *store, &[leave("ada", 0, 0)]);
    thread::sleep(Duration::from_millis(2));
    sweep(&mut *store);
    assert_eq!(store.requeue_dead_letters().unwrap(), (1, 1));
    let mut left: Vec<_> = undelivered(&mut *store).iter().map(|event| (event.id.clone(), event.version)).collect();
    left.sort();
    let of_bob = dead.iter().find(|event| event.id == user("bob")).unwrap();
    assert_eq!((left.len(), &left[0].0), (2, &user("ada")));
    assert_eq!(left[1], (user("bob"), of_bob.version));
    assert_eq!(store.dead_letters().unwrap(), []);
}

fn a_dead_letter_is_superseded_by_an_event_that_was_in_the_log_already(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    write(&mut *store, &[heartbeat("ada", MINUTE / 2, MINUTE), leave("ada", MINUTE / 4, 0)]);
    sweep(&mut *store);
    let all = undelivered(&mut *store);
    // Even if the later one is committed in the same step.
    assert!(commit(&mut *store, MEMBER_A, &[(&all[0], Outcome::Dead), (&all[1], Outcome::Done)]));
    assert!(store.dead_letters().unwrap()[0].is_superseded);
    assert_eq!(store.requeue_dead_letters().unwrap(), (0, 1));
    assert_eq!(events(&mut *store), []);
}

fn a_sweep_expires_no_more_users_than_its_limit(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let names = neighbours(&*store, 600);
    names.chunks(200).for_each(|chunk| {
        write(&mut *store, &chunk.iter().map(|name| heartbeat(name, 0, MINUTE)).collect::<Vec<_>>());
        write(&mut *store, &chunk.iter().map(|name| leave(name, 0, 0)).collect::<Vec<_>>());
    });
    thread::sleep(Duration::from_millis(5));
    let partition = store.partition_of(&user(&names[0]));
    let mut steps = Vec::new();
    while steps.last() != Some(&0) {
        let request = PollRequest { partition, sweep: Some(256), ..EMPTY_POLL };
        steps.push(
            store.poll(&membership(MEMBER_A, MINUTE), &[request]).unwrap().remove(0).unwrap().sweep.unwrap().expired,
        );
    }
    assert_eq!(steps, [256, 256, 88, 0]);
    assert_eq!(events(&mut *store).len(), 1_200);
}

fn timeouts_of_any_length_are_kept(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    // More different timeouts than the Redis store has classes, and the longest possible one. A store may keep times in
    // milliseconds, rounded up.
    let names = neighbours(&*store, 1_100);
    let heartbeats: Vec<_> =
        (1..).zip(&names).map(|(n, name)| heartbeat(name, 1_001 * MILLISECOND, MINUTE + n * MILLISECOND)).collect();
    heartbeats.chunks(200).for_each(|chunk| write(&mut *store, chunk));
    write(&mut *store, &[heartbeat("for ever", 1_001 * MILLISECOND, Nanos::MAX)]);
    assert_eq!(sweep(&mut *store).expired, 0);
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.users.len(), 1_101);
    let implausible: Vec<_> =
        snapshot.users.values().filter(|ago| !(1..30).contains(&(*ago / (1_000 * MILLISECOND)))).collect();
    assert!(implausible.is_empty(), "{implausible:?}");
    let leaves: Vec<_> = names.iter().map(|name| leave(name, 0, 0)).collect();
    leaves.chunks(200).for_each(|chunk| write(&mut *store, chunk));
    let mut gone = 0;
    while gone < 1_100 {
        gone += sweep(&mut *store).expired;
    }
}

fn namespaces_do_not_know_each_other(place: &dyn Place) {
    let (mut one, mut other) = (place.try_open("one").unwrap(), place.try_open("other").unwrap());
    write(&mut *one, &[heartbeat("ada", 0, MINUTE)]);
    assert!(acquire(&mut *one, MEMBER_A, MINUTE) && acquire(&mut *other, MEMBER_B, MINUTE));
    assert_eq!(events(&mut *other), []);
    assert_eq!(other.snapshot().unwrap().users.len(), 0);
    assert_eq!(sweep(&mut *other).next, None);
}

fn a_leave_of_an_unknown_user_binds_its_earlier_heartbeats(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &[leave("ada", 5_000 * MILLISECOND, 0), leave("bob", 5_000 * MILLISECOND, MINUTE)]);
    write(
        &mut *store,
        &[heartbeat("ada", 9_000 * MILLISECOND, MINUTE), heartbeat("bob", 9_000 * MILLISECOND, 2 * MINUTE)],
    );
    assert_eq!([is_online(&mut *store, "ada"), is_online(&mut *store, "bob")], [false, true]);
    assert!(sweep(&mut *store).next.unwrap() < MINUTE);
    write(&mut *store, &[heartbeat("ada", 1_000 * MILLISECOND, MINUTE)]);
    assert!(is_online(&mut *store, "ada"));
}

fn of_equal_times_the_leave_counts(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), leave("ada", 0, 0)]);
    write(&mut *store, &[leave("bob", 0, 0), heartbeat("bob", 0, MINUTE)]);
    assert_eq!([is_online(&mut *store, "ada"), is_online(&mut *store, "bob")], [true, false]);
    thread::sleep(Duration::from_millis(10));
    assert_eq!(sweep(&mut *store).expired, 1);
    assert_eq!([is_online(&mut *store, "ada"), is_online(&mut *store, "bob")], [false, false]);
}

fn a_leave_counts_that_seems_a_little_older_than_the_last_heartbeat(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    sweep(&mut *one);
    write(&mut *one, &[heartbeat("ada", 0, MINUTE)]);
    write(&mut *other, &[leave("ada", ORDER_TOLERANCE, 0)]);
    // In one call, so that no time passes: the whole tolerance.
    let age = ORDER_TOLERANCE + MILLISECOND;
    write(&mut *one, &[heartbeat("bob", MILLISECOND, MINUTE), leave("bob", age, 0)]);
    write(&mut *one, &[heartbeat("cy", MILLISECOND, MINUTE), leave("cy", age, 0), heartbeat("cy", 0, MINUTE)]);
    assert_eq!(sweep(&mut *one).expired, 2);
    assert_eq!(["ada", "bob", "cy"].map(|name| is_online(&mut *one, name)), [false, false, true]);
    write(&mut *one, &[heartbeat("bob", 0, MINUTE)]);
    assert!(is_online(&mut *one, "bob"), "a later heartbeat");
}

fn a_leave_that_is_clearly_older_than_the_last_heartbeat_changes_nothing(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let age = ORDER_TOLERANCE + 2 * MILLISECOND;
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), leave("ada", age, 0)]);
    // A leave that is written again after an outage, with the heartbeats of other processes.
    write(&mut *store, &[heartbeat("bob", 9_000 * MILLISECOND, MINUTE), leave("bob", 5_000 * MILLISECOND, 0)]);
    write(&mut *store, &[heartbeat("bob", 1_000 * MILLISECOND, MINUTE)]);
    write(&mut *store, &[heartbeat("bob", 9_000 * MILLISECOND, MINUTE), leave("bob", 5_000 * MILLISECOND, 0)]);
    assert_eq!(sweep(&mut *store).expired, 0);
    assert_eq!(["ada", "bob"].map(|name| is_online(&mut *store, name)), [true, true]);
}

fn of_several_leaves_the_soonest_deadline_counts(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let names = ["ada", "bob", "cy", "dan"];
    // Nobody's heartbeat is known yet but Bob's.
    write(&mut *store, &[heartbeat("bob", 9_500 * MILLISECOND, MINUTE)]);
    write(&mut *store, &names.map(|name| leave(name, 5_000 * MILLISECOND, if name == "cy" { MINUTE } else { 0 })));
    write(&mut *store, &names.map(|name| leave(name, 4_000 * MILLISECOND, if name == "cy" { 0 } else { MINUTE / 2 })));
    // Dan comes back, and leaves again: the first leave is over.
    write(&mut *store, &[heartbeat("dan", 3_000 * MILLISECOND, MINUTE), leave("dan", 2_000 * MILLISECOND, MINUTE / 2)]);
    write(&mut *store, &names.map(|name| heartbeat(name, 9_000 * MILLISECOND, MINUTE)));
    assert_eq!(sweep(&mut *store).expired, 1);
    assert_eq!(names.map(|name| is_online(&mut *store, name)), [false, false, false, true]);
    let next = sweep(&mut *store).next.unwrap();
    assert!(next < MINUTE / 2, "{next}");
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert!(is_online(&mut *store, "ada"), "a later heartbeat");
}

fn a_heartbeat_that_is_no_longer_good_is_recorded_and_brings_nobody_online(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", MINUTE, MINUTE / 2)]);
    assert_eq!(events(&mut *store), []);
    write(&mut *store, &[heartbeat("ada", 2 * MINUTE, 10 * MINUTE)]);
    assert_eq!(events(&mut *store), [], "an older heartbeat with a longer timeout");
}

fn a_resent_heartbeat_that_is_no_longer_good_sets_an_unknown_user_offline_once(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let resend = || {
        Write::Heartbeat(Heartbeat { id: user("ada"), age: MINUTE / 2, timeout: MINUTE / 4, purpose: Purpose::Resend })
    };
    write(&mut *store, &[resend()]);
    assert_eq!(events(&mut *store), []);
    assert_eq!(sweep(&mut *store).expired, 1);
    assert_eq!(events(&mut *store), [("ada".to_owned(), Transition::Offline)]);
    write(&mut *store, &[resend()]);
    assert_eq!(sweep(&mut *store).expired, 0);
}

fn a_resent_heartbeat_counts_though_a_newer_one_that_is_not_resent_is_no_longer_good_either(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    // A process that started after the loss does not know that there was one.
    write(&mut *store, &[heartbeat("ada", MINUTE / 3, MINUTE / 4)]);
    let resend = Heartbeat { id: user("ada"), age: MINUTE / 2, timeout: MINUTE / 4, purpose: Purpose::Resend };
    write(&mut *store, &[Write::Heartbeat(resend)]);
    assert_eq!(sweep(&mut *store).expired, 1);
    assert_eq!(events(&mut *store), [("ada".to_owned(), Transition::Offline)]);
}

fn a_resent_heartbeat_that_is_no_longer_good_sets_nobody_offline_whom_another_process_has_seen(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let resend = Heartbeat { id: user("ada"), age: MINUTE / 2, timeout: MINUTE / 4, purpose: Purpose::Resend };
    write(&mut *store, &[Write::Heartbeat(resend), heartbeat("ada", 0, MINUTE)]);
    assert_eq!(sweep(&mut *store).expired, 0);
    assert_eq!(
        events(&mut *store),
        [("ada".to_owned(), Transition::Online)],
        "perhaps the application knows an offline"
    );
}

fn data_that_went_back_twice_are_replaced_for_a_member_that_saw_it_once(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let mut known = knowing(&mut *store, MEMBER_A, MINUTE);
    // As after the first time, which the data have forgotten.
    known.known.iter_mut().for_each(|known| known.generation += 1);
    assert!(is_replaced(&mut *store, &known, &[heartbeat("ada", 0, MINUTE)]));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let known = knowing(&mut *store, MEMBER_A, MINUTE).known(store.partition_of(&user("ada")));
    assert!(known.generation > known.epoch, "it is neither the forgotten one nor the first");
    assert_eq!(events(&mut *store).len(), 2, "ada comes online again");
}

fn a_heartbeat_that_is_nearly_over_brings_nobody_online(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &[heartbeat("ada", MINUTE - 10 * MILLISECOND, MINUTE)]);
    write(&mut *store, &[heartbeat("bob", MINUTE - 10_000 * MILLISECOND, MINUTE)]);
    assert_eq!(events(&mut *store), [("bob".to_owned(), Transition::Online)]);
}

fn every_member_hears_of_a_leave(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    write(&mut *one, &[leave("ada", 0, 0)]);
    let asking = |after| PollRequest { notices_after: Some(after), ..EMPTY_POLL };
    let first = poll_of(&mut *other, "ada", &membership(MEMBER_B, MINUTE), asking(0));
    assert_eq!(heard(&first), [user("ada")]);
    assert_eq!(poll_of(&mut *other, "ada", &membership(MEMBER_B, MINUTE), EMPTY_POLL).notices, []);
    let second = poll_of(&mut *other, "ada", &membership(MEMBER_B, MINUTE), asking(first.notices_until));
    assert_eq!(second.notices, []);
    write(&mut *one, &[heartbeat("ada", 0, MINUTE)]);
    write(&mut *one, &[leave("ada", 0, 0)]);
    let third = poll_of(&mut *other, "ada", &membership(MEMBER_B, MINUTE), asking(second.notices_until));
    assert_eq!(heard(&third), [user("ada")]);
    assert!(third.notices_until > first.notices_until);
}

fn heard(result: &PollResult) -> Vec<UserId> {
    result.notices.iter().map(|notice| notice.id.clone()).collect()
}

fn a_notice_says_in_how_long_its_user_is_due_and_when_the_user_left(place: &dyn Place) {
    let mut store = place.open();
    let (member, near) = (membership(MEMBER_B, MINUTE), |one: Nanos, other: Nanos| one.abs_diff(other) < MINUTE / 6);
    let mut notice = |writes: &[Write]| {
        write(&mut *store, writes);
        let asking = PollRequest { notices_after: Some(0), ..EMPTY_POLL };
        poll_of(&mut *store, "ada", &member, asking).notices.pop().unwrap()
    };
    let Notice { due, left, .. } = notice(&[heartbeat("ada", 0, 2 * MINUTE), leave("ada", 0, MINUTE)]);
    let (ago, after) = left.unwrap();
    assert!(near(due, MINUTE) && near(ago, 0) && near(after, MINUTE), "{due} {ago} {after}");
    thread::sleep(Duration::from_millis(35));
    let Notice { due, left, .. } = notice(&[heartbeat("ada", 0, 3 * MINUTE)]);
    assert!(near(due, 3 * MINUTE) && left.is_none(), "a heartbeat has undone it: {due} {left:?}");
    let Notice { due, left, .. } = notice(&[leave("ada", 0, 0)]);
    assert!(due < 2 * MILLISECOND && near(left.unwrap().0, 0) && left.unwrap().1 == 0, "{due} {left:?}");
}

fn every_member_hears_of_an_earlier_leave_that_is_due_sooner(place: &dyn Place) {
    let mut store = place.open();
    let member = membership(MEMBER_B, MINUTE);
    let mut afters = |writes: &[Write]| -> Vec<Nanos> {
        write(&mut *store, writes);
        let asking = PollRequest { notices_after: Some(0), ..EMPTY_POLL };
        let notices = poll_of(&mut *store, "ada", &member, asking).notices;
        notices.iter().map(|notice| notice.left.unwrap().1).collect()
    };
    assert_eq!(afters(&[heartbeat("ada", 2_000 * MILLISECOND, MINUTE), leave("ada", 0, 50 * MINUTE)]).len(), 1);
    let afters = afters(&[leave("ada", 1_000 * MILLISECOND, 0), leave("ada", 1_000 * MILLISECOND, 50 * MINUTE)]);
    assert_eq!(afters, [0, 0], "of the later one nobody has to hear");
}

fn every_member_hears_of_a_heartbeat_with_a_timeout_of_less_than_two_thirds_of_the_longest(place: &dyn Place) {
    let mut store = place.open();
    let member = membership(MEMBER_B, MINUTE);
    let mut count = |writes: &[Write]| {
        write(&mut *store, writes);
        poll_of(&mut *store, "ada", &member, PollRequest { notices_after: Some(0), ..EMPTY_POLL }).notices.len()
    };
    assert_eq!(count(&[heartbeat("ada", 0, 30 * MINUTE)]), 0);
    assert_eq!(count(&[heartbeat("ada", 0, 20 * MINUTE)]), 0, "the others write in time");
    assert_eq!(count(&[heartbeat("ada", 0, 19 * MINUTE)]), 1);
    assert_eq!(count(&[heartbeat("ada", 1_000 * MILLISECOND, 30 * MINUTE)]), 2, "it is overtaken");
    assert_eq!(count(&[heartbeat("ada", 0, 25 * MINUTE)]), 2, "a later deadline");
    assert_eq!(count(&[heartbeat("ada", 0, 14 * MINUTE), leave("ada", 0, 0)]), 4);
    assert_eq!(count(&[heartbeat("ada", 1_000 * MILLISECOND, MINUTE)]), 4, "it is late");
    assert_eq!(count(&[heartbeat("bob", 0, MINUTE)]), 4, "nobody else sends heartbeats of a new user");
}

fn a_user_who_went_offline_is_kept_for_the_longest_timeout_in_use(place: &dyn Place) {
    let mut store = place.open();
    let short = 1_000 * MILLISECOND;
    sweep_for(&mut *store, short);
    write(&mut *store, &[heartbeat("bob", 0, MINUTE), heartbeat("ada", 9_000 * MILLISECOND, 20_000 * MILLISECOND)]);
    write(&mut *store, &[leave("ada", 5_000 * MILLISECOND, 0)]);
    assert_eq!(sweep_for(&mut *store, short).expired, 1);
    thread::sleep(Duration::from_millis(30));
    sweep_for(&mut *store, short);
    write(&mut *store, &[heartbeat("ada", 8_000 * MILLISECOND, MINUTE)]);
    assert!(!is_online(&mut *store, "ada"));
}

fn a_renewal_takes_no_lease_that_another_member_has_held(place: &dyn Place) {
    let mut store = place.open();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let [a, b] = [MEMBER_A, MEMBER_B].map(|token| Membership { lease: MILLISECOND, ..membership(token, MINUTE) });
    let mut ask = |membership, lease| {
        let state = poll_of(&mut *store, "ada", membership, PollRequest { lease, ..EMPTY_POLL }).lease;
        // A store may keep times in milliseconds, and its clock may have a resolution of some.
        thread::sleep(Duration::from_millis(20));
        state
    };
    assert_eq!(ask(&a, LeaseRequest::Acquire), LeaseState::Acquired);
    assert_eq!([ask(&a, LeaseRequest::None), ask(&a, LeaseRequest::Renew)], [LeaseState::Renewed; 2], "it ran out");
    assert_eq!(ask(&b, LeaseRequest::Acquire), LeaseState::Acquired);
    assert_eq!([ask(&a, LeaseRequest::None), ask(&a, LeaseRequest::Renew)], [LeaseState::Free; 2]);
    assert_eq!(ask(&b, LeaseRequest::Renew), LeaseState::Renewed);
    let event = undelivered(&mut *store).remove(0);
    assert!(!commit(&mut *store, MEMBER_A, &[(&event, Outcome::Done)]));
    assert!(commit(&mut *store, MEMBER_B, &[(&event, Outcome::Done)]));
}

fn a_release_by_another_member_changes_nothing(place: &dyn Place) {
    let mut store = place.open();
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let request = PollRequest { lease: LeaseRequest::Release, ..EMPTY_POLL };
    let result = poll_of(&mut *store, "ada", &membership(MEMBER_B, MINUTE), request);
    assert_eq!(result.lease, LeaseState::HeldByOther);
    let result = poll_of(&mut *store, "ada", &membership(MEMBER_A, MINUTE), EMPTY_POLL);
    assert_eq!(result.lease, LeaseState::Renewed);
}

fn a_member_that_knows_other_data_changes_nothing_but_the_hold(place: &dyn Place) {
    let mut store = place.open();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let before = knowing(&mut *store, MEMBER_A, MINUTE);
    place.lose();
    let mut store = place.open();
    sweep(&mut *store);
    write(&mut *store, &soon_due("ada", 10 * MILLISECOND));
    let partition = store.partition_of(&user("ada"));
    let request = PollRequest { partition, lease: LeaseRequest::Acquire, sweep: Some(10), ..EMPTY_POLL };
    let result = store.poll(&before, &[request]).unwrap().remove(0);
    assert!(matches!(result, Err(StoreError::Replaced(_))), "{result:?}");
    let nothing =
        store.commit(&before, &[(partition, Commit { done: vec![1], ..Commit::default() })]).unwrap().remove(0);
    assert!(matches!(nothing, Err(StoreError::Replaced(_))), "{nothing:?}");
    thread::sleep(Duration::from_millis(30));
    assert_eq!(sweep(&mut *store).expired, 0, "held");
    let now = poll_of(&mut *store, "ada", &membership(MEMBER_A, MINUTE), EMPTY_POLL);
    assert_eq!(now.lease, LeaseState::Free);
    let known = before.known[usize::from(partition)];
    assert!(now.known.last >= known.last && now.known.epoch > known.epoch, "{known:?} {now:?}");
    assert!(is_replaced(&mut *store, &before, &[heartbeat("bob", 0, MINUTE), heartbeat("ada", 0, MINUTE)]));
    let after = knowing(&mut *store, MEMBER_A, MINUTE);
    assert!(!is_replaced(&mut *store, &after, &[heartbeat("ada", 0, MINUTE)]));
}

fn after_a_loss_the_deadline_of_who_leaves_is_held_for_a_lease_length_only(place: &dyn Place) {
    let mut store = place.open();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let before = knowing(&mut *store, MEMBER_A, MINUTE);
    place.lose();
    let mut store = place.open();
    let lease = 300 * MILLISECOND;
    assert!(is_replaced(&mut *store, &Membership { lease, ..before }, &[heartbeat("0", 0, MINUTE)]));
    leaves_are_held_for_a_lease_length(&mut *store, lease);
}

fn after_a_gap_the_deadline_of_who_leaves_is_held_for_a_lease_length_only(place: &dyn Place) {
    let mut store = place.open();
    let (lease, timeout) = (300 * MILLISECOND, 600 * MILLISECOND);
    let sweep = PollRequest { sweep: Some(10), ..EMPTY_POLL };
    poll_of(&mut *store, "0", &membership(MEMBER_A, timeout), sweep.clone());
    let [zero, before] = &neighbours(&*store, 2)[..] else { panic!("two users") };
    write(&mut *store, &[heartbeat(zero, 0, MINUTE)]);
    write(&mut *store, &soon_due(before, 200 * MILLISECOND));
    thread::sleep(Duration::from_millis(400));
    // After its deadline, and before the hold.
    write(&mut *store, &[leave(before, 0, 0)]);
    // Far less than the test takes, so that only this sweep finds a gap.
    let timeout = 2 * timeout / 3;
    poll_of(&mut *store, "0", &Membership { lease, ..membership(MEMBER_A, timeout) }, sweep.clone());
    let mut other = place.open();
    write(&mut *other, &[leave("0", 0, 0)]);
    let held = poll_of(&mut *store, "0", &membership(MEMBER_A, MINUTE), sweep.clone()).sweep.unwrap();
    assert!(held.expired == 0 && held.next.unwrap() <= lease + MILLISECOND, "{held:?}");
    thread::sleep(Duration::from_millis(310));
    assert_eq!(poll_of(&mut *store, "0", &membership(MEMBER_A, MINUTE), sweep).sweep.unwrap().expired, 2);
}

/// An outage may last longer than any timeout.
fn members_hear_of_a_leave_that_is_written_long_after_it(place: &dyn Place) {
    let mut store = place.open();
    let sweep = PollRequest { sweep: Some(10), notices_after: Some(0), ..EMPTY_POLL };
    write(&mut *store, &[leave("ada", 5 * MINUTE, 0)]);
    for _ in 0..2 {
        let notices = poll_of(&mut *store, "ada", &membership(MEMBER_B, MINUTE), sweep.clone()).notices;
        assert_eq!(notices.len(), 1);
    }
}

/// The store has just begun to hold the deadlines of the partition of "0".
fn leaves_are_held_for_a_lease_length(store: &mut dyn Store, lease: Nanos) {
    let names = neighbours(store, 7);
    let [left, silent, back, early, late, overdue, graceful] = &names[..] else { panic!("{names:?}") };
    names.iter().for_each(|name| write(store, &[heartbeat(name, MILLISECOND, MINUTE)]));
    [silent, overdue, graceful].into_iter().for_each(|name| write(store, &soon_due(name, MILLISECOND)));
    write(store, &[leave(left, 0, 0), leave(back, 0, 0), leave(late, 0, MINUTE / 2)]);
    // Older than its leave: the user has left all the same, a little sooner.
    write(store, &[heartbeat(early, 0, MINUTE), leave(early, 0, MINUTE / 2)]);
    write(store, &[heartbeat(early, 10 * MILLISECOND, 20 * MILLISECOND), leave(early, 0, 0)]);
    thread::sleep(Duration::from_millis(20));
    write(store, &[heartbeat(back, 0, MINUTE), leave(overdue, 0, 0), leave(graceful, 0, MINUTE / 3)]);
    let held = sweep(store);
    assert!(held.expired == 0 && held.next.unwrap() <= lease, "{held:?}");
    thread::sleep(Duration::from_millis(lease / MILLISECOND));
    let due = sweep(store);
    assert_eq!(due.expired, 3);
    assert!(due.lag < lease, "counted from the end of the hold: {due:?}");
    assert!(due.next.unwrap() > 15_000 * MILLISECOND, "who leaves later is due then, though held no more: {due:?}");
    let left_events = undelivered(store).into_iter().filter(|event| event.reason == Reason::Leave);
    let mut gone: Vec<String> = left_events.map(|event| name(&event.id)).collect();
    gone.sort();
    assert_eq!(gone, [left.as_str(), early, overdue].map(str::to_owned));
    assert_eq!(store.snapshot().unwrap().users.len(), 4, "who is silent, who came back, and who leaves later");
    assert_eq!(sweep(store).expired, 0);
}

fn the_oldest_event_has_its_age(place: &dyn Place) {
    let mut store = place.open();
    let oldest = |store: &mut dyn Store| poll_of(store, "ada", &membership(MEMBER_B, MINUTE), EMPTY_POLL).oldest;
    assert_eq!(oldest(&mut *store), None);
    write(&mut *store, &[heartbeat("ada", 10_000 * MILLISECOND, MINUTE)]);
    let age = oldest(&mut *store).unwrap() / (1_000 * MILLISECOND);
    assert!((9..30).contains(&age), "{age}");
}

/// Its event is behind one that was due later.
fn a_user_who_was_set_offline_late_counts_from_its_deadline(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let names = neighbours(&*store, 2);
    let [ada, bob] = &names[..] else { panic!("{names:?}") };
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let deliver_all = |store: &mut dyn Store| {
        let events = undelivered(store);
        let outcomes: Vec<_> = events.iter().map(|event| (event, Outcome::Done)).collect();
        assert!(commit(store, MEMBER_A, &outcomes));
    };
    let oldest = |store: &mut dyn Store| poll_of(store, ada, &membership(MEMBER_B, MINUTE), EMPTY_POLL).oldest;
    write(&mut *store, &soon_due(ada, 100 * MILLISECOND));
    deliver_all(&mut *store);
    thread::sleep(Duration::from_millis(250));
    write(&mut *store, &[heartbeat(bob, 0, MINUTE)]);
    assert_eq!(sweep(&mut *store).expired, 1);
    assert!(oldest(&mut *store).unwrap() > 140 * MILLISECOND);
    deliver_all(&mut *store);
    assert_eq!(oldest(&mut *store), None);
}

/// Although the log is never empty, and each time somebody is set offline late.
fn a_user_who_was_set_offline_late_does_not_count_for_ever(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let names = neighbours(&*store, 8);
    assert!(acquire(&mut *store, MEMBER_A, MINUTE));
    let start = Instant::now();
    for name in &names {
        write(&mut *store, &soon_due(name, 100 * MILLISECOND));
        thread::sleep(Duration::from_millis(250));
        assert_eq!(sweep(&mut *store).expired, 1);
        let events = undelivered(&mut *store);
        let [before @ .., _] = &events[..] else { panic!("no event") };
        let outcomes: Vec<_> = before.iter().map(|event| (event, Outcome::Done)).collect();
        assert!(commit(&mut *store, MEMBER_A, &outcomes));
    }
    let oldest = poll_of(&mut *store, &names[0], &membership(MEMBER_B, MINUTE), EMPTY_POLL).oldest.unwrap();
    assert!(Duration::from_nanos(oldest) < start.elapsed() / 2, "{oldest}");
}

fn a_heartbeat_that_only_puts_the_deadline_off_brings_nobody_online(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let prolong = |name: &str, age, timeout| {
        Write::Heartbeat(Heartbeat { id: user(name), age, timeout, purpose: Purpose::Prolong })
    };
    write(&mut *store, &soon_due("bob", 50 * MILLISECOND));
    write(&mut *store, &[heartbeat("ada", 0, 1_000 * MILLISECOND)]);
    write(&mut *store, &[prolong("ada", 0, MINUTE), prolong("eve", 0, MINUTE)]);
    thread::sleep(Duration::from_millis(1_010));
    assert_eq!(sweep(&mut *store).expired, 1);
    write(&mut *store, &[prolong("bob", 0, MINUTE)]);
    assert_eq!(["ada", "bob", "eve"].map(|name| is_online(&mut *store, name)), [true, false, false]);
    write(&mut *store, &[heartbeat("bob", 0, MINUTE)]);
    assert!(is_online(&mut *store, "bob"));
}

fn a_summary_has_the_lease_holder_and_the_members(place: &dyn Place) {
    let mut store = place.open();
    let a = Membership { name: "one:1".into(), ..membership(MEMBER_A, MINUTE) };
    let b = Membership { name: "two:2".into(), lease: MILLISECOND, ..membership(MEMBER_B, MINUTE) };
    store.register(&a).unwrap();
    store.register(&b).unwrap();
    thread::sleep(Duration::from_millis(20));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    let known = poll_of(&mut *store, "ada", &a, PollRequest { lease: LeaseRequest::Acquire, ..EMPTY_POLL }).known;
    let partition = usize::from(store.partition_of(&user("ada")));
    let summary = store.summary().unwrap();
    assert_eq!(summary.partitions.len(), usize::from(store.partitions()));
    let figures = &summary.partitions[partition];
    assert_eq!((figures.online, figures.undelivered, figures.dead_letters, figures.hold), (1, 1, 0, 0));
    assert_eq!((figures.epoch, figures.generation), (known.epoch, known.generation));
    let (name, remaining) = figures.lease_holder.clone().unwrap();
    assert!(name == "one:1" && (MINUTE / 2..=MINUTE).contains(&remaining), "{name} {remaining}");
    assert!(figures.oldest.unwrap() < MINUTE);
    let names: Vec<_> = summary.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["one:1"]);
    assert!((MINUTE / 2..=MINUTE).contains(&summary.members[0].remaining));
    store.deregister(&a).unwrap();
    store.deregister(&a).unwrap();
    assert_eq!(store.summary().unwrap().members, []);
}

fn a_purge_deletes_everything_unless_a_member_is_registered(place: &dyn Place) {
    let (mut store, mut other) = (place.open(), place.try_open("other").unwrap());
    let registered = membership(MEMBER_A, MINUTE);
    store.register(&registered).unwrap();
    write(&mut *store, &[heartbeat("ada", 0, MINUTE), heartbeat("bob", 0, MINUTE), leave("bob", 0, 0)]);
    write(&mut *other, &[heartbeat("ada", 0, MINUTE)]);
    let before = knowing(&mut *store, MEMBER_A, MINUTE);
    assert!(!store.purge(false).unwrap());
    assert_eq!(events(&mut *store).len(), 2);
    assert!(store.purge(true).unwrap());
    assert_eq!((events(&mut *store).len(), store.snapshot().unwrap().users.len()), (0, 0));
    assert!(is_replaced(&mut *store, &before, &[heartbeat("ada", 0, MINUTE)]));
    write(&mut *store, &[heartbeat("ada", 0, MINUTE)]);
    assert!(store.purge(false).unwrap(), "the members went too");
    assert_eq!((events(&mut *store).len(), events(&mut *other).len()), (0, 1));
}
