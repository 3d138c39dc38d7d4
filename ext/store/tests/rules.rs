//! What every store promises, with several connections to it, as several processes would have them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::thread;
use std::time::Duration;

use online_manager_store::StoreError;
use online_manager_store::store::{LeaseRequest, LeaseState, PollRequest, Store, Sweep};
use online_manager_tracker::{Nanos, Reason, Transition};

mod support;
use support::*;

/// Each rule is tried on a store of each kind.
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
    the_first_beat_is_a_transition_and_the_others_are_not,
    whoever_is_silent_for_the_timeout_is_set_offline_once_and_not_before,
    a_beat_moves_the_deadline_also_when_the_sweep_is_about_to_look,
    a_shorter_timeout_takes_hold_at_once,
    a_late_beat_never_lowers_a_deadline,
    a_leave_makes_due_and_only_a_later_beat_undoes_it,
    an_event_says_why_and_how_late_it_comes,
    a_leave_that_is_not_sooner_changes_nothing,
    nobody_is_set_offline_for_a_timeout_when_nobody_has_swept,
    versions_grow_also_when_the_data_are_lost,
    who_last_beat_when_is_known,
    one_has_the_lease_until_it_is_over_or_given_back,
    a_lease_that_another_had_meanwhile_is_a_new_one,
    events_are_only_for_who_has_the_lease,
    only_who_has_the_lease_commits,
    dead_letters_are_delivered_again_unless_they_are_overtaken,
    a_dead_letter_whose_user_has_an_event_waiting_is_overtaken_too,
    many_expire_step_by_step,
    timeouts_of_any_length_are_kept,
    namespaces_do_not_know_each_other,
);

fn came_and_left(name: &str) -> Vec<(String, Transition)> {
    vec![(name.to_owned(), Transition::Online), (name.to_owned(), Transition::Offline)]
}

/// How long ago a user was seen.
fn ago(store: &mut dyn Store, name: &str) -> Option<Nanos> {
    store.snapshot().unwrap().users.get(&user(name)).copied()
}

fn the_first_beat_is_a_transition_and_the_others_are_not(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    tell(&mut *one, &[beat("ada", 0, MINUTE)]);
    tell(&mut *other, &[beat("ada", 0, MINUTE), beat("bob", 0, MINUTE)]);
    assert_eq!(events(&mut *one), [("ada".to_owned(), Transition::Online), ("bob".to_owned(), Transition::Online)]);
    assert_eq!(one.snapshot().unwrap().users.len(), 2);
}

fn whoever_is_silent_for_the_timeout_is_set_offline_once_and_not_before(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    sweep(&mut *one);
    tell(&mut *one, &[beat("ada", 0, 100 * MILLISECOND), beat("bob", 0, MINUTE)]);
    let Sweep { expired, next, .. } = sweep(&mut *one);
    assert_eq!(expired, 0);
    // A store may keep deadlines in milliseconds.
    assert!(next.unwrap() <= 102 * MILLISECOND);
    thread::sleep(Duration::from_millis(110));
    assert_eq!([sweep(&mut *one).expired, sweep(&mut *other).expired], [1, 0]);
    assert_eq!(events(&mut *one)[2..], came_and_left("ada")[1..]);
}

fn a_beat_moves_the_deadline_also_when_the_sweep_is_about_to_look(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    tell(&mut *store, &[beat("ada", 0, 100 * MILLISECOND)]);
    thread::sleep(Duration::from_millis(110));
    tell(&mut *store, &[beat("ada", 0, 100 * MILLISECOND)]);
    let Sweep { expired, next, .. } = sweep(&mut *store);
    assert_eq!(expired, 0);
    assert!(next.unwrap() > 30 * MILLISECOND);
    thread::sleep(Duration::from_millis(110));
    assert_eq!(sweep(&mut *store).expired, 1);
}

fn a_shorter_timeout_takes_hold_at_once(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    thread::sleep(Duration::from_millis(2));
    tell(&mut *store, &[beat("ada", 0, MILLISECOND)]);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut *store).expired, 1);
}

fn a_late_beat_never_lowers_a_deadline(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    tell(&mut *store, &[beat("ada", MINUTE, MILLISECOND)]);
    assert_eq!(sweep(&mut *store).expired, 0);
}

