//! Those who are compared: each knows a number of users, and takes heartbeats of theirs.
//!
//! | contender | a heartbeat is |
//! |---|---|
//! | [`Core`] | [`Tracker::heartbeat`], of a key, with a time that is given |
//! | [`CoreByTheClock`] | the same, with the time read from the gem's clock, beside a running timer thread |
//! | [`CoreOfTexts`] | the same as the first, of a string |
//! | [`Map`] | a deadline stored in a bare hash map: no lock, no clock, and nobody is ever offline |
//! | [`LockedMap`] | the same, behind the standard library's mutex |
//! | [`MapOfTexts`] | as [`Map`], of a string |
//! | [`Delays`] | tokio-util's `DelayQueue::reset`, by a key that need not be looked up |
//! | [`Cache`] | moka's `get`, with a time-to-idle |

use std::time::Duration;

use online_manager_tracker::{Announced, HeartbeatOutcome, Clock, Id, Nanos, CallbackOutcome, Signal, StringId, Tracker};

/// What every contender gets: an hour, so that nobody is offline before the end.
const TIMEOUT: Nanos = 3_600_000_000_000;

/// How the users of keys are told apart: as Ruby's small integers are, by their odd keys.
fn key(user: u32) -> u64 {
    u64::from(user) << 1 | 1
}

/// The name of a user of strings: 36 characters, as a UUID has.
pub fn text(user: u32) -> String {
    let scattered = u64::from(user).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{scattered:016x}-7000-{user:014x}")
}

/// Somebody who keeps track of users.
pub trait Contender {
    /// What a user is known by.
    type User;

    /// One who knows `users` users, and what each of them is known by.
    fn knowing(users: u32) -> (Self, Vec<Self::User>)
    where
        Self: Sized;

    /// A heartbeat; `moment` grows by one with each.
    fn beat(&mut self, user: &Self::User, moment: u64);
}

/// Nobody to wake.
struct Silence;

impl Signal for Silence {
    fn raise(&self) {}
    fn clear(&self) {}
}

/// A clock that stands still.
struct Standstill;

impl Clock for Standstill {
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

fn introduce<C: Clock>(tracker: &Tracker<C, Silence>, id: Id<'_>) {
    let HeartbeatOutcome::Announce(user) = tracker.heartbeat(id, tracker.now(), TIMEOUT) else { panic!("{id:?} is not new") };
    assert_eq!(tracker.announced(user, TIMEOUT, CallbackOutcome::Returned), Announced::Online);
}

/// The tracker, of keys.
pub struct Core(Tracker<Standstill, Silence>);

impl Contender for Core {
    type User = u64;

    fn knowing(users: u32) -> (Core, Vec<u64>) {
        let tracker = Tracker::new(Standstill, Silence);
        let keys: Vec<_> = (0..users).map(key).collect();
        for key in &keys {
            introduce(&tracker, Id::Key(*key));
        }
        (Core(tracker), keys)
    }

    #[inline]
    fn beat(&mut self, key: &u64, moment: u64) {
        let beat = self.0.heartbeat(Id::Key(*key), moment, TIMEOUT);
        debug_assert_eq!(beat, HeartbeatOutcome::Known);
    }
}

/// The tracker, of keys, as the gem runs it.
pub struct CoreByTheClock(Tracker<CoarseClock, Silence>);

impl Contender for CoreByTheClock {
    type User = u64;

    fn knowing(users: u32) -> (CoreByTheClock, Vec<u64>) {
        let tracker = Tracker::start(CoarseClock, Silence).expect("there is a thread to be had");
        let keys: Vec<_> = (0..users).map(key).collect();
        for key in &keys {
            introduce(&tracker, Id::Key(*key));
        }
        (CoreByTheClock(tracker), keys)
    }

    #[inline]
    fn beat(&mut self, key: &u64, _moment: u64) {
        let beat = self.0.heartbeat(Id::Key(*key), self.0.now(), TIMEOUT);
        debug_assert_eq!(beat, HeartbeatOutcome::Known);
    }
}

/// The tracker, of strings.
pub struct CoreOfTexts(Tracker<Standstill, Silence>);

impl Contender for CoreOfTexts {
    type User = String;

