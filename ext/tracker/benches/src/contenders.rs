//! The contenders of the benchmark: each holds a number of users and takes their heartbeats.
//!
//! | contender | a heartbeat |
//! |---|---|
//! | [`Core`] | [`Tracker::heartbeat`] of a key, at a moment that is passed in |
//! | [`CoreWithClock`] | the same, with the moment read from the gem's clock, beside a running timer thread |
//! | [`CoreWithStrings`] | as [`Core`], of a string |
//! | [`Map`] | stores a deadline in a plain hash map, without a lock, a clock or expiry |
//! | [`LockedMap`] | as [`Map`], behind the standard library's mutex |
//! | [`StringMap`] | as [`Map`], of a string |
//! | [`TokioDelayQueue`] | tokio-util's `DelayQueue::reset`, with a key that needs no lookup |
//! | [`MokaCache`] | moka's `get`, with a time to idle |

use std::time::Duration;

use online_manager_tracker::{
    Announced, CallbackOutcome, Clock, HeartbeatOutcome, Id, Nanos, Signal, StringId, Tracker,
};

/// The timeout of every heartbeat, in nanoseconds: an hour, so that no user goes offline during a run.
const TIMEOUT: Nanos = 3_600_000_000_000;

/// Returns the key of a user: odd, like those of Ruby's small integers.
fn key(user: u32) -> u64 {
    u64::from(user) << 1 | 1
}

/// Returns the string id of a user: 36 characters, as in a UUID.
pub fn string_id(user: u32) -> String {
    let scattered = u64::from(user).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{scattered:016x}-7000-{user:014x}")
}

/// A data structure that takes heartbeats.
pub trait Contender {
    /// What identifies a user.
    type User;

    /// Returns a contender with `users` users, and what identifies each of them.
    fn with_users(users: u32) -> (Self, Vec<Self::User>)
    where
        Self: Sized;

    /// Takes a heartbeat; `moment` grows by one each time.
    fn heartbeat(&mut self, user: &Self::User, moment: u64);
}

/// A signal without a reactor.
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

/// The clock of the gem, the cheapest on Linux.
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

/// Brings a user online.
fn bring_online<C: Clock>(tracker: &Tracker<C, NoSignal>, id: Id<'_>) {
    let HeartbeatOutcome::Announce(user) = tracker.heartbeat(id, tracker.now(), TIMEOUT) else {
        panic!("{id:?} is not new")
    };
    assert_eq!(tracker.announced(user, TIMEOUT, CallbackOutcome::Returned), Announced::Online);
}

/// The tracker, with keys.
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

/// The tracker, with keys, as the gem runs it.
pub struct CoreWithClock(Tracker<CoarseClock, NoSignal>);

impl Contender for CoreWithClock {
    type User = u64;

    fn with_users(users: u32) -> (CoreWithClock, Vec<u64>) {
        let tracker = Tracker::start(CoarseClock, NoSignal).expect("the operating system starts a thread");
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

/// The tracker, with strings.
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

/// A hash map with the hasher of the tracker's table, and with values of the same size.
type Hashed<K> = hashbrown::HashMap<K, Deadline, foldhash::quality::RandomState>;

/// Eight bytes, of which a heartbeat writes four.
struct Deadline {
    tick: u32,
    _rest: u32,
}

fn deadline(moment: u64) -> u32 {
    ((moment + TIMEOUT) >> 20) as u32
}

/// A plain hash map, with keys.
pub struct Map(Hashed<u64>);

impl Contender for Map {
    type User = u64;

    fn with_users(users: u32) -> (Map, Vec<u64>) {
        let keys: Vec<_> = (0..users).map(key).collect();
        // Without a capacity: the tracker grows too.
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

/// [`Map`] behind a mutex like the tracker's.
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

/// A plain hash map, with strings.
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

/// tokio-util's timer queue, in a tokio runtime.
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
        // Entering the runtime costs a few nanoseconds of a hundred.
        let _entered = self.runtime.enter();
        self.queue.reset(key, Duration::from_nanos(TIMEOUT));
    }
}

/// moka's cache, with the hasher of the tracker's table.
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