fn a_leave_makes_due_and_only_a_later_beat_undoes_it(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let names = ["early", "late", "none", "later"];
    let beats = names.map(|name| beat(name, 900 * MILLISECOND, MINUTE));
    tell(&mut *store, &beats);
    let leaves = names.map(|name| leave(name, 500 * MILLISECOND, if name == "later" { MINUTE / 2 } else { 0 }));
    tell(&mut *store, &leaves);
    // A beat before the leave, from a process that did not know; and one after it.
    tell(&mut *store, &[beat("early", 600 * MILLISECOND, MINUTE), beat("late", 300 * MILLISECOND, MINUTE)]);
    // Nor does it matter how soon after a beat a leave comes.
    tell(&mut *store, &[beat("ada", 100 * MILLISECOND, MINUTE), leave("ada", 100 * MILLISECOND, 0)]);
    tell(&mut *store, &[beat("bob", 100 * MILLISECOND, MINUTE)]);
    tell(&mut *store, &[leave("bob", 100 * MILLISECOND, 0)]);
    assert_eq!(sweep(&mut *store).expired, 4);
    let online: Vec<_> = [user("late"), user("later")].into();
    let mut found: Vec<_> = store.snapshot().unwrap().users.into_keys().collect();
    found.sort();
    assert_eq!(found, online);
    // Nor does it when the user is offline already.
    tell(&mut *store, &[beat("early", 600 * MILLISECOND, MINUTE)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 2);
    tell(&mut *store, &[beat("early", 0, MINUTE)]);
    assert_eq!(store.snapshot().unwrap().users.len(), 3);
}

fn an_event_says_why_and_how_late_it_comes(place: &dyn Place) {
    let mut store = place.open();
    let reasons = |store: &mut dyn Store| -> Vec<_> {
        let mut reasons: Vec<_> = waiting(store)
            .iter()
            .map(|event| {
                (name(&event.id), event.transition == Transition::Offline, event.reason, event.lateness / MINUTE)
            })
            .collect();
        reasons.sort_by_key(|(name, is_offline, ..)| (*is_offline, name.clone()));
        reasons.into_iter().map(|(_, _, reason, minutes)| (reason, minutes)).collect()
    };
    sweep(&mut *store);
    // Ada is silent; Bob leaves; Cy leaves, and undoes it.
    tell(&mut *store, &[beat("ada", 3 * MINUTE, MINUTE)]);
    tell(&mut *store, &[beat("bob", 3 * MINUTE, 10 * MINUTE), leave("bob", 2 * MINUTE, MINUTE)]);
    tell(&mut *store, &[beat("cy", 5 * MINUTE, MINUTE), leave("cy", 5 * MINUTE, 0), beat("cy", 4 * MINUTE, MINUTE)]);
    assert_eq!(sweep(&mut *store).expired, 3);
    // A deadline may be kept in milliseconds, and so be up to one later.
    thread::sleep(Duration::from_millis(5));
    let online = [3, 3, 5].map(|minutes| (Reason::Heartbeat, minutes));
    let offline = [(Reason::Timeout, 2), (Reason::Leave, 1), (Reason::Timeout, 3)];
    assert_eq!(reasons(&mut *store), [&online[..], &offline[..]].concat());

    // Also when it has been a dead letter.
    assert!(bid(&mut *store, US, MINUTE));
    let left = waiting(&mut *store).into_iter().rfind(|event| event.id == user("bob")).unwrap();
    assert!(commit(&mut *store, US, &[(&left, Outcome::Dead)]));
    assert_eq!(store.dead_letters().unwrap()[0].event.reason, Reason::Leave);
    assert_eq!(store.requeue_dead_letters().unwrap(), (1, 0));
    assert_eq!(reasons(&mut *store)[4], (Reason::Leave, 1));
}

fn a_leave_that_is_not_sooner_changes_nothing(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    tell(&mut *store, &[beat("ada", 0, MILLISECOND), leave("ada", 0, MINUTE)]);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(sweep(&mut *store).expired, 1);
}

fn nobody_is_set_offline_for_a_timeout_when_nobody_has_swept(place: &dyn Place) {
    let mut store = place.open();
    let timeout = 200 * MILLISECOND;
    let mut sweep = || {
        let Sweep { expired, next, .. } = sweep_for(&mut *store, timeout);
        (expired, next)
    };
    sweep();
    let mut other = place.open();
    tell(&mut *other, &[beat("ada", 0, 50 * MILLISECOND)]);
    thread::sleep(Duration::from_millis(120));
    let (expired, next) = sweep();
    assert_eq!(expired, 0, "held");
    assert!(next.unwrap() > 150 * MILLISECOND);
    let mut rounds = 0;
    while sweep().0 == 0 {
        thread::sleep(Duration::from_millis(10));
        rounds += 1;
        assert!(rounds < 100);
    }
    assert!(rounds >= 10, "held for {rounds} rounds only");
}

fn versions_grow_also_when_the_data_are_lost(place: &dyn Place) {
    let mut store = place.open();
    let version = |store: &mut dyn Store| waiting(store).last().unwrap().version;
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    let first = version(&mut *store);
    tell(&mut *store, &[leave("ada", 0, 0)]);
    thread::sleep(Duration::from_millis(2));
    sweep(&mut *store);
    let second = version(&mut *store);
    assert!(second > first);
    place.lose();
    let told = store.write(&membership(US, MINUTE), &[beat("ada", 0, MINUTE)]);
    let error = told.and_then(|told| told.into_iter().try_for_each(|(_, result)| result.map(|_| ())));
    assert!(matches!(error, Err(StoreError::Replaced(_))), "{error:?}");
    tell(&mut *store, &[beat("ada", 0, MINUTE)]);
    assert!(version(&mut *store) > second);
}

fn who_last_beat_when_is_known(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let beats = [beat("ada", 5_000 * MILLISECOND, MINUTE), beat("bob", 7_000 * MILLISECOND, 2 * MINUTE)];
    tell(&mut *store, &beats);
    tell(&mut *store, &[leave("bob", 0, MINUTE), beat("ada", 6_000 * MILLISECOND, MINUTE)]);
    for (name, seconds) in [("ada", 5), ("bob", 7)] {
        let ago = ago(&mut *store, name).unwrap();
        // A store may keep deadlines in milliseconds, rounded up.
        assert!((seconds * 1_000 - 1..seconds * 1_000 + 900).contains(&(ago / MILLISECOND)), "{name}: {ago}");
    }
    assert_eq!(ago(&mut *store, "cy"), None);
}

fn one_has_the_lease_until_it_is_over_or_given_back(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    assert!(bid(&mut *one, US, MINUTE));
    assert!(!bid(&mut *other, THEM, MINUTE));
    assert!(bid(&mut *one, US, MILLISECOND), "renewed");
    thread::sleep(Duration::from_millis(20));
    assert!(bid(&mut *other, THEM, MINUTE));
    assert!(!bid(&mut *one, US, MINUTE));
    give_back(&mut *one, US);
    assert!(!bid(&mut *one, US, MINUTE), "it was not ours");
    give_back(&mut *other, THEM);
    assert!(bid(&mut *one, US, MINUTE));
}

fn a_lease_that_another_had_meanwhile_is_a_new_one(place: &dyn Place) {
    let mut store = place.open();
    let mut take = |token, request| {
        look_all(&mut *store, &membership(token, MINUTE), PollRequest { lease: request, ..NOTHING })[0].lease
    };
    assert_eq!(take(US, LeaseRequest::None), LeaseState::Free);
    assert_eq!(
        [take(US, LeaseRequest::Acquire), take(US, LeaseRequest::Renew), take(US, LeaseRequest::None)],
        [LeaseState::Acquired, LeaseState::Renewed, LeaseState::Renewed]
    );
    assert_eq!(
        [take(THEM, LeaseRequest::None), take(THEM, LeaseRequest::Acquire)],
        [LeaseState::HeldByOther, LeaseState::HeldByOther]
    );
    assert_eq!(
        [take(US, LeaseRequest::Release), take(THEM, LeaseRequest::Acquire), take(THEM, LeaseRequest::Release)],
        [LeaseState::Free, LeaseState::Acquired, LeaseState::Free]
    );
    assert_eq!(take(US, LeaseRequest::Acquire), LeaseState::Acquired);
}

fn events_are_only_for_who_has_the_lease(place: &dyn Place) {
    let mut store = place.open();
    let names = neighbours(&*store, 3);
    tell(&mut *store, &names.iter().map(|name| beat(name, 0, MINUTE)).collect::<Vec<_>>());
    let partition = store.partition_of(&user(&names[0]));
    assert!(bid(&mut *store, US, MINUTE));
    let mut read = |token, after, most| {
        let request = PollRequest { partition, events: Some((after, most)), ..NOTHING };
        let seen = store.poll(&membership(token, MINUTE), &[request]).unwrap().remove(0).unwrap();
        seen.events.iter().map(|event| event.number).collect::<Vec<_>>()
    };
    let all = read(US, 0, 10);
    assert_eq!(all.len(), 3);
    assert_eq!(read(US, 0, 2), all[..2]);
    assert_eq!(read(US, all[0], 10), all[1..]);
    assert_eq!(read(THEM, 0, 10), []);
}

fn only_who_has_the_lease_commits(place: &dyn Place) {
    let (mut one, mut other) = (place.open(), place.open());
    tell(&mut *one, &[beat("ada", 0, MINUTE), beat("bob", 0, MINUTE), beat("eve", 0, MINUTE)]);
    let all = waiting(&mut *one);
    let by_name = |wanted: &str| all.iter().find(|event| name(&event.id) == wanted).unwrap();
    let outcomes =
        || [(by_name("ada"), Outcome::Done), (by_name("bob"), Outcome::Failed(2)), (by_name("eve"), Outcome::Dead)];
    assert!(bid(&mut *one, US, MINUTE));
    assert!(!commit(&mut *other, THEM, &outcomes()));
    assert_eq!(events(&mut *one).len(), 3);
    assert!(commit(&mut *one, US, &outcomes()));
    let left = waiting(&mut *other);
    assert_eq!((left.len(), &left[0].id, left[0].failures), (1, &user("bob"), 2));
    let letters = other.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].error.as_str(), letters[0].is_superseded), (1, "never", false));
    let snapshot = other.snapshot().unwrap();
    assert_eq!((snapshot.waiting, snapshot.dead_letters), (1, 1));
}

