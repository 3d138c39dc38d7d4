//! The tracker with its timer thread, under a scheduler that tries out in which order threads may run.
//!
//! Over 400 lines: each scenario is a few lines, and all of them play on the same stage.
//!
//! `cargo test -p online_manager_tracker --features shuttle --test interleavings`
//!
//! A lost wakeup shows as a deadlock: the reactor waits for its signal and the timer thread for its wakeup, for
//! ever. A failure prints a schedule; `shuttle::replay(scenario, schedule)` runs just that one again.

// Not `required-features` in Cargo.toml: the gem leaves the tests out, and cargo refuses a manifest that names them.
#![cfg(feature = "shuttle")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
// What the tests themselves keep is no business of the scheduler's.
use std::sync::Mutex as Unscheduled;
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

/// What the reactor waits for: readable or not, like the pipe.
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

/// What has happened to one user.
#[derive(Clone, Copy, Default)]
struct Life {
    is_online: bool,
    is_inside: bool,
    /// The reading of the clock of the latest heartbeat that is over.
    seen: Nanos,
    onlines: u32,
}

struct Stage {
    tracker: Tracker<MockClock, MockSignal>,
    clock: MockClock,
    signal: MockSignal,
    lives: Unscheduled<HashMap<u64, Life>>,
    /// Whether nobody leaves and nothing stops, so that deadlines are all there is.
    only_expiry: bool,
    /// Whether `online` sometimes raises, and claims are sometimes taken back.
    is_faulty: bool,
}

impl Stage {
    fn new(only_expiry: bool, is_faulty: bool) -> Arc<Stage> {
        let clock = MockClock(Arc::new(AtomicU64::new(100 * TICK)));
        let signal = MockSignal::default();
        let tracker = Tracker::start(clock.clone(), signal.clone()).unwrap();
        Arc::new(Stage { tracker, clock, signal, lives: Unscheduled::default(), only_expiry, is_faulty })
    }

    fn life<T>(&self, key: u64, change: impl FnOnce(&mut Life) -> T) -> T {
        change(self.lives.lock().unwrap().entry(key).or_default())
    }

    /// Calls `online` or `offline`: rule 1 is checked as it begins.
    fn call(&self, key: u64, transition: Transition) -> CallbackOutcome {
        self.life(key, |life| {
            assert!(!life.is_inside, "two callbacks of {key} overlap");
            assert_eq!(life.is_online, transition == Transition::Offline, "{transition:?} of {key} twice");
            life.is_inside = true;
        });
        thread::yield_now();
        let is_cut = transition == Transition::Online && self.is_faulty && thread_rng().gen_bool(0.2);
        self.life(key, |life| {
            life.is_inside = false;
            life.is_online = transition == Transition::Online && !is_cut;
            life.onlines += u32::from(life.is_online);
        });
        if is_cut { CallbackOutcome::Aborted } else { CallbackOutcome::Returned }
    }

