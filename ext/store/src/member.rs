//! How a process participates: a thread that writes heartbeats to the store, sweeps, acquires leases, and hands the events
//! of its partitions to the reactor.
//!
//! Only that thread, and one that reads snapshots while anybody asks for them, ever wait for the store. Neither crosses a
//! fork: [`Member::pause`] ends them and closes their connections, [`Member::resume`] starts them anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use online_manager_tracker::{Clock, Id, Nanos, Signal, StallDetector, Transition};
use parking_lot::{Condvar, Mutex};

use self::call_rate::CallRate;
use crate::coalescer::{Coalesced, Coalescer};
use crate::id::UserId;
use crate::interrupt::Interrupt;
use crate::log::DeliveryOutcome;
use crate::store::{Event, Token};
use crate::store_url::StoreUrl;

mod call_rate;
mod reader;
mod slow_calls;
pub(crate) mod state;
mod thread;

use self::state::MemberState;
use reader::Reader;
pub use reader::{ReadResult, Timed};

const SECOND: Nanos = seconds(1);

/// Returns a number of milliseconds in nanoseconds.
const fn milliseconds(count: u64) -> Nanos {
    count * 1_000_000
}

/// Returns a number of seconds in nanoseconds.
const fn seconds(count: u64) -> Nanos {
    milliseconds(1_000 * count)
}

/// How long a fork waits for the reply of a store, before it interrupts the call.
const FORK_TIMEOUT: Nanos = milliseconds(500);

/// Whether a member's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No thread runs: the member has not started, or a fork ended its threads.
    Inactive,
    Running,
    /// The thread is to end, for a fork.
    Pausing,
    /// The thread is to write what is left, release its leases, and end for good.
    Stopping,
    /// All that is left is to close the store.
    Closing,
    Ended,
}

/// The figures of a member, for an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Status {
    /// The number of leases of this process: of partitions whose events it delivers.
    pub leases: usize,
    /// For how long heartbeats or leaves have been waiting to be written without a pause, in nanoseconds: none is older.
    pub flush_lag: Nanos,
    /// The number of users whose heartbeats or leaves wait to be written.
    pub unwritten: usize,
    /// How late the last sweep was that set a user offline, in nanoseconds.
    pub sweep_lag: Nanos,
    /// The number of times that a callback has failed in this process.
    pub retries: u64,
    /// The number of times that a call to the store has failed in this process.
    pub store_errors: u64,
    /// The calls of this process to the store, per second, since the last status that is at least a second old.
    pub calls_per_second: f64,
}

/// The part of a process in a store. All methods may be called on any thread, and none waits for the store.
pub struct Member<C: Clock, S: Signal> {
    shared: Arc<Shared<C, S>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared<C, S> {
    store_url: StoreUrl,
    namespace: String,
    coalescer: Coalescer,
    /// The signal is raised and cleared with this lock held. A part of the coalescer is locked before it, never after.
    state: Mutex<MemberState>,
    wakeup: Condvar,
    is_woken: AtomicBool,
    /// The config's timeout, which the snapshot's reader asks for too.
    timeout: AtomicU64,
    reader: Mutex<Reader>,
    reader_wakeup: Condvar,
    interrupt: Interrupt,
    call_rate: Mutex<CallRate>,
    /// Its lock is taken after that of the state.
    stalls: Mutex<StallDetector>,
    /// When a fork began to wait for the threads.
    pausing_since: AtomicU64,
    clock: C,
    signal: S,
}

impl<C: Clock, S: Signal> Member<C, S> {
    /// Returns a member that has not started yet.
    ///
    /// # Errors
    ///
    /// When the operating system returns no random numbers.
    pub fn new(store_url: StoreUrl, namespace: String, clock: C, signal: S) -> std::io::Result<Member<C, S>> {
        let (token, seed) = draw_token()?;
        let state = MemberState::new(store_url.to_string(), token, seed, clock.jitter());
        let shared = Shared {
            store_url,
            namespace,
            coalescer: Coalescer::default(),
            state: Mutex::new(state),
            wakeup: Condvar::new(),
            is_woken: AtomicBool::new(false),
            timeout: AtomicU64::new(SECOND),
            reader: Mutex::default(),
            reader_wakeup: Condvar::new(),
            interrupt: Interrupt::default(),
            call_rate: Mutex::new(CallRate::new(clock.now())),
            stalls: Mutex::default(),
            pausing_since: AtomicU64::new(0),
            clock,
            signal,
        };
        Ok(Member { shared: Arc::new(shared), threads: Mutex::default() })
    }

    /// Returns the time by which heartbeats are measured.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.shared.clock.now()
    }

