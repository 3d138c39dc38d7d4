//! The lock around [`Presence`], and the timer thread.
//!
//! The lock is the standard library's: it keeps nothing in tables that all locks share, so a lock that
//! was taken when the process forked is of no concern to the child, which makes a tracker of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::id::{Id, OwnedId};
use crate::presence::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, LeaveOutcome, Next, Presence, Transition,
    User,
};
use crate::sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError, TryLockError, thread,
};
use crate::time::{Clock, Nanos, TICK};

/// How many users the timer thread looks at before it lets go of the lock.
const CHECKS_PER_STEP: usize = if cfg!(feature = "shuttle") { 1 } else { 256 };

/// How often the timer thread gives way before it queues for the lock like everybody else. There may
/// always be somebody who waits, and then nobody would ever leave.
const MAX_YIELDS: usize = if cfg!(feature = "shuttle") { 2 } else { 1_000 };

/// How long the timer thread rests after a panic, so that it does not spin if it panics again.
const PANIC_BACKOFF: Duration = Duration::from_millis(100);

/// Wakes whoever runs the callbacks. Level-triggered: once raised it stays so until it is cleared.
///
/// Both are called with the tracker's lock held, on any thread, and must neither block nor call the tracker.
pub trait Signal: Send + Sync + 'static {
    /// Somebody can be claimed, or a stop was asked for.
    fn raise(&self);
    /// Nobody can be claimed any more.
    fn clear(&self);
}

/// Who is online, for any number of threads.
pub struct Tracker<C: Clock, S: Signal> {
    shared: Arc<Shared<C, S>>,
    timer: Option<thread::JoinHandle<()>>,
}

struct Shared<C, S> {
    presence: Mutex<Presence>,
    /// Rings when the timer thread has to look at its wheel earlier than it meant to.
    wakeup: Condvar,
    /// How many threads wait for the lock. While there are any, the timer thread stands back.
    waiting_threads: AtomicUsize,
    is_ended: AtomicBool,
    timer_panics: AtomicU64,
    clock: C,
    signal: S,
}

impl<C: Clock, S: Signal> Tracker<C, S> {
    /// Makes a tracker and starts its timer thread.
    ///
    /// # Errors
    ///
    /// When the operating system has no thread to give.
    pub fn start(clock: C, signal: S) -> std::io::Result<Tracker<C, S>> {
        let mut tracker = Tracker::new(clock, signal);
        let shared = Arc::clone(&tracker.shared);
        let timer = thread::Builder::new().name("online_manager".into()).spawn(move || shared.run_timer())?;
        tracker.timer = Some(timer);
        Ok(tracker)
    }

    /// Makes a tracker without a timer thread, for callers that [`Tracker::step`] it themselves.
    pub fn new(clock: C, signal: S) -> Tracker<C, S> {
        let presence = Presence::new(clock.now(), clock.jitter());
        let shared = Shared {
            presence: Mutex::new(presence),
            wakeup: Condvar::new(),
            waiting_threads: AtomicUsize::new(0),
            is_ended: AtomicBool::new(false),
            timer_panics: AtomicU64::new(0),
            clock,
            signal,
        };
        Tracker { shared: Arc::new(shared), timer: None }
    }

