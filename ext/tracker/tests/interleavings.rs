//! The tracker and its timer thread, under a scheduler that explores the interleavings of threads.
//!
//! Over 400 lines: each scenario is a few lines, and all of them share one harness.
//!
//! `cargo test -p online_manager_tracker --features shuttle --test interleavings`
//!
//! A lost wakeup is a deadlock: the reactor waits for its signal and the timer thread for its wakeup, for ever. A
//! failure prints a schedule; `shuttle::replay(scenario, schedule)` runs just that one again.

// Not `required-features` in Cargo.toml: the gem leaves the tests out, and cargo refuses a manifest that names them.
#![cfg(feature = "shuttle")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
// The tests' own state is not under the scheduler: it would add interleavings that show nothing.
use std::sync::Mutex as UnscheduledMutex;
use std::sync::atomic::{AtomicU64, Ordering};

use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Clock, Counts, Departed, HeartbeatOutcome, Id, Nanos, OwnedId, Signal, TICK,
    Tracker, Transition, User,
};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};

const TIMEOUT: Nanos = 5 * TICK;

/// A session that leaves at once after each heartbeat.
const LEAVING: u64 = 9;

#[derive(Clone, Default)]
struct MockClock(Arc<AtomicU64>);

impl Clock for MockClock {
    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed)
    }

    fn jitter(&self) -> Nanos {
        0
    }
}

/// The reactor's signal: raised or not, as the wakeup pipe is readable or not.
#[derive(Clone, Default)]
struct MockSignal(Arc<(Mutex<bool>, Condvar)>);

impl MockSignal {
    fn wait(&self) {
        let (is_raised, condvar) = &*self.0;
        drop(condvar.wait_while(is_raised.lock().unwrap(), |is_raised| !*is_raised).unwrap());
    }
}

impl Signal for MockSignal {
    fn raise(&self) {
        let (is_raised, condvar) = &*self.0;
        *is_raised.lock().unwrap() = true;
        condvar.notify_one();
    }

    fn clear(&self) {
        *self.0.0.lock().unwrap() = false;
    }
}

/// What the callbacks of one user have done.
#[derive(Clone, Copy, Default)]
struct History {
    is_online: bool,
    is_in_callback: bool,
    /// The latest heartbeat that has returned, in nanoseconds of the clock.
    last_seen: Nanos,
    online_count: u32,
}

struct Harness {
    tracker: Tracker<MockClock, MockSignal>,
    clock: MockClock,
    signal: MockSignal,
    histories: UnscheduledMutex<HashMap<u64, History>>,
    /// Whether the scenario has no leaves and no stop, so that only deadlines set users offline.
    only_expiry: bool,
    /// Whether `online` sometimes raises and claims are sometimes taken back.
    is_faulty: bool,
}

impl Harness {
    fn new(only_expiry: bool, is_faulty: bool) -> Arc<Harness> {
        let clock = MockClock(Arc::new(AtomicU64::new(100 * TICK)));
        let signal = MockSignal::default();
        let tracker = Tracker::start(clock.clone(), signal.clone()).unwrap();
        Arc::new(Harness { tracker, clock, signal, histories: UnscheduledMutex::default(), only_expiry, is_faulty })
    }

    fn history<T>(&self, key: u64, change: impl FnOnce(&mut History) -> T) -> T {
        change(self.histories.lock().unwrap().entry(key).or_default())
    }

    /// Runs `online` or `offline`, and asserts rule 1 as it begins.
    fn call(&self, key: u64, transition: Transition) -> CallbackOutcome {
        self.history(key, |history| {
            assert!(!history.is_in_callback, "two callbacks of {key} overlap");
            assert_eq!(history.is_online, transition == Transition::Offline, "{transition:?} of {key} twice");
            history.is_in_callback = true;
        });
        thread::yield_now();
        let raises = transition == Transition::Online && self.is_faulty && thread_rng().gen_bool(0.2);
        self.history(key, |history| {
            history.is_in_callback = false;
            history.is_online = transition == Transition::Online && !raises;
            history.online_count += u32::from(history.is_online);
        });
        if raises { CallbackOutcome::Aborted } else { CallbackOutcome::Returned }
    }

    fn heartbeat(&self, key: u64, timeout: Nanos) {
        let mut now = self.tracker.now();
        match self.tracker.heartbeat(Id::Key(key), now, timeout) {
            HeartbeatOutcome::Announce(user) => {
                let outcome = self.call(key, Transition::Online);
                now = self.tracker.now();
                self.announced(user, timeout, outcome);
                if outcome == CallbackOutcome::Aborted {
                    return;
                }
            }
            HeartbeatOutcome::Known => {}
            HeartbeatOutcome::Ignored => return,
        }
        self.history(key, |history| history.last_seen = history.last_seen.max(now));
    }

