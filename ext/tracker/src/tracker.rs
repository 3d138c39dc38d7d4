//! The lock around [`Presence`], and the timer thread.
//!
//! The lock is the standard library's, which has no table that all locks share: a lock that another thread held at a
//! fork does not affect the child process, which makes a tracker of its own.

mod heartbeat_batch;
mod last_claim;
mod sessions;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use self::heartbeat_batch::HeartbeatBatch;
use crate::id::{Id, OwnedId};
use crate::presence::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, LeaveOutcome, Next, Presence, Transition,
    User,
};
use crate::stalls::StallDetector;
use crate::sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, PoisonError, TryLockError, thread,
};
use crate::time::{Clock, Nanos, TICK};

/// How many users the timer thread checks before it releases the lock.
const CHECKS_PER_STEP: usize = if cfg!(feature = "shuttle") { 1 } else { 256 };

/// How often the timer thread yields before it queues for the lock like any other thread. Without a bound it could wait
/// for ever, since there may always be a waiting thread, and no user would expire.
const MAX_YIELDS: usize = if cfg!(feature = "shuttle") { 2 } else { 1_000 };

/// How long the timer thread sleeps after a panic, so that it does not spin if it panics again.
const PANIC_BACKOFF: Duration = Duration::from_millis(100);

/// Wakes the reactor, the thread that runs the callbacks. Level-triggered: it stays raised until it is cleared.
///
/// Both methods are called with the tracker's lock held, on any thread. They must neither block nor call the tracker.
pub trait Signal: Send + Sync + 'static {
    /// A user can be claimed, or a stop was requested.
    fn raise(&self);
    /// No user can be claimed any more.
    fn clear(&self);
}

/// The presence of all users, shared by any number of threads.
pub struct Tracker<C: Clock, S: Signal> {
    shared: Arc<Shared<C, S>>,
    /// The timer thread, unless the caller steps the tracker itself.
    timer: Option<thread::JoinHandle<()>>,
}

/// What the timer thread shares with the tracker.
struct Shared<C, S> {
    presence: Mutex<Presence>,
    /// Wakes the timer thread when a user is scheduled for an earlier tick than it sleeps until.
    wakeup: Condvar,
    /// How many threads wait for the lock. The timer thread yields while there are any.
    waiting_threads: AtomicUsize,
    /// Whether the timer thread has to end.
    is_ended: AtomicBool,
    timer_panics: AtomicU64,
    /// What was claimed last, until [`Tracker::end_claim`]. Used by the reactor only.
    claimed: Mutex<Option<(Transition, Vec<User>)>>,
    /// Its lock is taken after that of the presence, by the timer thread and the reactor only.
    stalls: Mutex<StallDetector>,
    clock: C,
    signal: S,
}

impl<C: Clock, S: Signal> Tracker<C, S> {
    /// Makes a tracker and starts its timer thread.
    ///
    /// # Errors
    ///
    /// If the operating system cannot start a thread.
    pub fn start(clock: C, signal: S) -> std::io::Result<Tracker<C, S>> {
        let mut tracker = Tracker::new(clock, signal);
        let shared = Arc::clone(&tracker.shared);
        let timer = thread::Builder::new().name("online_manager".into()).spawn(move || shared.run_timer())?;
        tracker.timer = Some(timer);
        Ok(tracker)
    }

    /// Makes a tracker without a timer thread, for callers that call [`Tracker::step`] themselves.
    pub fn new(clock: C, signal: S) -> Tracker<C, S> {
        let presence = Presence::new(clock.now(), clock.jitter());
        let shared = Shared {
            presence: Mutex::new(presence),
            wakeup: Condvar::new(),
            waiting_threads: AtomicUsize::new(0),
            is_ended: AtomicBool::new(false),
            timer_panics: AtomicU64::new(0),
            claimed: Mutex::new(None),
            stalls: Mutex::new(StallDetector::default()),
            clock,
            signal,
        };
        Tracker { shared: Arc::new(shared), timer: None }
    }

