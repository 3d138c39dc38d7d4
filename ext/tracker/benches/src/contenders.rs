//! Those who are compared: each knows a number of users, and takes heartbeats of theirs.
//!
//! | contender | a heartbeat is |
//! |---|---|
//! | [`Core`] | [`Tracker::heartbeat`], of a key, with a time that is given |
//! | [`CoreWithClock`] | the same, with the time read from the gem's clock, beside a running timer thread |
//! | [`CoreWithStrings`] | the same as the first, of a string |
//! | [`Map`] | a deadline stored in a bare hash map: no lock, no clock, and nobody is ever offline |
//! | [`LockedMap`] | the same, behind the standard library's mutex |
//! | [`StringMap`] | as [`Map`], of a string |
//! | [`TokioDelayQueue`] | tokio-util's `DelayQueue::reset`, by a key that need not be looked up |
//! | [`MokaCache`] | moka's `get`, with a time-to-idle |

use std::time::Duration;

use online_manager_tracker::{
    Announced, CallbackOutcome, Clock, HeartbeatOutcome, Id, Nanos, Signal, StringId, Tracker,
};

/// What every contender gets: an hour, so that nobody is offline before the end.
const TIMEOUT: Nanos = 3_600_000_000_000;

/// How the users of keys are told apart: as Ruby's small integers are, by their odd keys.
fn key(user: u32) -> u64 {
    u64::from(user) << 1 | 1
}

/// The name of a user of strings: 36 characters, as a UUID has.
pub fn string_id(user: u32) -> String {
    let scattered = u64::from(user).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{scattered:016x}-7000-{user:014x}")
}

/// Somebody who keeps track of users.
pub trait Contender {
    /// What a user is known by.
    type User;

    /// One who knows `users` users, and what each of them is known by.
    fn with_users(users: u32) -> (Self, Vec<Self::User>)
    where
        Self: Sized;

    /// A heartbeat; `moment` grows by one with each.
    fn heartbeat(&mut self, user: &Self::User, moment: u64);
}

/// Nobody to wake.
struct NoSignal;

impl Signal for NoSignal {
    fn raise(&self) {}
    fn clear(&self) {}
}

/// A clock that stands still.
struct FrozenClock;

impl Clock for FrozenClock {
    fn now(&self) -> Nanos {
        0
    }

    fn jitter(&self) -> Nanos {
        0
    }
}

/// The clock of the gem, which is the cheapest that Linux has.
struct CoarseClock;

impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> Nanos {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of our own, which the call fills.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    fn jitter(&self) -> Nanos {
        5_000_000
    }
}

fn bring_online<C: Clock>(tracker: &Tracker<C, NoSignal>, id: Id<'_>) {
    let HeartbeatOutcome::Announce(user) = tracker.heartbeat(id, tracker.now(), TIMEOUT) else {
        panic!("{id:?} is not new")
    };
    assert_eq!(tracker.announced(user, TIMEOUT, CallbackOutcome::Returned), Announced::Online);
}

/// The tracker, of keys.
pub struct Core(Tracker<FrozenClock, NoSignal>);

impl Contender for Core {
    type User = u64;

    fn with_users(users: u32) -> (Core, Vec<u64>) {
        let tracker = Tracker::new(FrozenClock, NoSignal);
        let keys: Vec<_> = (0..users).map(key).collect();
        for key in &keys {
            bring_online(&tracker, Id::Key(*key));
        }
        (Core(tracker), keys)
    }

    #[inline]
    fn heartbeat(&mut self, key: &u64, moment: u64) {
        let outcome = self.0.heartbeat(Id::Key(*key), moment, TIMEOUT);
        debug_assert_eq!(outcome, HeartbeatOutcome::Known);
    }
}

/// The tracker, of keys, as the gem runs it.
pub struct CoreWithClock(Tracker<CoarseClock, NoSignal>);

impl Contender for CoreWithClock {
    type User = u64;

    fn with_users(users: u32) -> (CoreWithClock, Vec<u64>) {
        let tracker = Tracker::start(CoarseClock, NoSignal).expect("there is a thread to be had");
        let keys: Vec<_> = (0..users).map(key).collect();
        for key in &keys {
            bring_online(&tracker, Id::Key(*key));
        }
        (CoreWithClock(tracker), keys)
    }

    #[inline]
    fn heartbeat(&mut self, key: &u64, _moment: u64) {
        let outcome = self.0.heartbeat(Id::Key(*key), self.0.now(), TIMEOUT);
        debug_assert_eq!(outcome, HeartbeatOutcome::Known);
    }
}

/// The tracker, of strings.
pub struct CoreWithStrings(Tracker<FrozenClock, NoSignal>);

impl Contender for CoreWithStrings {
    type User = String;

