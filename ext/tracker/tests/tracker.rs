//! What the tracker adds to the state machine: the lock (rule 6), the signal and the timer's steps.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use online_manager_tracker::{
    Announced, CallbackOutcome, Clock, Counts, Departed, HeartbeatOutcome, Id, Nanos, OwnedId, Signal, StringId, TICK,
    Tracker, Transition, User,
};

const ADA: Id<'_> = Id::Key(1);
const BOB: Id<'_> = Id::String(StringId { bytes: b"bob", class: 0, label: 0 });
const CY: Id<'_> = Id::Key(5);

/// So long that ticks of 1.05 ms do not matter.
const SECOND: Nanos = 1_000_000_000;
const TIMEOUT: Nanos = 5 * SECOND;

#[derive(Default)]
struct MockClock {
    now: AtomicU64,
}

impl MockClock {
    fn advance(&self, time: Nanos) {
        self.now.fetch_add(time, Ordering::Relaxed);
    }
}

#[derive(Clone, Default)]
struct SharedClock(Arc<MockClock>);

impl Clock for SharedClock {
    fn now(&self) -> Nanos {
        self.0.now.load(Ordering::Relaxed)
    }

    fn jitter(&self) -> Nanos {
        0
    }
}

#[derive(Clone, Default)]
struct MockSignal(Arc<AtomicBool>);