    /// Returns the present moment of the clock that heartbeats and expiry use.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.shared.clock.now()
    }

    /// See [`Presence::heartbeat`]; `now` is a reading of [`Tracker::now`] from just before.
    #[inline]
    pub fn heartbeat(&self, id: Id<'_>, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        let mut presence = self.shared.lock();
        let outcome = presence.heartbeat(id, now, timeout);
        self.shared.release(presence);
        outcome
    }

    /// Takes the lock for several heartbeats of one moment: a few hundred at most, since other threads wait meanwhile.
    /// No other method of the tracker may be called on this thread before the batch is dropped, or it deadlocks.
    pub fn heartbeat_batch(&self, now: Nanos, timeout: Nanos) -> HeartbeatBatch<'_, C, S> {
        HeartbeatBatch::new(&self.shared, now, timeout)
    }

    /// See [`Presence::announced`].
    pub fn announced(&self, user: User, timeout: Nanos, outcome: CallbackOutcome) -> Announced {
        self.with(|presence, now| presence.announced(user, now, timeout, outcome))
    }

    /// See [`Presence::leave`].
    pub fn leave(&self, id: Id<'_>, after: Nanos) -> LeaveOutcome {
        self.with(|presence, now| presence.leave(id, now, after))
    }

    /// See [`Presence::claim`]. Clears the signal if nobody can be claimed.
    ///
    /// `reads_heartbeats` says whether heartbeats are read on this thread, or on its event loop: then a long callback keeps
    /// them from being read, and puts claims off (rule 14).
    ///
    /// [`Tracker::end_claim`] must follow, before the next claim.
    pub fn claim(&self, max: usize, reads_heartbeats: bool, claimed: &mut Vec<Claimed>) -> Option<Transition> {
        let mut presence = self.shared.lock();
        let now = self.now();
        let mut stalls = self.shared.stalls();
        stalls.answer(now).into_iter().for_each(|stall| presence.add_stall(stall));
        presence.set_running_until(stalls.running_until(now));
        let transition = presence.claim(now, max, claimed);
        if !claimed.is_empty() && !reads_heartbeats {
            stalls.calls();
        }
        drop(stalls);
        if transition.is_none() {
            // Under the lock: a user who becomes due between the claim and this would wake nobody.
            self.shared.signal.clear();
        }
        self.shared.release(presence);
        *self.shared.claimed() =
            transition.map(|transition| (transition, claimed.iter().map(|user| user.user).collect()));
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

    /// Reports the end of `offline` of several users and takes the lock once for 256 of them, see
    /// [`Presence::departed`]. Returns the users who are [`Departed::Offline`], in order.
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

    /// See [`Presence::stop`]. Raises the signal, so that the remaining users are claimed. Ends the timer thread, since
    /// everyone is due.
    pub fn stop(&self) -> Vec<User> {
        let mut presence = self.shared.lock();
        let dropped = presence.stop();
        self.shared.signal.raise();
        self.shared.end_timer(presence);
        dropped
    }

    /// See [`Presence::rekey`].
    pub fn rekey(&self, old: u64, new: u64) -> bool {
        self.with(|presence, _| presence.rekey(old, new))
    }

    /// Raises the signal even if nobody can be claimed: a claim that finds nobody clears it.
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

    /// See [`Presence::last_seen_in_callback`].
    pub fn last_seen_in_callback(&self, user: User) -> Option<Nanos> {
        let presence = self.shared.lock();
        presence.last_seen_in_callback(user, self.now())
    }

    /// See [`Presence::counts`].
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts()
    }

    /// Returns the ids of all users online. The lock is released between the parts of the table, so a user who changes
    /// meanwhile may be among them or not.
    pub fn online_users(&self) -> Vec<OwnedId> {
        (0..Presence::PARTS).flat_map(|part| self.shared.lock().online_users(part)).collect()
    }

    /// Returns how often the timer thread has panicked. Each panic is a bug, which it survives and which the panic hook
    /// prints.
    pub fn timer_panics(&self) -> u64 {
        self.shared.timer_panics.load(Ordering::Relaxed)
    }

    /// Frees the users of a parent process in a child of `fork`, unless a thread of the parent had the lock at the
    /// fork: then they may be half changed, and stay where they are. The timer thread is not there to be joined.
    pub fn abandon_in_child(self) {
        if let Ok(mut presence) = self.shared.presence.try_lock() {
            presence.free();
        }
        // Its destructor would wait for the timer thread. What that thread shares with it is about a kilobyte.
        std::mem::forget(self);
    }

    /// Runs one step of the timer thread. Returns for how many nanoseconds it may sleep: `Some(0)` for not at all,
    /// `None` for until it is woken.
    pub fn step(&self) -> Option<Nanos> {
        self.shared.step(&mut self.shared.lock())
    }

    /// Wakes the timer thread if its next tick has begun. Shuttle's condition variables have no timeouts, so a test
    /// that moves the clock must call this.
    #[cfg(feature = "shuttle")]
    pub fn wake_timer_if_due(&self) {
        let presence = self.shared.lock();
        let is_due = presence.is_timer_due(self.now());
        drop(presence);
        if is_due {
            self.shared.wakeup.notify_one();
        }
    }

    /// Runs `operation` under the lock, and raises the signal if a user can be claimed after it.
    fn with<T>(&self, operation: impl FnOnce(&mut Presence, Nanos) -> T) -> T {
        let mut presence = self.shared.lock();
        // Read under the lock, so that the operation is no earlier than a heartbeat that took the lock before it.
        let now = self.now();
        let result = operation(&mut presence, now);
        if presence.is_claimable() {
            self.shared.signal.raise();
        }
        self.shared.release(presence);
        result
    }
}