    fn beat(&self, key: u64, timeout: Nanos) {
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
        self.life(key, |life| life.seen = life.seen.max(now));
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

    /// Waits for its signal and calls whom it claims, until `is_done`.
    fn react(&self, is_done: impl Fn(Counts) -> bool) {
        loop {
            self.signal.wait();
            loop {
                let lives = self.lives.lock().unwrap().clone();
                let mut work = Vec::new();
                let Some(transition) = self.tracker.claim(1, &mut work) else { break };
                for Claimed { user, id, .. } in work {
                    assert_eq!(id, OwnedId::Key(user.key()));
                    if self.only_expiry && transition == Transition::Offline {
                        let seen = lives.get(&user.key()).map_or(0, |life| life.seen);
                        assert!(self.tracker.now() >= seen + TIMEOUT, "rule 5: too early");
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

    /// Everybody is offline, and the tracker agrees.
    fn check_the_end(&self) {
        assert!(self.lives.lock().unwrap().values().all(|life| !life.is_online && !life.is_inside));
        assert_eq!(self.tracker.counts(), Counts::default());
        assert_eq!(self.tracker.timer_panics(), 0);
    }
}

fn spawn(stage: &Arc<Stage>, act: impl FnOnce(&Stage) + Send + 'static) -> JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || act(&stage))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Tries out random orders, and such where few preemptions are all that is needed.
fn explore(scenario: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 0x20000;
    shuttle::Runner::new(RandomScheduler::new(ITERATIONS), config.clone()).run(scenario);
    shuttle::Runner::new(PctScheduler::new(3, ITERATIONS), config).run(scenario);
}

const ITERATIONS: usize = 15_000;

#[test]
fn whoever_falls_silent_is_set_offline_and_not_too_early() {
    explore(|| {
        let stage = Stage::new(true, false);
        let beaters = [1, 2].map(|_| {
            spawn(&stage, |stage| {
                for _ in 0..3 {
                    stage.beat(1, TIMEOUT);
                }
            })
        });
        let time = spawn(&stage, |stage| {
            for _ in 0..3 {
                stage.wait(TIMEOUT / 2 + TICK);
            }
        });
        let ended = Arc::new(Unscheduled::new(false));
        let reactor = spawn(&stage, {
            let ended = Arc::clone(&ended);
            move |stage| stage.react(|counts| *ended.lock().unwrap() && counts == Counts::default())
        });
        join(beaters);
        join([time]);
        *ended.lock().unwrap() = true;
        // Now the timer thread alone brings this to an end. Who has just been rejoining has another timeout.
        for _ in 0..200 {
            if stage.tracker.counts() != Counts::default() {
                stage.wait(TIMEOUT);
                thread::yield_now();
            }
        }
        assert_eq!(stage.tracker.counts(), Counts::default(), "nobody sets the user offline");
        stage.tracker.wake_reactor();
        join([reactor]);
        stage.check_the_end();
    });
}

#[test]
fn a_heartbeat_of_a_shorter_timeout_wakes_the_timer_in_time() {
    explore(|| {
        let stage = Stage::new(false, false);
        let long = spawn(&stage, |stage| stage.beat(1, 100 * TIMEOUT));
        let short = spawn(&stage, |stage| {
            // Only the last heartbeat tells the timer, and it must do so by itself.
            stage.beat(3, 100 * TIMEOUT);
            if thread_rng().gen_bool(0.5) {
                stage.beat(3, TIMEOUT);
            } else {
                stage.tracker.heartbeat_batch(stage.tracker.now(), TIMEOUT).heartbeat(Id::Key(3));
            }
        });
        join([long, short]);
        // Which is when the one is due, and the other is not.
        let reactor = spawn(&stage, |stage| stage.react(|counts| counts.present == 1 && counts.departing == 0));
        stage.wait(2 * TIMEOUT);
        join([reactor]);
        stage.life(1, |life| assert!(life.is_online));
        stage.life(3, |life| assert!(!life.is_online && life.onlines == 1));
    });
}

#[test]
fn whoever_leaves_is_set_offline_without_the_timer() {
    explore(|| {
        let stage = Stage::new(false, false);
        let ended = Arc::new(Unscheduled::new(false));
        let reactor = spawn(&stage, {
            let ended = Arc::clone(&ended);
            move |stage| stage.react(|counts| *ended.lock().unwrap() && counts == Counts::default())
        });
        let beater = spawn(&stage, |stage| {
            stage.beat(1, 100 * TIMEOUT);
            stage.beat(1, 100 * TIMEOUT);
        });
        let leaver = spawn(&stage, |stage| {
            stage.tracker.leave(Id::Key(1), 0);
            stage.tracker.leave(Id::Key(1), 0);
        });
        join([beater, leaver]);
        *ended.lock().unwrap() = true;
        stage.tracker.leave(Id::Key(1), 0);
        if stage.tracker.counts() == Counts::default() {
            stage.tracker.wake_reactor();
        }
        join([reactor]);
        stage.check_the_end();
    });
}

/// Everybody at once.
fn pandemonium(is_faulty: bool) {
    let stage = Stage::new(false, is_faulty);
    let beaters = [TIMEOUT, 3 * TICK].map(|timeout| {
        spawn(&stage, move |stage| {
            for key in [1, 3, 1] {
                stage.beat(key, timeout);
            }
        })
    });
    let leaver = spawn(&stage, |stage| {
        stage.tracker.leave(Id::Key(1), 0);
        stage.tracker.leave(Id::Key(3), TICK);
        stage.tracker.leave(Id::Key(1), 0);
    });
    let time = spawn(&stage, |stage| {
        for _ in 0..3 {
            stage.wait(3 * TICK);
        }
    });
    let stopper = spawn(&stage, |stage| {
        thread::yield_now();
        assert!(stage.tracker.stop().len() <= 2);
        // Those who are inside `online` look after themselves.
        stage.tracker.wake_reactor();
    });
    let stopped = Arc::new(Unscheduled::new(false));
    let reactor = spawn(&stage, {
        let stopped = Arc::clone(&stopped);
        move |stage| stage.react(|counts| *stopped.lock().unwrap() && counts.present == counts.announcing)
    });
    join([stopper]);
    *stopped.lock().unwrap() = true;
    stage.tracker.wake_reactor();
    join([reactor, leaver, time]);
    join(beaters);
    stage.check_the_end();
}

#[test]
fn heartbeats_leaves_expiry_and_a_stop_in_any_order_keep_the_rules() {
    explore(|| pandemonium(false));
}

#[test]
fn so_they_do_when_callbacks_fail_and_claims_are_taken_back() {
    explore(|| pandemonium(true));
}

#[test]
fn a_crowd_that_expires_lets_heartbeats_through() {
    explore(|| {
        let stage = Stage::new(false, false);
        let keys = [1, 3, 5, 7];
        for key in keys {
            stage.beat(key, TIMEOUT);
        }
        let reactor = spawn(&stage, |stage| stage.react(|counts| counts == Counts::default()));
        let beaters = [1, 2].map(|_| {
            spawn(&stage, move |stage| {
                // The timer thread looks at one user at a time, and gives way in between.
                for key in keys {
                    stage.tracker.is_online(Id::Key(key));
                }
            })
        });
        stage.wait(2 * TIMEOUT);
        join(beaters);
        join([reactor]);
        stage.check_the_end();
    });
}

#[test]
fn a_crowd_that_expires_is_looked_at_a_few_at_a_time() {
    // With one order or another somebody finds the timer thread half way.
    static HALF_WAY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    explore(|| {
        let stage = Stage::new(false, false);
        let keys = [1, 3, 5, 7];
        for key in keys {
            stage.beat(key, TIMEOUT);
        }
        let observer = spawn(&stage, move |stage| {
            for _ in keys {
                let is_half_way = (1..keys.len()).contains(&stage.tracker.counts().due);
                HALF_WAY.fetch_or(is_half_way, Ordering::Relaxed);
            }
        });
        stage.wait(2 * TIMEOUT);
        join([observer]);
        stage.react(|counts| counts == Counts::default());
        stage.check_the_end();
    });
    assert!(HALF_WAY.load(Ordering::Relaxed));
}

#[test]
fn dropping_the_tracker_ends_its_thread() {
    explore(|| {
        let stage = Stage::new(false, false);
        if thread_rng().gen_bool(0.5) {
            stage.beat(1, TIMEOUT);
        }
        drop(stage);
    });
}