    fn knowing(users: u32) -> (CoreOfTexts, Vec<String>) {
        let tracker = Tracker::new(Standstill, Silence);
        let strings: Vec<_> = (0..users).map(text).collect();
        for text in &strings {
            introduce(&tracker, Id::String(StringId { bytes: text.as_bytes(), class: 0, label: 1 }));
        }
        (CoreOfTexts(tracker), strings)
    }

    #[inline]
    fn beat(&mut self, text: &String, moment: u64) {
        let id = Id::String(StringId { bytes: text.as_bytes(), class: 0, label: 1 });
        let beat = self.0.heartbeat(id, moment, TIMEOUT);
        debug_assert_eq!(beat, HeartbeatOutcome::Known);
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

    fn knowing(users: u32) -> (Map, Vec<u64>) {
        let keys: Vec<_> = (0..users).map(key).collect();
        // It grows as the tracker does.
        let mut map = Hashed::default();
        for key in &keys {
            map.insert(*key, Deadline { tick: 0, _rest: 0 });
        }
        (Map(map), keys)
    }

    #[inline]
    fn beat(&mut self, key: &u64, moment: u64) {
        if let Some(kept) = self.0.get_mut(key) {
            kept.tick = deadline(moment);
        }
    }
}

/// The same behind the mutex that the tracker has too.
pub struct LockedMap(std::sync::Mutex<Map>);

impl Contender for LockedMap {
    type User = u64;

    fn knowing(users: u32) -> (LockedMap, Vec<u64>) {
        let (map, keys) = Map::knowing(users);
        (LockedMap(std::sync::Mutex::new(map)), keys)
    }

    #[inline]
    fn beat(&mut self, key: &u64, moment: u64) {
        // Not `get_mut`, which takes no lock.
        if let Ok(mut map) = self.0.lock() {
            map.beat(key, moment);
        }
    }
}

/// A bare hash map, of strings.
pub struct MapOfTexts(Hashed<Box<str>>);

impl Contender for MapOfTexts {
    type User = String;

    fn knowing(users: u32) -> (MapOfTexts, Vec<String>) {
        let strings: Vec<_> = (0..users).map(text).collect();
        let mut map = Hashed::default();
        for text in &strings {
            map.insert(text.as_str().into(), Deadline { tick: 0, _rest: 0 });
        }
        (MapOfTexts(map), strings)
    }

    #[inline]
    fn beat(&mut self, text: &String, moment: u64) {
        if let Some(kept) = self.0.get_mut(text.as_str()) {
            kept.tick = deadline(moment);
        }
    }
}

/// tokio-util's queue of timers, inside a runtime of tokio's.
pub struct Delays {
    queue: tokio_util::time::DelayQueue<u32>,
    runtime: tokio::runtime::Runtime,
}

impl Contender for Delays {
    type User = tokio_util::time::delay_queue::Key;

    fn knowing(users: u32) -> (Delays, Vec<Self::User>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("tokio starts");
        let entered = runtime.enter();
        let mut queue = tokio_util::time::DelayQueue::new();
        let keys = (0..users).map(|user| queue.insert(user, Duration::from_nanos(TIMEOUT))).collect();
        drop(entered);
        (Delays { queue, runtime }, keys)
    }

    #[inline]
    fn beat(&mut self, key: &Self::User, _moment: u64) {
        // What it costs to enter is a few nanoseconds of a hundred.
        let _entered = self.runtime.enter();
        self.queue.reset(key, Duration::from_nanos(TIMEOUT));
    }
}

/// moka's cache, hashed as the tracker's table is.
pub struct Cache(moka::sync::Cache<u64, (), foldhash::quality::RandomState>);

impl Contender for Cache {
    type User = u64;

    fn knowing(users: u32) -> (Cache, Vec<u64>) {
        let cache = moka::sync::Cache::builder()
            .time_to_idle(Duration::from_nanos(TIMEOUT))
            .build_with_hasher(foldhash::quality::RandomState::default());
        let keys: Vec<_> = (0..users).map(key).collect();
        for key in &keys {
            cache.insert(*key, ());
        }
        cache.run_pending_tasks();
        (Cache(cache), keys)
    }

    #[inline]
    fn beat(&mut self, key: &u64, _moment: u64) {
        let kept = self.0.get(key);
        debug_assert!(kept.is_some());
    }
}