impl<C: Clock, S: Signal> Drop for Tracker<C, S> {
    /// Ends the timer thread and joins it. It waits for nothing but the lock and the wakeup, so this does not hang.
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.shared.end_timer(self.shared.lock());
            // The panic hook has printed its panics.
            drop(timer.join());
        }
    }
}

impl<C: Clock, S: Signal> Shared<C, S> {
    /// Takes the lock, poisoned or not: after a panic each method of `Presence` leaves a state that the next one can
    /// work with, and a poisoned lock would refuse every heartbeat from then on.
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

    /// Releases the lock, and wakes the timer thread if a user is scheduled for an earlier tick than it sleeps until.
    #[inline]
    fn release(&self, mut presence: MutexGuard<'_, Presence>) {
        let is_wake_requested = presence.take_wake_request();
        drop(presence);
        if is_wake_requested {
            self.wakeup.notify_one();
        }
    }

    /// Releases the lock, and makes the timer thread end.
    fn end_timer(&self, presence: MutexGuard<'_, Presence>) {
        // Under the lock: otherwise the thread could read this just before, miss the wakeup and sleep on.
        self.is_ended.store(true, Ordering::Relaxed);
        drop(presence);
        self.wakeup.notify_one();
    }

    /// See [`Tracker::step`].
    fn step(&self, presence: &mut Presence) -> Option<Nanos> {
        let now = self.clock.now();
        let mut stalls = self.stalls();
        stalls.timer_awake(now).into_iter().for_each(|stall| presence.add_stall(stall));
        presence.set_running_until(stalls.running_until(now));
        let next = presence.advance(now, CHECKS_PER_STEP);
        let (is_asked, ask_at) = stalls.ask(now, presence.shortest_timeout());
        if is_asked || presence.is_claimable() {
            self.signal.raise();
        }
        let wake_at = match next {
            Next::Now => Some(now),
            // At least a tick: a clock that moves in steps may not have reached the moment after the sleep, and the
            // thread would spin until it has.
            Next::At(moment) => Some(moment.min(ask_at.unwrap_or(Nanos::MAX)).max(now.saturating_add(TICK))),
            Next::Never => ask_at,
        };
        stalls.timer_sleeps(wake_at);
        wake_at.map(|moment| moment.saturating_sub(now))
    }

    fn stalls(&self) -> MutexGuard<'_, StallDetector> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the timer thread until the tracker is stopped or dropped. It survives a panic, which is a bug: without it
    /// everyone would stay online for ever.
    fn run_timer(&self) {
        while catch_unwind(AssertUnwindSafe(|| self.timer_loop())).is_err() {
            self.timer_panics.fetch_add(1, Ordering::Relaxed);
            let is_running = |_: &mut Presence| !self.is_ended.load(Ordering::Relaxed);
            drop(self.wakeup.wait_timeout_while(self.lock(), PANIC_BACKOFF, is_running));
        }
    }

    /// Steps and sleeps until the timer thread has to end.
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

    /// Lets threads that wait for the lock go first: one may hold a lock that all others need (Ruby's).
    fn yield_to_waiters(&self) {
        for _ in 0..MAX_YIELDS {
            if self.waiting_threads.load(Ordering::Relaxed) == 0 {
                break;
            }
            thread::yield_now();
        }
    }
}