    /// A heartbeat of one of the user's sessions. That of [`LEAVING`] keeps nobody online.
    fn session_heartbeat(&self, key: u64, session: u64, timeout: Nanos) {
        let mut now = self.tracker.now();
        match self.tracker.session_heartbeat(Id::Key(key), Id::Key(session), now, timeout) {
            HeartbeatOutcome::Announce(user) => {
                let outcome = self.call(key, Transition::Online);
                now = self.tracker.now();
                self.announced(user, timeout, outcome);
                if outcome == CallbackOutcome::Aborted {
                    return;
                }
            }
            HeartbeatOutcome::Known => {}
            HeartbeatOutcome::Ignored => return,
        }
        if session != LEAVING {
            self.history(key, |history| history.last_seen = history.last_seen.max(now));
        }
    }

    fn announced(&self, user: User, timeout: Nanos, outcome: CallbackOutcome) {
        if self.tracker.announced(user, timeout, outcome) == Announced::Depart {
            self.call(user.key(), Transition::Offline);
            assert_eq!(self.tracker.departed(user), Departed::Offline);
        }
    }

    fn wait(&self, time: Nanos) {
        self.clock.0.fetch_add(time, Ordering::Relaxed);
        self.tracker.wake_timer_if_due();
    }

    /// Runs the reactor until `is_done`: waits for the signal, claims, and calls the callbacks.
    fn react(&self, is_done: impl Fn(Counts) -> bool) {
        loop {
            self.signal.wait();
            loop {
                let histories = self.histories.lock().unwrap().clone();
                let mut claimed = Vec::new();
                let Some(transition) = self.tracker.claim(1, false, &mut claimed) else { break };
                for Claimed { user, id, .. } in claimed {
                    assert_eq!(id, OwnedId::Key(user.key()));
                    if self.only_expiry && transition == Transition::Offline {
                        let last_seen = histories.get(&user.key()).map_or(0, |history| history.last_seen);
                        assert!(self.tracker.now() >= last_seen + TIMEOUT, "rule 5: too early");
                    }
                    self.deliver(user, transition);
                }
            }
            if is_done(self.tracker.counts()) {
                break;
            }
        }
    }

    fn deliver(&self, user: User, transition: Transition) {
        if self.is_faulty && thread_rng().gen_bool(0.2) {
            self.tracker.unclaim(user, transition);
            return;
        }
        let outcome = self.call(user.key(), transition);
        match transition {
            Transition::Online => self.announced(user, TIMEOUT, outcome),
            Transition::Offline => {
                self.tracker.departed(user);
            }
        }
    }

    /// Asserts that all users are offline, for the callbacks and for the tracker.
    fn check_everyone_is_offline(&self) {
        assert!(self.histories.lock().unwrap().values().all(|history| !history.is_online && !history.is_in_callback));
        assert_eq!(self.tracker.counts(), Counts::default());
        assert_eq!(self.tracker.timer_panics(), 0);
    }
}