impl MockSignal {
    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Signal for MockSignal {
    fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Returns a tracker without a timer thread, its clock and its signal.
fn tracker() -> (Tracker<SharedClock, MockSignal>, Arc<MockClock>, MockSignal) {
    let (clock, signal) = (SharedClock::default(), MockSignal::default());
    (Tracker::new(clock.clone(), signal.clone()), clock.0, signal)
}

fn come_online(tracker: &Tracker<SharedClock, MockSignal>, id: Id<'_>) -> User {
    let HeartbeatOutcome::Announce(user) = tracker.heartbeat(id, tracker.now(), TIMEOUT) else {
        panic!("{id:?} is new")
    };
    assert_eq!(tracker.announced(user, TIMEOUT, CallbackOutcome::Returned), Announced::Online);
    user
}

/// Moves the clock as the timer thread does that comes in time, while the reactor answers.
fn wait(tracker: &Tracker<SharedClock, MockSignal>, clock: &MockClock, time: Nanos) {
    let until = tracker.now() + time;
    loop {
        let sleep = tracker.step().unwrap_or(time);
        if tracker.counts().due == 0 {
            assert_eq!(tracker.claim(1, false, &mut Vec::new()), None);
        }
        if tracker.now() == until {
            break;
        }
        clock.advance(sleep.min(until - tracker.now()));
    }
}

// Rule 6: callbacks may call the tracker, since no lock is held while one runs.

#[test]
fn rule_6_callbacks_may_call_back() {
    let (tracker, clock, signal) = tracker();
    let heartbeat = || tracker.heartbeat(ADA, tracker.now(), TIMEOUT);
    let HeartbeatOutcome::Announce(ada) = heartbeat() else { panic!("Ada is new") };
    // Inside online.
    assert_eq!(heartbeat(), HeartbeatOutcome::Known);
    assert!(tracker.is_online(ADA));
    assert!(tracker.leave(ADA, 0).was_online);
    assert_eq!(tracker.announced(ada, TIMEOUT, CallbackOutcome::Returned), Announced::Online);

    clock.advance(TICK);
    tracker.step();
    assert!(signal.is_raised());
    let mut claimed = Vec::new();
    assert_eq!(tracker.claim(1, false, &mut claimed), Some(Transition::Offline));
    assert_eq!(claimed.len(), 1);
    // Inside offline.
    assert_eq!(heartbeat(), HeartbeatOutcome::Known);
    assert!(!tracker.is_online(ADA));
    assert!(!tracker.leave(ADA, 0).was_online);
    assert_eq!(tracker.claim(1, false, &mut Vec::new()), None);
    tracker.step();
    assert_eq!(tracker.counts(), Counts { departing: 1, ..Counts::default() });
    assert_eq!(tracker.stop(), []);
    assert_eq!(heartbeat(), HeartbeatOutcome::Ignored);
    assert_eq!(tracker.departed(ada), Departed::Offline);
}

#[test]
fn a_claim_that_was_not_reported_ends_before_the_next_one() {
    let (tracker, clock, _) = tracker();
    come_online(&tracker, ADA);
    tracker.leave(ADA, 0);
    clock.advance(TICK);
    tracker.step();
    let mut claimed = Vec::new();
    assert_eq!(tracker.claim(1, false, &mut claimed), Some(Transition::Offline));
    assert_eq!(tracker.heartbeat(ADA, tracker.now(), TIMEOUT), HeartbeatOutcome::Known);
    assert_eq!(tracker.end_claim(false), [], "a heartbeat came during the callback");
    claimed.clear();
    assert_eq!(tracker.claim(1, false, &mut claimed), Some(Transition::Online));
    assert_eq!(tracker.end_claim(false), [claimed[0].user]);
    assert_eq!(tracker.counts(), Counts::default());

    come_online(&tracker, ADA);
    tracker.leave(ADA, 0);
    clock.advance(TICK);
    tracker.step();
    claimed.clear();
    tracker.claim(1, false, &mut claimed);
    assert_eq!(tracker.end_claim(true), []);
    assert_eq!(tracker.counts(), Counts { departing: 1, ..Counts::default() }, "its outcome is reported next");
}

// The signal, and the steps of the timer.

#[test]
fn a_step_returns_how_long_the_timer_may_sleep() {
    let (tracker, clock, _) = tracker();
    assert_eq!(tracker.step(), None);
    come_online(&tracker, ADA);
    let mut steps = 0;
    // The reactor is asked every 250 ms. A key that was far away comes up on the way, but not often.
    let mut claimed = Vec::new();
    while claimed.is_empty() {
        let sleep = tracker.step().unwrap();
        assert!(sleep >= TICK, "the thread would spin on a clock that moves in steps");
        tracker.claim(1, false, &mut claimed);
        clock.advance(if claimed.is_empty() { sleep } else { 0 });
        steps += 1;
    }
    assert!(steps <= 4 * TIMEOUT / SECOND + 4, "{steps} steps");
    assert!((TIMEOUT..TIMEOUT + 3 * TICK).contains(&tracker.now()));
    tracker.departed(claimed[0].user);
    assert_eq!(tracker.step(), None, "nobody is online, so nobody is asked");
}

#[test]
fn rule_14_a_claim_is_put_off_if_the_reactor_or_the_timer_thread_stood_still() {
    for (reads_heartbeats, is_calling, is_put_off) in
        [(false, false, true), (true, true, true), (false, true, false), (true, false, true)]
    {
        let (tracker, clock, signal) = tracker();
        let ada = come_online(&tracker, ADA);
        come_online(&tracker, BOB);
        tracker.step();
        if is_calling {
            // A callback of Ada that takes long: whether Bob can be heard meanwhile depends on the reactor.
            tracker.leave(ADA, 0);
            assert_eq!(tracker.claim(1, reads_heartbeats, &mut Vec::new()), Some(Transition::Offline));
        }
        // The timer thread goes on.
        for _ in 0..24 {
            clock.advance(SECOND / 4);
            tracker.step();
        }
        assert!(signal.is_raised(), "the reactor is asked");
        if is_calling {
            tracker.departed(ada);
        }
        let mut claimed = Vec::new();
        tracker.claim(1, reads_heartbeats, &mut claimed);
        assert_eq!(claimed.is_empty(), is_put_off, "{reads_heartbeats} {is_calling}");
    }
    let (tracker, clock, _) = tracker();
    come_online(&tracker, ADA);
    tracker.step();
    clock.advance(TIMEOUT + SECOND);
    tracker.step();
    let mut claimed = Vec::new();
    tracker.claim(1, false, &mut claimed);
    assert!(claimed.is_empty(), "the whole process stood still");
    wait(&tracker, &clock, TIMEOUT + SECOND / 4);
    tracker.claim(1, false, &mut claimed);
    assert_eq!(claimed.len(), 1, "and goes on");
}

#[test]
fn rule_s15_a_session_that_is_over_while_the_reactor_stands_still_is_not_dropped() {
    let (tracker, clock, _) = tracker();
    let [phone, tab] = [7, 9].map(Id::Key);
    let HeartbeatOutcome::Announce(ada) = tracker.session_heartbeat(ADA, phone, tracker.now(), 20 * SECOND) else {
        panic!("Ada is known")
    };
    tracker.announced(ada, 20 * SECOND, CallbackOutcome::Returned);
    let run = |seconds: u64, answers: bool| {
        let mut all = Vec::new();
        for _ in 0..4 * seconds {
            clock.advance(SECOND / 4);
            tracker.step();
            let mut claimed = Vec::new();
            if answers {
                tracker.claim(1, false, &mut claimed);
            }
            all.append(&mut claimed);
        }
        all.len()
    };
    assert_eq!(run(18, true), 0);
    clock.advance(SECOND / 2);
    tracker.step();
    tracker.claim(1, false, &mut Vec::new());
    tracker.session_heartbeat(ADA, tab, tracker.now(), 2 * SECOND);
    // From 18.5 s to 30.5 s. The phone is over after 20 s, and half a second later the tab.
    assert_eq!(run(12, false), 0);
    assert_eq!(run(8, true), 0, "the phone has as long as the stall for what waits to be read");
    assert_eq!(run(6, true), 1);
}

#[test]
fn heartbeats_in_a_batch_count_like_single_ones() {
    let (tracker, clock, signal) = tracker();
    come_online(&tracker, BOB);
    clock.advance(SECOND);
    let mut heartbeats = tracker.heartbeat_batch(tracker.now(), 2 * SECOND);
    assert!(matches!(heartbeats.heartbeat(ADA), HeartbeatOutcome::Announce(_)));
    assert_eq!(heartbeats.heartbeat(ADA), HeartbeatOutcome::Known);
    assert_eq!(heartbeats.heartbeat(BOB), HeartbeatOutcome::Known);
    drop(heartbeats);
    assert_eq!(tracker.counts(), Counts { present: 2, announcing: 1, sessions: 2, ..Counts::default() });
    clock.advance(2 * SECOND);
    tracker.step();
    assert!(!signal.is_raised());
    clock.advance(TICK);
    tracker.step();
    assert!(signal.is_raised(), "Bob's deadline was brought forward");
    tracker.stop();
    assert_eq!(tracker.heartbeat_batch(tracker.now(), SECOND).heartbeat(CY), HeartbeatOutcome::Ignored);
}

#[test]
fn the_signal_is_raised_while_somebody_can_be_claimed() {
    let (tracker, clock, signal) = tracker();
    come_online(&tracker, ADA);
    let bob = come_online(&tracker, BOB);
    tracker.step();
    assert!(!signal.is_raised());
    wait(&tracker, &clock, TIMEOUT + TICK);
    assert!(signal.is_raised(), "two are due");

    let mut claimed = Vec::new();
    tracker.claim(1, false, &mut claimed);
    assert!(signal.is_raised(), "one is left");
    tracker.departed(claimed[0].user);
    assert_eq!(tracker.heartbeat(BOB, tracker.now(), TIMEOUT), HeartbeatOutcome::Known);
    // The heartbeat does not clear the signal, the claim that finds nobody does.
    let mut claimed = Vec::new();
    while tracker.claim(1, false, &mut claimed).is_some() {}
    assert!(claimed.is_empty());
    assert!(!signal.is_raised());

    tracker.leave(BOB, 0);
    assert!(signal.is_raised(), "Bob leaves");
    tracker.claim(1, false, &mut claimed);
    assert_eq!(claimed.len(), 1);
    assert_eq!(tracker.claim(1, false, &mut Vec::new()), None);
    tracker.heartbeat(BOB, tracker.now(), TIMEOUT);
    assert!(!signal.is_raised(), "offline has not returned");
    tracker.departed(bob);
    assert!(signal.is_raised(), "Bob is to be announced");
    assert_eq!(tracker.claim(1, false, &mut Vec::new()), Some(Transition::Online));
    assert_eq!(tracker.claim(1, false, &mut Vec::new()), None);
    assert!(!signal.is_raised());
    tracker.unclaim(bob, Transition::Online);
    assert!(signal.is_raised(), "Bob is to be announced again");
}

#[test]
fn departed_all_forgets_everyone_without_a_new_heartbeat() {
    let (tracker, clock, signal) = tracker();
    let crowd: Vec<User> = (0..1_000).map(|number| come_online(&tracker, Id::Key(number << 1 | 1))).collect();
    clock.advance(TIMEOUT + TICK);
    while tracker.step() == Some(0) {}
    let mut claimed = Vec::new();
    tracker.claim(1_000, false, &mut claimed);
    assert_eq!(claimed.len(), 1_000);

    // Users of the first, the second and the last time that the lock is taken.
    let rejoining = [3, 300, 999].map(|number: usize| crowd[number]);
    for user in rejoining {
        assert_eq!(tracker.heartbeat(Id::Key(user.key()), tracker.now(), TIMEOUT), HeartbeatOutcome::Known);
    }
    tracker.claim(1, false, &mut Vec::new());
    assert!(!signal.is_raised());
    let forgotten: Vec<User> = crowd.iter().copied().filter(|user| !rejoining.contains(user)).collect();
    assert_eq!(tracker.departed_all(crowd), forgotten);
    assert!(signal.is_raised(), "three are to be announced");
    assert_eq!(tracker.counts(), Counts { departing: 3, ..Counts::default() });
    assert_eq!(tracker.departed_all([]), []);
}

#[test]
fn the_signal_is_raised_for_a_deadline_that_passed_during_online() {
    let (tracker, clock, signal) = tracker();
    let HeartbeatOutcome::Announce(ada) = tracker.heartbeat(ADA, tracker.now(), TIMEOUT) else { panic!("Ada is new") };
    tracker.leave(ADA, SECOND);
    clock.advance(2 * SECOND);
    assert!(!signal.is_raised());
    tracker.announced(ada, TIMEOUT, CallbackOutcome::Returned);
    assert!(signal.is_raised());
}

#[test]
fn a_stop_and_wake_reactor_raise_the_signal() {
    let (tracker, _, signal) = tracker();
    tracker.wake_reactor();
    assert!(signal.is_raised());
    assert_eq!(tracker.claim(1, false, &mut Vec::new()), None);
    assert!(!signal.is_raised());
    tracker.stop();
    assert!(signal.is_raised());
}

#[test]
fn the_tracker_returns_what_the_presence_knows() {
    let (tracker, clock, _) = tracker();
    clock.advance(SECOND);
    come_online(&tracker, ADA);
    come_online(&tracker, BOB);
    clock.advance(SECOND);
    assert!(tracker.is_online(ADA));
    assert!(tracker.is_known(BOB));
    assert!(!tracker.is_known(CY));
    assert!(tracker.last_seen(ADA).unwrap().abs_diff(SECOND) <= TICK);
    assert_eq!(tracker.counts().present, 2);
    let mut users = tracker.online_users();
    users.sort_by_key(|id| matches!(id, OwnedId::Key(_)));
    let bob = OwnedId::String { bytes: (*b"bob").into(), class: 0, label: 0 };
    assert_eq!(users, [bob, OwnedId::Key(1)]);
    assert_eq!(tracker.timer_panics(), 0);
}
