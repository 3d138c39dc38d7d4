//! The timer thread in real time. No test sleeps, and none fails on a slow machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Clock, HeartbeatOutcome, Id, Nanos, Signal, TICK, Tracker, Transition, User,
};

const ADA: Id<'_> = Id::Key(1);
const BOB: Id<'_> = Id::Key(5);

/// How long a test waits for what must come: longer than the slowest machine needs.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// How long the timer thread sleeps after a panic.
const PANIC_BACKOFF: Duration = Duration::from_millis(100);

/// How many more times to panic, on the timer thread only.
#[derive(Clone, Default)]
struct Fault(Arc<AtomicU64>);

impl Fault {
    fn times(times: u64) -> Fault {
        Fault(Arc::new(AtomicU64::new(times)))
    }

    fn panic_if_armed(&self) {
        let is_timer = thread::current().name() == Some("online_manager");
        if is_timer && self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)).is_ok() {
            panic!("a bug that the test has made");
        }
    }
}

struct RealClock {
    start: Instant,
    fault: Fault,
}

impl RealClock {
    fn new(fault: Fault) -> RealClock {
        RealClock { start: Instant::now(), fault }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Nanos {
        self.fault.panic_if_armed();
        self.start.elapsed().as_nanos() as Nanos
    }

    fn jitter(&self) -> Nanos {
        0
    }
}

struct ChannelSignal {
    raised: Mutex<Sender<Instant>>,
    fault: Fault,
}

impl Signal for ChannelSignal {
    fn raise(&self) {
        self.raised.lock().unwrap().send(Instant::now()).ok();
        self.fault.panic_if_armed();
    }

    fn clear(&self) {}
}

fn channel_signal(fault: Fault) -> (ChannelSignal, Receiver<Instant>) {
    let (sender, receiver) = channel();
    (ChannelSignal { raised: Mutex::new(sender), fault }, receiver)
}

fn come_online(tracker: &Tracker<RealClock, ChannelSignal>, id: Id<'_>, timeout: Nanos) -> User {
    let HeartbeatOutcome::Announce(user) = tracker.heartbeat(id, tracker.now(), timeout) else {
        panic!("{id:?} is new")
    };
    assert_eq!(tracker.announced(user, timeout, CallbackOutcome::Returned), Announced::Online);
    user
}

/// Waits for the signal until `user` can be claimed.
fn wait_for_offline(tracker: &Tracker<RealClock, ChannelSignal>, raised: &Receiver<Instant>, user: User) {
    loop {
        let mut claimed = Vec::new();
        match tracker.claim(1, false, &mut claimed) {
            Some(transition) => {
                if let [Claimed { user: claimed_user, .. }] = claimed[..] {
                    assert_eq!((transition, claimed_user), (Transition::Offline, user));
                    tracker.departed(user);
                    break;
                }
            }
            None => drop(raised.recv_timeout(TIME_LIMIT).expect("the signal is raised")),
        }
    }
}

#[test]
fn a_user_without_heartbeats_is_due_in_time() {
    let (signal, raised) = channel_signal(Fault::default());
    let tracker = Tracker::start(RealClock::new(Fault::default()), signal).unwrap();
    // The timer thread sleeps for an hour when Bob comes online.
    come_online(&tracker, ADA, 3_600_000_000_000);
    for timeout in [1, TICK, 20 * TICK] {
        let bob = come_online(&tracker, BOB, timeout);
        let start = tracker.now();
        wait_for_offline(&tracker, &raised, bob);
        assert!(tracker.now() - start < TIME_LIMIT.as_nanos() as Nanos);
    }
    assert!(tracker.is_online(ADA));
    assert_eq!(tracker.timer_panics(), 0);
}

#[test]
fn a_shorter_timeout_wakes_the_timer_thread_by_itself() {
    for under_one_lock in [false, true] {
        let (signal, raised) = channel_signal(Fault::default());
        let tracker = Tracker::start(RealClock::new(Fault::default()), signal).unwrap();
        come_online(&tracker, ADA, 3_600_000_000_000);
        if under_one_lock {
            tracker.heartbeat_batch(tracker.now(), TICK).heartbeat(ADA);
        } else {
            tracker.heartbeat(ADA, tracker.now(), TICK);
        }
        // Without another call, which would wake it too.
        raised.recv_timeout(TIME_LIMIT).expect("the signal is raised");
    }
}

#[test]
fn the_timer_thread_survives_a_clock_that_panics() {
    let (signal, raised) = channel_signal(Fault::default());
    let fault = Fault::default();
    let tracker = Tracker::start(RealClock::new(fault.clone()), signal).unwrap();
    fault.0.store(1, Ordering::Relaxed);
    let ada = come_online(&tracker, ADA, TICK);
    wait_for_offline(&tracker, &raised, ada);
    assert_eq!(tracker.timer_panics(), 1);
}

#[test]
fn the_timer_thread_survives_a_signal_that_panics_and_does_not_spin() {
    let fault = Fault::times(3);
    let (signal, raised) = channel_signal(fault);
    let tracker = Tracker::start(RealClock::new(Fault::default()), signal).unwrap();
    let ada = come_online(&tracker, ADA, TICK);
    // It panics after each of three attempts to raise the signal. Ada stays due.
    let attempts: Vec<Instant> = (0..4).map(|_| raised.recv_timeout(TIME_LIMIT).expect("another attempt")).collect();
    for pair in attempts.windows(2) {
        assert!(pair[1] - pair[0] >= PANIC_BACKOFF, "it spins: {:?}", pair[1] - pair[0]);
    }
    assert_eq!(tracker.timer_panics(), 3);
    wait_for_offline(&tracker, &raised, ada);
}

#[test]
fn a_tracker_whose_timer_thread_panics_for_ever_can_be_dropped() {
    let (signal, raised) = channel_signal(Fault::times(u64::MAX));
    let tracker = Tracker::start(RealClock::new(Fault::default()), signal).unwrap();
    come_online(&tracker, ADA, TICK);
    raised.recv_timeout(TIME_LIMIT).expect("the signal is raised");
    drop(tracker);
}

thread_local! {
    /// Dropped at the end of its thread, which disconnects the channel.
    static DROPPED_AT_THREAD_EXIT: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
}

/// Moves its sender to the timer thread when that thread reads the clock, and sends a message.
struct ThreadExitClock(Mutex<Option<Sender<()>>>);

impl Clock for ThreadExitClock {
    fn now(&self) -> Nanos {
        if thread::current().name() == Some("online_manager")
            && let Some(sender) = self.0.lock().unwrap().take()
        {
            sender.send(()).unwrap();
            DROPPED_AT_THREAD_EXIT.with(|slot| slot.replace(Some(sender)));
        }
        0
    }

    fn jitter(&self) -> Nanos {
        0
    }
}

#[test]
fn a_stop_ends_the_timer_thread() {
    let (sender, ended) = channel();
    let (signal, _raised) = channel_signal(Fault::default());
    let tracker = Tracker::start(ThreadExitClock(Mutex::new(Some(sender))), signal).unwrap();
    let HeartbeatOutcome::Announce(ada) = tracker.heartbeat(ADA, 0, TICK) else { panic!("Ada is new") };
    ended.recv_timeout(TIME_LIMIT).expect("the timer thread reads the clock");
    tracker.stop();

    assert_eq!(ended.recv_timeout(TIME_LIMIT), Err(RecvTimeoutError::Disconnected));
    // The tracker works without the thread.
    assert_eq!(tracker.announced(ada, TICK, CallbackOutcome::Returned), Announced::Depart);
    tracker.departed(ada);
}