fn spawn(harness: &Arc<Harness>, operation: impl FnOnce(&Harness) + Send + 'static) -> JoinHandle<()> {
    let harness = Arc::clone(harness);
    thread::spawn(move || operation(&harness))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Lets time pass while the threads send heartbeats, and after that until nobody is online.
fn expire(harness: &Arc<Harness>, senders: impl IntoIterator<Item = JoinHandle<()>>) {
    let time = spawn(harness, |harness| {
        for _ in 0..3 {
            harness.wait(TIMEOUT / 2 + TICK);
        }
    });
    let ended = Arc::new(UnscheduledMutex::new(false));
    let reactor = spawn(harness, {
        let ended = Arc::clone(&ended);
        move |harness| harness.react(|counts| *ended.lock().unwrap() && counts == Counts::default())
    });
    join(senders);
    join([time]);
    *ended.lock().unwrap() = true;
    // From here the timer thread alone ends the test. A user who has just rejoined has another timeout.
    for _ in 0..200 {
        if harness.tracker.counts() != Counts::default() {
            harness.wait(TIMEOUT);
            thread::yield_now();
        }
    }
    assert_eq!(harness.tracker.counts(), Counts::default(), "nobody sets the user offline");
    harness.tracker.wake_reactor();
    join([reactor]);
    harness.check_everyone_is_offline();
}

/// Runs the scenario in random orders, and in orders with few preemptions, which find most bugs.
fn explore(scenario: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 0x20000;
    shuttle::Runner::new(RandomScheduler::new(ITERATIONS), config.clone()).run(scenario);
    shuttle::Runner::new(PctScheduler::new(3, ITERATIONS), config).run(scenario);
}

const ITERATIONS: usize = 15_000;

#[test]
fn a_user_without_heartbeats_is_set_offline_and_not_too_early() {
    explore(|| {
        let harness = Harness::new(true, false);
        let senders = [1, 2].map(|_| {
            spawn(&harness, |harness| {
                for _ in 0..3 {
                    harness.heartbeat(1, TIMEOUT);
                }
            })
        });
        expire(&harness, senders);
    });
}

#[test]
fn a_heartbeat_of_a_shorter_timeout_wakes_the_timer_in_time() {
    explore(|| {
        let harness = Harness::new(false, false);
        let long = spawn(&harness, |harness| harness.heartbeat(1, 100 * TIMEOUT));
        let short = spawn(&harness, |harness| {
            // Only the last heartbeat wakes the timer, and no other call does.
            harness.heartbeat(3, 100 * TIMEOUT);
            if thread_rng().gen_bool(0.5) {
                harness.heartbeat(3, TIMEOUT);
            } else {
                harness.tracker.heartbeat_batch(harness.tracker.now(), TIMEOUT).heartbeat(Id::Key(3));
            }
        });
        join([long, short]);
        // The one with the short timeout is due, the other is not.
        let reactor = spawn(&harness, |harness| harness.react(|counts| counts.present == 1 && counts.departing == 0));
        harness.wait(2 * TIMEOUT);
        join([reactor]);
        harness.history(1, |history| assert!(history.is_online));
        harness.history(3, |history| assert!(!history.is_online && history.online_count == 1));
    });
}

#[test]
fn a_user_who_leaves_is_set_offline_without_the_timer() {
    explore(|| {
        let harness = Harness::new(false, false);
        let ended = Arc::new(UnscheduledMutex::new(false));
        let reactor = spawn(&harness, {
            let ended = Arc::clone(&ended);
            move |harness| harness.react(|counts| *ended.lock().unwrap() && counts == Counts::default())
        });
        let sender = spawn(&harness, |harness| {
            harness.heartbeat(1, 100 * TIMEOUT);
            harness.heartbeat(1, 100 * TIMEOUT);
        });
        let leaver = spawn(&harness, |harness| {
            harness.tracker.leave(Id::Key(1), 0);
            harness.tracker.leave(Id::Key(1), 0);
        });
        join([sender, leaver]);
        *ended.lock().unwrap() = true;
        harness.tracker.leave(Id::Key(1), 0);
        if harness.tracker.counts() == Counts::default() {
            harness.tracker.wake_reactor();
        }
        join([reactor]);
        harness.check_everyone_is_offline();
    });
}

/// Heartbeats, leaves, expiry and a stop at once.
fn everything_at_once(is_faulty: bool) {
    let harness = Harness::new(false, is_faulty);
    let senders = [TIMEOUT, 3 * TICK].map(|timeout| {
        spawn(&harness, move |harness| {
            for key in [1, 3, 1] {
                harness.heartbeat(key, timeout);
            }
        })
    });
    let leaver = spawn(&harness, |harness| {
        harness.tracker.leave(Id::Key(1), 0);
        harness.tracker.leave(Id::Key(3), TICK);
        harness.tracker.leave(Id::Key(1), 0);
    });
    let time = spawn(&harness, |harness| {
        for _ in 0..3 {
            harness.wait(3 * TICK);
        }
    });
    let stopper = spawn(&harness, |harness| {
        thread::yield_now();
        assert!(harness.tracker.stop().len() <= 2);
        // A thread inside `online` calls `offline` itself.
        harness.tracker.wake_reactor();
    });
    let stopped = Arc::new(UnscheduledMutex::new(false));
    let reactor = spawn(&harness, {
        let stopped = Arc::clone(&stopped);
        move |harness| harness.react(|counts| *stopped.lock().unwrap() && counts.present == counts.announcing)
    });
    join([stopper]);
    *stopped.lock().unwrap() = true;
    harness.tracker.wake_reactor();
    join([reactor, leaver, time]);
    join(senders);
    harness.check_everyone_is_offline();
}

#[test]
fn heartbeats_leaves_expiry_and_a_stop_keep_the_rules_in_any_order() {
    explore(|| everything_at_once(false));
}

#[test]
fn failed_callbacks_and_claims_taken_back_keep_the_rules() {
    explore(|| everything_at_once(true));
}

#[test]
fn a_crowd_that_expires_lets_heartbeats_through() {
    explore(|| {
        let harness = Harness::new(false, false);
        let keys = [1, 3, 5, 7];
        for key in keys {
            harness.heartbeat(key, TIMEOUT);
        }
        let reactor = spawn(&harness, |harness| harness.react(|counts| counts == Counts::default()));
        let senders = [1, 2].map(|_| {
            spawn(&harness, move |harness| {
                // The timer thread checks one user at a time, and yields in between.
                for key in keys {
                    harness.tracker.is_online(Id::Key(key));
                }
            })
        });
        harness.wait(2 * TIMEOUT);
        join(senders);
        join([reactor]);
        harness.check_everyone_is_offline();
    });
}

#[test]
fn a_crowd_that_expires_is_checked_a_few_users_at_a_time() {
    // In some order a thread must find the timer thread half way.
    static HALF_WAY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    explore(|| {
        let harness = Harness::new(false, false);
        let keys = [1, 3, 5, 7];
        for key in keys {
            harness.heartbeat(key, TIMEOUT);
        }
        let observer = spawn(&harness, move |harness| {
            for _ in keys {
                let is_half_way = (1..keys.len()).contains(&harness.tracker.counts().due);
                HALF_WAY.fetch_or(is_half_way, Ordering::Relaxed);
            }
        });
        harness.wait(2 * TIMEOUT);
        join([observer]);
        harness.react(|counts| counts == Counts::default());
        harness.check_everyone_is_offline();
    });
    assert!(HALF_WAY.load(Ordering::Relaxed));
}

#[test]
fn dropping_the_tracker_ends_its_thread() {
    explore(|| {
        let harness = Harness::new(false, false);
        if thread_rng().gen_bool(0.5) {
            harness.heartbeat(1, TIMEOUT);
        }
        drop(harness);
    });
}

#[test]
fn a_user_is_online_while_any_session_sends_heartbeats() {
    explore(|| {
        let harness = Harness::new(true, false);
        let senders = [7, 8].map(|session| {
            spawn(&harness, move |harness| {
                for _ in 0..2 {
                    harness.session_heartbeat(1, session, TIMEOUT);
                }
                // A third session, which leaves, takes nobody with it.
                harness.session_heartbeat(1, LEAVING, TIMEOUT);
                harness.tracker.leave_session(Id::Key(1), Some(Id::Key(LEAVING)), 0);
                harness.session_heartbeat(1, session, TIMEOUT);
            })
        });
        expire(&harness, senders);
    });
}

/// Heartbeats and leaves of sessions, expiry and a stop at once.
fn sessions_at_once(is_faulty: bool) {
    let harness = Harness::new(false, is_faulty);
    harness.tracker.set_max_sessions(2);
    harness.tracker.count_session_keys(|_| true);
    let senders = [(7, TIMEOUT), (8, 3 * TICK)].map(|(session, timeout)| {
        spawn(&harness, move |harness| {
            harness.session_heartbeat(1, session, timeout);
            harness.heartbeat(1, timeout);
            harness.session_heartbeat(1, session, timeout);
        })
    });
    let leaver = spawn(&harness, |harness| {
        harness.tracker.leave_session(Id::Key(1), Some(Id::Key(7)), 0);
        harness.tracker.leave(Id::Key(1), TICK);
        harness.tracker.leave_session(Id::Key(1), None, 0);
    });
    let time = spawn(&harness, |harness| {
        for _ in 0..3 {
            harness.wait(3 * TICK);
        }
    });
    let stopper = spawn(&harness, |harness| {
        thread::yield_now();
        assert!(harness.tracker.stop().len() <= 1);
        harness.tracker.wake_reactor();
    });
    let stopped = Arc::new(UnscheduledMutex::new(false));
    let reactor = spawn(&harness, {
        let stopped = Arc::clone(&stopped);
        move |harness| harness.react(|counts| *stopped.lock().unwrap() && counts.present == counts.announcing)
    });
    join([stopper]);
    *stopped.lock().unwrap() = true;
    harness.tracker.wake_reactor();
    join([reactor, leaver, time]);
    join(senders);
    harness.check_everyone_is_offline();
    // No session is left, so that all keys in use are released.
    let released = harness.tracker.take_released_sessions();
    assert!(released.iter().all(|key| [7, 8].contains(key)), "{released:?}");
}

#[test]
fn sessions_and_a_stop_keep_the_rules_in_any_order() {
    explore(|| sessions_at_once(false));
}

#[test]
fn sessions_keep_the_rules_though_callbacks_fail_and_claims_are_taken_back() {
    explore(|| sessions_at_once(true));
}