fn dead_letters_are_delivered_again_unless_they_are_overtaken(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    assert!(bid(&mut *store, US, MINUTE));
    tell(&mut *store, &[beat("ada", 0, MINUTE), beat("bob", 0, MINUTE)]);
    let dead = waiting(&mut *store);
    assert!(commit(&mut *store, US, &dead.iter().map(|event| (event, Outcome::Dead)).collect::<Vec<_>>()));
    tell(&mut *store, &[leave("ada", 0, 0)]);
    thread::sleep(Duration::from_millis(2));
    sweep(&mut *store);
    assert_eq!(store.requeue_dead_letters().unwrap(), (1, 1));
    let mut found: Vec<_> = waiting(&mut *store).iter().map(|event| (event.id.clone(), event.version)).collect();
    found.sort();
    let of_bob = dead.iter().find(|event| event.id == user("bob")).unwrap();
    assert_eq!((found.len(), &found[0].0), (2, &user("ada")));
    assert_eq!(found[1], (user("bob"), of_bob.version));
    assert_eq!(store.dead_letters().unwrap(), []);
}

fn a_dead_letter_whose_user_has_an_event_waiting_is_overtaken_too(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    assert!(bid(&mut *store, US, MINUTE));
    tell(&mut *store, &[beat("ada", MINUTE / 2, MINUTE), leave("ada", MINUTE / 4, 0)]);
    sweep(&mut *store);
    let all = waiting(&mut *store);
    // Also when the later one is done in the same step.
    assert!(commit(&mut *store, US, &[(&all[0], Outcome::Dead), (&all[1], Outcome::Done)]));
    assert!(store.dead_letters().unwrap()[0].is_superseded);
    assert_eq!(store.requeue_dead_letters().unwrap(), (0, 1));
    assert_eq!(events(&mut *store), []);
}