    /// The time that heartbeats and expiry go by.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.shared.clock.now()
    }

    /// See [`Presence::heartbeat`]; `now` is what [`Tracker::now`] has just answered.
    #[inline]
    pub fn heartbeat(&self, id: Id<'_>, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        let mut presence = self.shared.lock();
        let outcome = presence.heartbeat(id, now, timeout);
        self.shared.release(presence);
        outcome
    }

    /// Takes the lock for several heartbeats of one moment, of a few hundred users at the most: the
    /// others wait meanwhile. Nothing else of the tracker may be called before the answer is dropped.
    pub fn heartbeat_batch(&self, now: Nanos, timeout: Nanos) -> HeartbeatBatch<'_, C, S> {
        HeartbeatBatch { shared: &self.shared, presence: Some(self.shared.lock()), now, timeout }
    }

    /// See [`Presence::announced`].
    pub fn announced(&self, user: User, timeout: Nanos, outcome: CallbackOutcome) -> Announced {
        self.with(|presence, now| presence.announced(user, now, timeout, outcome))
    }

    /// See [`Presence::leave`].
    pub fn leave(&self, id: Id<'_>, after: Nanos) -> LeaveOutcome {
        self.with(|presence, now| presence.leave(id, now, after))
    }

    /// See [`Presence::claim`]. Clears the signal when there is nobody.
    pub fn claim(&self, max: usize, claimed: &mut Vec<Claimed>) -> Option<Transition> {
        let mut presence = self.shared.lock();
        let transition = presence.claim(self.now(), max, claimed);
        if transition.is_none() {
            // Under the lock, so that nobody becomes due between the look and this.
            self.shared.signal.clear();
        }
        self.shared.release(presence);
        transition
    }

    /// See [`Presence::unclaim`].
    pub fn unclaim(&self, user: User, transition: Transition) -> Departed {
        self.with(|presence, now| presence.unclaim(user, transition, now))
    }

    /// See [`Presence::departed`].
    pub fn departed(&self, user: User) -> Departed {
        self.with(|presence, _| presence.departed(user))
    }

    /// See [`Presence::departed`]: the same for several users, for few takings of the lock. Answers those who are
    /// forgotten, in their order.
    pub fn departed_all(&self, users: impl IntoIterator<Item = User>) -> Vec<User> {
        let mut users = users.into_iter().peekable();
        let mut forgotten = Vec::new();
        while users.peek().is_some() {
            self.with(|presence, _| {
                let batch = users.by_ref().take(CHECKS_PER_STEP);
                forgotten.extend(batch.filter(|user| presence.departed(*user) == Departed::Offline));
            });
        }
        forgotten
    }

    /// See [`Presence::stop`]. Raises the signal, so that the remaining users are claimed. The timer thread ends:
    /// everybody is due.
    pub fn stop(&self) -> Vec<User> {
        let mut presence = self.shared.lock();
        let dropped = presence.stop();
        self.shared.signal.raise();
        self.shared.end_timer(presence);
        dropped
    }

    /// Raises the signal although perhaps nobody can be claimed: a claim will find out.
    pub fn wake_reactor(&self) {
        let presence = self.shared.lock();
        self.shared.signal.raise();
        drop(presence);
    }

    /// See [`Presence::is_online`].
    pub fn is_online(&self, id: Id<'_>) -> bool {
        self.shared.lock().is_online(id)
    }

    /// See [`Presence::is_known`].
    pub fn is_known(&self, id: Id<'_>) -> bool {
        self.shared.lock().is_known(id)
    }

    /// See [`Presence::last_seen`].
    pub fn last_seen(&self, id: Id<'_>) -> Option<Nanos> {
        let presence = self.shared.lock();
        presence.last_seen(id, self.now())
    }

    /// See [`Presence::counts`].
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts()
    }

    /// The ids of all who are online. The lock is let go of between the table's parts, so a user who
    /// changes meanwhile may be in the answer or not.
    pub fn online_users(&self) -> Vec<OwnedId> {
        (0..Presence::PARTS).flat_map(|part| self.shared.lock().online_users(part)).collect()
    }

    /// How often the timer thread has panicked. Each time is a bug that it has survived; it is told of on
    /// standard error.
    pub fn timer_panics(&self) -> u64 {
        self.shared.timer_panics.load(Ordering::Relaxed)
    }

    /// One turn of the timer thread; answers for how long it may rest: `Some(0)` not at all, `None`
    /// until somebody beats.
    pub fn step(&self) -> Option<Nanos> {
        self.shared.step(&mut self.shared.lock())
    }

    /// Ends the timer thread's rest if its time is over. Shuttle's condition variables do not know of time,
    /// so whoever moves the clock must call this.
    #[cfg(feature = "shuttle")]
    pub fn wake_timer_if_due(&self) {
        let presence = self.shared.lock();
        let is_due = presence.is_timer_due(self.now());
        drop(presence);
        if is_due {
            self.shared.wakeup.notify_one();
        }
    }

    fn with<T>(&self, operation: impl FnOnce(&mut Presence, Nanos) -> T) -> T {
        let mut presence = self.shared.lock();
        // Read under the lock, so that no heartbeat has a later reading than what comes after it.
        let now = self.now();
        let result = operation(&mut presence, now);
        if presence.is_claimable() {
            self.shared.signal.raise();
        }
        self.shared.release(presence);
        result
    }
}