    fn with_users(users: u32) -> (CoreWithStrings, Vec<String>) {
        let tracker = Tracker::new(FrozenClock, NoSignal);
        let strings: Vec<_> = (0..users).map(string_id).collect();
        for string in &strings {
            bring_online(&tracker, Id::String(StringId { bytes: string.as_bytes(), class: 0, label: 1 }));
        }
        (CoreWithStrings(tracker), strings)
    }

    #[inline]
    fn heartbeat(&mut self, string: &String, moment: u64) {
        let id = Id::String(StringId { bytes: string.as_bytes(), class: 0, label: 1 });
        let outcome = self.0.heartbeat(id, moment, TIMEOUT);
        debug_assert_eq!(outcome, HeartbeatOutcome::Known);
    }
}

/// A hash map that is hashed as the tracker's table is, with values as large as the tracker's.
type Hashed<K> = hashbrown::HashMap<K, Deadline, foldhash::quality::RandomState>;

/// Eight bytes, of which a heartbeat stores four.
struct Deadline {
    tick: u32,
    _rest: u32,
}

fn deadline(moment: u64) -> u32 {
    ((moment + TIMEOUT) >> 20) as u32
}

/// A bare hash map, of keys.
pub struct Map(Hashed<u64>);

impl Contender for Map {
    type User = u64;

    fn with_users(users: u32) -> (Map, Vec<u64>) {
        let keys: Vec<_> = (0..users).map(key).collect();
        // It grows as the tracker does.
        let mut map = Hashed::default();
        for key in &keys {
            map.insert(*key, Deadline { tick: 0, _rest: 0 });
        }
        (Map(map), keys)
    }

    #[inline]
    fn heartbeat(&mut self, key: &u64, moment: u64) {
        if let Some(kept) = self.0.get_mut(key) {
            kept.tick = deadline(moment);
        }
    }
}

/// The same behind the mutex that the tracker has too.
pub struct LockedMap(std::sync::Mutex<Map>);

impl Contender for LockedMap {
    type User = u64;

    fn with_users(users: u32) -> (LockedMap, Vec<u64>) {
        let (map, keys) = Map::with_users(users);
        (LockedMap(std::sync::Mutex::new(map)), keys)
    }

    #[inline]
    fn heartbeat(&mut self, key: &u64, moment: u64) {
        // Not `get_mut`, which takes no lock.
        if let Ok(mut map) = self.0.lock() {
            map.heartbeat(key, moment);
        }
    }
}

/// A bare hash map, of strings.
pub struct StringMap(Hashed<Box<str>>);

impl Contender for StringMap {
    type User = String;

    fn with_users(users: u32) -> (StringMap, Vec<String>) {
        let strings: Vec<_> = (0..users).map(string_id).collect();
        let mut map = Hashed::default();
        for string in &strings {
            map.insert(string.as_str().into(), Deadline { tick: 0, _rest: 0 });
        }
        (StringMap(map), strings)
    }

    #[inline]
    fn heartbeat(&mut self, string: &String, moment: u64) {
        if let Some(kept) = self.0.get_mut(string.as_str()) {
            kept.tick = deadline(moment);
        }
    }
}

/// tokio-util's queue of timers, inside a runtime of tokio's.
pub struct TokioDelayQueue {
    queue: tokio_util::time::DelayQueue<u32>,
    runtime: tokio::runtime::Runtime,
}

impl Contender for TokioDelayQueue {
    type User = tokio_util::time::delay_queue::Key;

    fn with_users(users: u32) -> (TokioDelayQueue, Vec<Self::User>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("tokio starts");
        let entered = runtime.enter();
        let mut queue = tokio_util::time::DelayQueue::new();
        let keys = (0..users).map(|user| queue.insert(user, Duration::from_nanos(TIMEOUT))).collect();
        drop(entered);
        (TokioDelayQueue { queue, runtime }, keys)
    }

    #[inline]
    fn heartbeat(&mut self, key: &Self::User, _moment: u64) {
        // What it costs to enter is a few nanoseconds of a hundred.
        let _entered = self.runtime.enter();
        self.queue.reset(key, Duration::from_nanos(TIMEOUT));
    }
}

/// moka's cache, hashed as the tracker's table is.
pub struct MokaCache(moka::sync::Cache<u64, (), foldhash::quality::RandomState>);

impl Contender for MokaCache {
    type User = u64;

    fn with_users(users: u32) -> (MokaCache, Vec<u64>) {
        let cache = moka::sync::Cache::builder()
            .time_to_idle(Duration::from_nanos(TIMEOUT))
            .build_with_hasher(foldhash::quality::RandomState::default());
        let keys: Vec<_> = (0..users).map(key).collect();
        for key in &keys {
            cache.insert(*key, ());
        }
        cache.run_pending_tasks();
        (MokaCache(cache), keys)
    }

    #[inline]
    fn heartbeat(&mut self, key: &u64, _moment: u64) {
        let kept = self.0.get(key);
        debug_assert!(kept.is_some());
    }
}