fn many_expire_step_by_step(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    let names = neighbours(&*store, 600);
    names
        .chunks(200)
        .for_each(|some| tell(&mut *store, &some.iter().map(|name| beat(name, MINUTE, 1)).collect::<Vec<_>>()));
    let partition = store.partition_of(&user(&names[0]));
    let mut steps = Vec::new();
    while steps.last() != Some(&0) {
        let request = PollRequest { partition, sweep: Some(256), ..NOTHING };
        steps.push(store.poll(&membership(US, MINUTE), &[request]).unwrap().remove(0).unwrap().sweep.unwrap().expired);
    }
    assert_eq!(steps, [256, 256, 88, 0]);
    assert_eq!(events(&mut *store).len(), 1_200);
}

fn timeouts_of_any_length_are_kept(place: &dyn Place) {
    let mut store = place.open();
    sweep(&mut *store);
    // More different ones than a store might have a short way to write, and the longest that there can be.
    let names = neighbours(&*store, 1_100);
    let beats: Vec<_> =
        (1..).zip(&names).map(|(n, name)| beat(name, 1_000 * MILLISECOND, MINUTE + n * 1_000)).collect();
    beats.chunks(200).for_each(|some| tell(&mut *store, some));
    tell(&mut *store, &[beat("for ever", 1_000 * MILLISECOND, Nanos::MAX)]);
    assert_eq!(sweep(&mut *store).expired, 0);
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.users.len(), 1_101);
    let strange: Vec<_> =
        snapshot.users.values().filter(|ago| !(1..30).contains(&(*ago / (1_000 * MILLISECOND)))).collect();
    assert!(strange.is_empty(), "{strange:?}");
    let leaves: Vec<_> = names.iter().map(|name| leave(name, 0, 0)).collect();
    leaves.chunks(200).for_each(|some| tell(&mut *store, some));
    let mut gone = 0;
    while gone < 1_100 {
        gone += sweep(&mut *store).expired;
    }
}

fn namespaces_do_not_know_each_other(place: &dyn Place) {
    let (mut one, mut other) = (place.try_open("one").unwrap(), place.try_open("other").unwrap());
    tell(&mut *one, &[beat("ada", 0, MINUTE)]);
    assert!(bid(&mut *one, US, MINUTE) && bid(&mut *other, THEM, MINUTE));
    assert_eq!(events(&mut *other), []);
    assert_eq!(other.snapshot().unwrap().users.len(), 0);
    assert_eq!(sweep(&mut *other).next, None);
}