    /// Sets the config's timeout, in nanoseconds.
    pub fn set_timeout(&self, timeout: Nanos) {
        if self.shared.timeout.swap(timeout.max(1), Ordering::Relaxed) != timeout.max(1) {
            self.shared.state.lock().timeout = timeout.max(1);
        }
    }

    /// Starts the member's thread if it does not run yet. Does nothing after a stop.
    ///
    /// # Errors
    ///
    /// When the operating system cannot start a thread.
    pub fn start(&self) -> std::io::Result<()> {
        let mut state = self.shared.state.lock();
        if state.phase == Phase::Inactive {
            let shared = Arc::clone(&self.shared);
            let thread =
                std::thread::Builder::new().name("online_manager".into()).spawn(move || shared.run_thread())?;
            self.keep(thread);
            state.phase = Phase::Running;
            state.name = format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id());
        }
        Ok(())
    }

    /// Has the member leave the store alone until [`Member::set_last_version`]. Does nothing once that was called, or the thread
    /// runs.
    pub fn await_last_version(&self) {
        let mut state = self.shared.state.lock();
        if state.phase == Phase::Inactive && !state.has_last_version {
            state.awaits_last_version = true;
        }
    }

    /// Returns whether the reactor is to ask for the application's last version, and call [`Member::set_last_version`].
    pub fn awaits_last_version(&self) -> bool {
        let state = self.shared.state.lock();
        state.awaits_last_version && !matches!(state.phase, Phase::Inactive | Phase::Ended)
    }

    /// Sets the application's last version, 0 if none is known: the store gives out higher ones from then on.
    pub fn set_last_version(&self, version: u64) {
        self.shared.state.lock().set_last_version(version);
        self.shared.wake_thread();
    }

    /// Keeps a thread that was started, and removes those that have ended.
    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Returns whether [`Member::start`] would start a thread.
    pub fn is_inactive(&self) -> bool {
        self.shared.state.lock().phase == Phase::Inactive
    }

    /// Records a heartbeat at `now` that is good for `timeout` nanoseconds. [`Coalesced::Unknown`] asks for
    /// [`Member::add_user`].
    #[inline]
    pub fn heartbeat(&self, id: Id<'_>, now: Nanos, timeout: Nanos) -> Coalesced {
        let heartbeat = self.shared.coalescer.heartbeat(id, now, timeout, &self.shared.state);
        if heartbeat == Coalesced::WriteDue {
            self.shared.wake_thread();
        }
        heartbeat
    }

    /// Records the first heartbeat of a user who is not known here: `user_id` is the name of `id` in the store.
    pub fn add_user(&self, id: Id<'_>, user_id: UserId, now: Nanos, timeout: Nanos) {
        let mut state = self.shared.state.lock();
        state.has_seen_heartbeat = true;
        state.changed(now);
        drop(state);
        self.shared.coalescer.add_user(id, user_id, now, timeout, &self.shared.state);
        self.shared.wake_thread();
    }

    /// Records a leave at `at`, which makes the user due `after` nanoseconds later.
    pub fn leave(&self, id: Id<'_>, user_id: UserId, at: Nanos, after: Nanos) {
        self.shared.coalescer.leave(id, user_id, (at, after), &self.shared.state);
        let mut state = self.shared.state.lock();
        // A fork waits until the leave is written, and the member goes on after it.
        state.has_seen_heartbeat = true;
        state.changed(self.now());
        drop(state);
        self.shared.wake_thread();
    }

    /// Returns the time of the user's last heartbeat in this process, if that is less than its timeout ago.
    pub fn last_seen_here(&self, id: Id<'_>) -> Option<Nanos> {
        self.shared.coalescer.last_seen(id, self.now())
    }

    /// Claims events for delivery: several for one call if `together` says so for their transition. Clears the signal when
    /// there are none. [`Member::delivered`] must follow.
    ///
    /// `reads_heartbeats` says whether heartbeats are read on this thread, or on its event loop: then a long callback keeps
    /// them from being read, and their users' deadlines are put off.
    pub fn claim(
        &self,
        reads_heartbeats: bool,
        together: impl Fn(Transition) -> bool,
    ) -> (Option<Transition>, Vec<Event>) {
        let mut state = self.shared.state.lock();
        let now = self.now();
        let mut stalls = self.shared.stalls.lock();
        state.awake(now);
        stalls.answer(now).into_iter().for_each(|stall| state.stall_ended(stall));
        let is_running = matches!(state.phase, Phase::Running | Phase::Pausing);
        // A stop waits for the outcome of the last call.
        let was_left = state.log.end_last_call(now);
        let claimed = if is_running { state.log.claim(now, together) } else { (None, Vec::new()) };
        if claimed.1.is_empty() && state.outages.is_empty() {
            self.shared.signal.clear();
        }
        if !claimed.1.is_empty() && !reads_heartbeats {
            stalls.calls();
        }
        drop((stalls, state));
        if was_left {
            self.shared.wake_thread();
        }
        claimed
    }

    /// Records the outcome of the events that were claimed.
    pub fn delivered(&self, how: &DeliveryOutcome) {
        let mut state = self.shared.state.lock();
        state.log.delivered(how, self.now());
        drop(state);
        self.shared.wake_thread();
    }

    /// Takes out a message for the application: there is one for each outage of the store.
    pub fn next_outage(&self) -> Option<String> {
        self.shared.state.lock().outages.pop_front()
    }

    /// Raises the signal even if nothing is to be done.
    pub fn wake_reactor(&self) {
        let state = self.shared.state.lock();
        self.shared.signal.raise();
        drop(state);
    }

    /// Returns the member's figures.
    pub fn status(&self) -> Status {
        let now = self.now();
        let state = self.shared.state.lock();
        Status {
            leases: state.log.unexpired_leases(now),
            flush_lag: state.outbox.lag(now),
            unwritten: state.outbox.len(),
            sweep_lag: state.counters.sweep_lag,
            retries: state.log.retries(),
            store_errors: state.counters.store_errors,
            calls_per_second: self.shared.call_rate.lock().update(now, state.counters.calls),
        }
    }

    /// Has the threads end and close their connections, for a fork. Returns at once; see [`Member::is_paused`].
    pub fn pause(&self) {
        let mut state = self.shared.state.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Pausing;
        }
        drop(state);
        self.shared.pausing_since.store(self.now(), Ordering::Relaxed);
        self.shared.wake_thread();
        self.shared.reader.lock().is_ending = true;
        self.shared.reader_wakeup.notify_one();
    }

    /// Returns whether all threads have ended, also one that stops for good. A call that the store does not answer is
    /// interrupted after a while.
    pub fn is_paused(&self) -> bool {
        let mut threads = self.threads.lock();
        if threads.iter().any(|thread| !thread.is_finished()) {
            if self.now().saturating_sub(self.shared.pausing_since.load(Ordering::Relaxed)) > FORK_TIMEOUT {
                self.shared.interrupt.raise();
            }
            return false;
        }
        self.shared.interrupt.clear();
        // Rust has printed their panics on standard error.
        threads.drain(..).for_each(|thread| drop(thread.join()));
        true
    }

    /// Returns whether a thread of this member runs, or has a connection: such a process must not fork.
    pub fn has_threads(&self) -> bool {
        !self.threads.lock().is_empty()
    }

    /// Goes on after a fork, in the parent, if the process has had a heartbeat or a leave. Otherwise it has released its
    /// leases, and participates again from its next [`Member::start`].
    ///
    /// # Errors
    ///
    /// When the operating system cannot start a thread.
    pub fn resume(&self) -> std::io::Result<()> {
        self.shared.reader.lock().is_ending = false;
        let mut state = self.shared.state.lock();
        if state.phase == Phase::Pausing {
            state.phase = Phase::Inactive;
        }
        let has_seen_heartbeat = state.has_seen_heartbeat;
        drop(state);
        if has_seen_heartbeat { self.start() } else { Ok(()) }
    }

    /// Claims no further events, writes what is left and releases the leases. Raises the signal when that is done.
    pub fn stop(&self) {
        let mut state = self.shared.state.lock();
        match state.phase {
            Phase::Running | Phase::Pausing => state.phase = Phase::Stopping,
            Phase::Inactive => state.phase = Phase::Ended,
            Phase::Stopping | Phase::Closing | Phase::Ended => {}
        }
        drop(state);
        self.shared.wake_thread();
        self.wake_reactor();
    }

    /// Returns whether the stop is complete and the store is closed: then the process may exit.
    pub fn has_ended(&self) -> bool {
        self.shared.state.lock().phase == Phase::Ended
    }
}

impl<C: Clock, S: Signal> Drop for Member<C, S> {
    fn drop(&mut self) {
        self.stop();
        // The threads end by themselves within a few seconds; a drop does not wait for a store.
    }
}

impl<C: Clock, S: Signal> Shared<C, S> {
    /// Wakes the member's thread.
    fn wake_thread(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            // With the lock, so that the thread cannot look just before this and sleep after it.
            drop(self.state.lock());
            self.wakeup.notify_one();
        }
    }
}

fn draw_token() -> std::io::Result<(Token, u64)> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    let [token @ .., a, b, c, d, e, f, g, h] = bytes;
    Ok((Token(token), u64::from_le_bytes([a, b, c, d, e, f, g, h])))
}