/// The lock, held for several heartbeats.
pub struct HeartbeatBatch<'a, C: Clock, S: Signal> {
    shared: &'a Shared<C, S>,
    /// None only while it is dropped.
    presence: Option<MutexGuard<'a, Presence>>,
    now: Nanos,
    timeout: Nanos,
}

impl<C: Clock, S: Signal> HeartbeatBatch<'_, C, S> {
    /// See [`Presence::prefetch`].
    #[inline]
    pub fn prefetch(&self, id: Id<'_>) {
        if let Some(presence) = &self.presence {
            presence.prefetch(id);
        }
    }

    /// See [`Presence::heartbeat`].
    #[inline]
    pub fn heartbeat(&mut self, id: Id<'_>) -> HeartbeatOutcome {
        match &mut self.presence {
            Some(presence) => presence.heartbeat(id, self.now, self.timeout),
            None => HeartbeatOutcome::Ignored,
        }
    }
}

impl<C: Clock, S: Signal> Drop for HeartbeatBatch<'_, C, S> {
    fn drop(&mut self) {
        if let Some(presence) = self.presence.take() {
            self.shared.release(presence);
        }
    }
}

impl<C: Clock, S: Signal> Drop for Tracker<C, S> {
    /// Ends the timer thread, which never waits for anything but the lock and the wakeup.
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.shared.end_timer(self.shared.lock());
            // Its panics have been told of on standard error.
            drop(timer.join());
        }
    }
}

impl<C: Clock, S: Signal> Shared<C, S> {
    /// Takes the lock. A panic elsewhere does not poison it: each method of `Presence` leaves a state
    /// that the next can go on from, and refusing every heartbeat would help nobody.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Presence> {
        match self.presence.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.lock_contended(),
        }
    }

    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, Presence> {
        self.waiting_threads.fetch_add(1, Ordering::Relaxed);
        let guard = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting_threads.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Lets go of the lock, and tells the timer thread when it has to look earlier.
    #[inline]
    fn release(&self, mut presence: MutexGuard<'_, Presence>) {
        let is_wake_requested = presence.take_wake_request();
        drop(presence);
        if is_wake_requested {
            self.wakeup.notify_one();
        }
    }

    fn end_timer(&self, presence: MutexGuard<'_, Presence>) {
        // Under the lock, so that the thread does not look at this just before, and rest after it.
        self.is_ended.store(true, Ordering::Relaxed);
        drop(presence);
        self.wakeup.notify_one();
    }

    fn step(&self, presence: &mut Presence) -> Option<Nanos> {
        let now = self.clock.now();
        let next = presence.advance(now, CHECKS_PER_STEP);
        if presence.is_claimable() {
            self.signal.raise();
        }
        match next {
            Next::Now => Some(0),
            // A clock that moves in steps may not have reached the moment after that time: a tick more,
            // and the thread does not spin until it has.
            Next::At(moment) => Some(moment.saturating_sub(now).max(TICK)),
            Next::Never => None,
        }
    }

    /// Runs the timer thread until the tracker is stopped or dropped. A panic is a bug, but without expiry everybody
    /// would stay online for ever: so it goes on.
    fn run_timer(&self) {
        while catch_unwind(AssertUnwindSafe(|| self.timer_loop())).is_err() {
            self.timer_panics.fetch_add(1, Ordering::Relaxed);
            let is_running = |_: &mut Presence| !self.is_ended.load(Ordering::Relaxed);
            drop(self.wakeup.wait_timeout_while(self.lock(), PANIC_BACKOFF, is_running));
        }
    }

    fn timer_loop(&self) {
        let mut presence = self.lock();
        while !self.is_ended.load(Ordering::Relaxed) {
            presence = match self.step(&mut presence) {
                Some(0) => {
                    drop(presence);
                    self.yield_to_waiters();
                    self.lock()
                }
                Some(sleep) => {
                    let waited = self.wakeup.wait_timeout(presence, Duration::from_nanos(sleep));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wakeup.wait(presence).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Whoever waits may hold a lock of its own that everybody needs (Ruby's): lets it go first.
    fn yield_to_waiters(&self) {
        for _ in 0..MAX_YIELDS {
            if self.waiting_threads.load(Ordering::Relaxed) == 0 {
                break;
            }
            thread::yield_now();
        }
    }
}
