//! How a process takes part: a thread that takes beats to the store, sweeps, bids for leases, and hands the events of the
//! partitions that it has to whoever runs the callbacks.
//!
//! Only that thread, and one that reads snapshots while anybody asks for them, ever wait for the store. Neither crosses a
//! fork: [`Member::pause`] ends them and closes their connections, [`Member::resume`] starts them anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use online_manager_tracker::{Clock, Id, Nanos, Signal, TICK, Transition};
use parking_lot::{Condvar, Mutex};

use crate::beats::{Beats, Heartbeat};
use crate::error::StoreError;
use crate::id::UserId;
use crate::location::Location;
use crate::log::{Delivered, Log, backoff};
use crate::outbox::Outbox;
use crate::store::{Event, Message, Partition, Snapshot, Store, Token};

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLISECOND;

/// How often a member looks what the others have written.
const POLL: Nanos = 50 * MILLISECOND;

/// What is written in one step: so the others wait for a few milliseconds, and no longer.
const USERS_AT_ONCE: usize = 1_000;

/// The shortest time between two steps that write beats, so that a crowd does not come one by one.
const BREATH: Nanos = 2 * MILLISECOND;

/// How often an unreachable store is tried again: soon at first.
const FIRST_RETRY: Nanos = 100 * MILLISECOND;
const LAST_RETRY: Nanos = 2 * SECOND;

/// For how long a stop waits for a store that is away.
const FAREWELL: Nanos = 5 * SECOND;

/// A snapshot may be as old as so many times what it took, though it could be newer.
const REST_PER_READ: u64 = 20;

/// The reading thread ends when nobody has asked for so long.
const READER_IDLE: Duration = Duration::from_secs(10);

/// Whether a member's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It does not take part, or not any more.
    Out,
    Running,
    /// It is to end, for a fork.
    Pausing,
    /// It is to write what is left, give its leases back, and end for good.
    Stopping,
    Ended,
}

/// How things stand, for an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether this process has a lease, and so delivers.
    pub is_owner: bool,
    /// For how long the oldest beat has been waiting to be written.
    pub flush_lag: Nanos,
    /// How many users' beats and leaves wait to be written.
    pub unwritten: usize,
    /// How late the last sweep was that set somebody offline.
    pub sweep_lag: Nanos,
    /// How often a callback has failed here.
    pub retries: u64,
    /// How often the store has failed here.
    pub store_errors: u64,
}

/// What [`Member::snapshot`] answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Everybody, and at what time of the member's clock.
    Snapshot(Arc<Taken>),
    /// It is being read. Ask again in a moment.
    Wait,
    /// It cannot be read.
    Failed(String),
}

/// A snapshot and when it was taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// On the member's clock.
    pub at: Nanos,
    /// What there was.
    pub snapshot: Snapshot,
    took: Nanos,
}

/// A process' part in a store. All methods may be called on any thread, and none waits for the store.
pub struct Member<C: Clock, S: Signal> {
    shared: Arc<Shared<C, S>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared<C, S> {
    location: Location,
    namespace: String,
    token: Mutex<Token>,
    beats: Beats,
    outbox: Mutex<Outbox>,
    /// The signal is raised and cleared with this lock held.
    log: Mutex<Log>,
    phase: Mutex<Phase>,
    bell: Condvar,
    is_rung: AtomicBool,
    has_beaten: AtomicBool,
    timeout: AtomicU64,
    status: Mutex<Status>,
    /// What the callbacks' side has to be told of: an outage, once.
    news: Mutex<Vec<String>>,
    reader: Mutex<Reader>,
    reader_bell: Condvar,
    /// When this process last changed something in the store, or was about to.
    changed_at: AtomicU64,
    clock: C,
    signal: S,
}

#[derive(Default)]
struct Reader {
    latest: Option<Arc<Taken>>,
    /// Why the last attempt failed, and when.
    error: Option<(Nanos, String)>,
    is_wanted: bool,
    is_running: bool,
    is_ending: bool,
}

/// What the member's thread knows about a partition.
#[derive(Clone, Copy, Default)]
struct Watch {
    bid_at: Nanos,
    sweep_at: Nanos,
}

impl<C: Clock, S: Signal> Member<C, S> {
    /// A process that does not take part yet.
    ///
    /// # Errors
    ///
    /// When the operating system has no randomness to give.
    pub fn new(location: Location, namespace: String, clock: C, signal: S) -> std::io::Result<Member<C, S>> {
        let shared = Shared {
            location,
            namespace,
            token: Mutex::new(draw_token()?),
            beats: Beats::default(),
            outbox: Mutex::default(),
            log: Mutex::default(),
            phase: Mutex::new(Phase::Out),
            bell: Condvar::new(),
            is_rung: AtomicBool::new(false),
            has_beaten: AtomicBool::new(false),
            timeout: AtomicU64::new(SECOND),
            status: Mutex::default(),
            news: Mutex::default(),
            reader: Mutex::default(),
            reader_bell: Condvar::new(),
            changed_at: AtomicU64::new(0),
            clock,
            signal,
        };
        Ok(Member { shared: Arc::new(shared), threads: Mutex::default() })
    }

    /// The time that heartbeats go by.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.shared.clock.now()
    }

    /// The config's timeout, as far as is known.
    pub fn set_timeout(&self, timeout: Nanos) {
        self.shared.timeout.store(timeout.max(1), Ordering::Relaxed);
    }

    /// Takes part from now on, if it does not yet. Does nothing after a stop.
    ///
    /// # Errors
    ///
    /// When the operating system has no thread to give.
    pub fn start(&self) -> std::io::Result<()> {
        let mut phase = self.shared.phase.lock();
        if *phase == Phase::Out {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("online_manager".into()).spawn(move || shared.take_part())?;
            self.keep(thread);
            *phase = Phase::Running;
        }
        Ok(())
    }

    /// Keeps a thread that was started, and lets go of those that have ended.
    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Whether [`Member::start`] would do something.
    pub fn is_out(&self) -> bool {
        *self.shared.phase.lock() == Phase::Out
    }

    /// A heartbeat at `now`, good for `timeout`. [`Heartbeat::Unknown`] asks for [`Member::arrive`].
    #[inline]
    pub fn heartbeat(&self, id: Id<'_>, now: Nanos, timeout: Nanos) -> Heartbeat {
        let heartbeat = self.shared.beats.heartbeat(id, now, timeout, &self.shared.outbox);
        if heartbeat == Heartbeat::ToTell {
            self.shared.ring();
        }
        heartbeat
    }

    /// The first heartbeat of somebody who is not known here: `user_id` is what the store calls `id`.
    pub fn arrive(&self, id: Id<'_>, user_id: UserId, now: Nanos, timeout: Nanos) {
        self.shared.has_beaten.store(true, Ordering::Relaxed);
        self.shared.changed();
        self.shared.beats.arrive(id, user_id, now, timeout, &self.shared.outbox);
        self.shared.ring();
    }

    /// A leave. Answers whether the user has beaten here within its timeout.
    pub fn leave(&self, id: Id<'_>, user_id: UserId, after: Nanos) -> bool {
        let now = self.now();
        let is_here = self.shared.beats.last_seen(id, now).is_some();
        self.shared.beats.forget(id);
        self.shared.changed();
        self.shared.outbox.lock().leave(user_id, now, after);
        self.shared.ring();
        is_here
    }

    /// When the user last beat in this process, if that is less than its timeout ago.
    pub fn last_seen_here(&self, id: Id<'_>) -> Option<Nanos> {
        self.shared.beats.last_seen(id, self.now())
    }

    /// Takes events that are to be delivered: several for one call if `together` says so for their transition. Clears the
    /// signal when there are none. [`Member::delivered`] must follow.
    pub fn take(&self, together: impl Fn(Transition) -> bool) -> (Option<Transition>, Vec<Event>) {
        let mut log = self.shared.log.lock();
        let is_running = matches!(*self.shared.phase.lock(), Phase::Running | Phase::Pausing);
        let taken = if is_running { log.take(self.now(), together) } else { (None, Vec::new()) };
        if taken.1.is_empty() && self.shared.news.lock().is_empty() {
            self.shared.signal.clear();
        }
        taken
    }

    /// What became of the events that were taken.
    pub fn delivered(&self, how: &Delivered) {
        let now = self.now();
        self.shared.log.lock().delivered(how, now);
        self.shared.ring();
    }

    /// Takes out what the application has to be told of the store: one message for each outage.
    pub fn news(&self) -> Option<String> {
        let mut news = self.shared.news.lock();
        (!news.is_empty()).then(|| news.remove(0))
    }

    /// Raises the signal although perhaps there is nothing to do.
    pub fn rouse(&self) {
        let log = self.shared.log.lock();
        self.shared.signal.raise();
        drop(log);
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        let now = self.now();
        let status = *self.shared.status.lock();
        let log = self.shared.log.lock();
        let outbox = self.shared.outbox.lock();
        Status {
            is_owner: log.has_lease(),
            flush_lag: outbox.lag(now),
            unwritten: outbox.len(),
            retries: log.retries(),
            ..status
        }
    }

    /// Everybody who is online, in all processes: not older than a third of the timeout, and as a rule much newer.
    pub fn snapshot(&self) -> Answer {
        let now = self.now();
        let mut reader = self.shared.reader.lock();
        if reader.is_ending {
            return Answer::Wait;
        }
        let most = self.shared.timeout.load(Ordering::Relaxed) / 3;
        let changed_at = self.shared.changed_at.load(Ordering::Relaxed);
        let (age, is_changed) = match &reader.latest {
            Some(latest) => {
                let age = now.saturating_sub(latest.at);
                (age, changed_at >= latest.at && age > REST_PER_READ * latest.took)
            }
            None => (Nanos::MAX, true),
        };
        // An older one was nobody's.
        let error = reader.error.take().filter(|(at, _)| now.saturating_sub(*at) < SECOND).map(|(_, error)| error);
        if error.is_none() && (age > most / 2 || is_changed) {
            reader.is_wanted = true;
            if !reader.is_running {
                reader.is_running = true;
                let shared = Arc::clone(&self.shared);
                match thread::Builder::new().name("online_manager".into()).spawn(move || shared.read()) {
                    Ok(thread) => self.keep(thread),
                    Err(error) => {
                        reader.is_running = false;
                        return Answer::Failed(format!("starting a thread: {error}"));
                    }
                }
            }
            self.shared.reader_bell.notify_one();
            if age > most || is_changed {
                return Answer::Wait;
            }
        }
        match (&reader.latest, error) {
            // An older one would be a guess.
            (_, Some(error)) if age > most => Answer::Failed(error),
            (Some(latest), _) => Answer::Snapshot(Arc::clone(latest)),
            (None, _) => Answer::Wait,
        }
    }

    /// Ends the threads and closes their connections, for a fork. Returns at once; see [`Member::is_paused`].
    pub fn pause(&self) {
        let mut phase = self.shared.phase.lock();
        if *phase == Phase::Running {
            *phase = Phase::Pausing;
        }
        drop(phase);
        self.shared.ring();
        self.shared.reader.lock().is_ending = true;
        self.shared.reader_bell.notify_one();
    }

    /// Whether all threads have ended. (One that stops for good is waited for too.)
    pub fn is_paused(&self) -> bool {
        let mut threads = self.threads.lock();
        if threads.iter().any(|thread| !thread.is_finished()) {
            return false;
        }
        // What they panicked with has been told of on standard error.
        threads.drain(..).for_each(|thread| drop(thread.join()));
        true
    }

    /// Whether a thread of this member runs, or has a connection: such a process must not fork.
    pub fn has_threads(&self) -> bool {
        !self.threads.lock().is_empty()
    }

    /// Goes on after a fork, in the parent, if anybody has ever beaten here. Else it has given its leases back, and takes
    /// part again from its next [`Member::start`].
    ///
    /// # Errors
    ///
    /// When the operating system has no thread to give.
    pub fn resume(&self) -> std::io::Result<()> {
        self.shared.reader.lock().is_ending = false;
        let mut phase = self.shared.phase.lock();
        if *phase == Phase::Pausing {
            *phase = Phase::Out;
        }
        drop(phase);
        if self.shared.has_beaten.load(Ordering::Relaxed) { self.start() } else { Ok(()) }
    }

    /// Bars new events, writes what is left and gives the leases back. Raises the signal when that is done.
    pub fn stop(&self) {
        let mut phase = self.shared.phase.lock();
        match *phase {
            Phase::Running | Phase::Pausing => *phase = Phase::Stopping,
            Phase::Out => *phase = Phase::Ended,
            Phase::Stopping | Phase::Ended => {}
        }
        drop(phase);
        self.shared.ring();
        self.rouse();
    }

    /// Whether the stop is done.
    pub fn has_ended(&self) -> bool {
        *self.shared.phase.lock() == Phase::Ended
    }
}

impl<C: Clock, S: Signal> Drop for Member<C, S> {
    fn drop(&mut self) {
        self.stop();
        // They end by themselves within a few seconds; who drops a member that still runs does not wait for a store.
    }
}

impl<C: Clock, S: Signal> Shared<C, S> {
    fn timeout(&self) -> Nanos {
        self.timeout.load(Ordering::Relaxed)
    }

    /// How long a lease is for. Long enough for a busy machine, short enough for who waits for a successor.
    fn lease_length(&self) -> Nanos {
        (self.timeout() / 2).clamp(SECOND, 5 * SECOND)
    }

    /// A snapshot from before now is not the newest any more.
    fn changed(&self) {
        self.changed_at.fetch_max(self.clock.now(), Ordering::Relaxed);
    }

    /// Has the member's thread look at once.
    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            // With the lock, so that the thread does not look just before, and rest after it.
            drop(self.phase.lock());
            self.bell.notify_one();
        }
    }

    fn rest(&self, rest: Nanos) {
        let mut phase = self.phase.lock();
        let is_quiet = !self.is_rung.load(Ordering::Acquire) && matches!(*phase, Phase::Running | Phase::Stopping);
        if rest > 0 && is_quiet {
            self.bell.wait_for(&mut phase, Duration::from_nanos(rest));
        }
    }

    fn take_part(&self) {
        while catch_unwind(AssertUnwindSafe(|| Turns::new(self).run())).is_err() {
            // A bug, and told of on standard error; but without this thread nothing would ever be written again.
            thread::sleep(Duration::from_nanos(FIRST_RETRY));
        }
    }

    /// Tells the callbacks' side.
    fn report(&self, message: String) {
        let log = self.log.lock();
        self.news.lock().push(message);
        self.signal.raise();
        drop(log);
    }

    /// The reading thread.
    fn read(&self) {
        let mut store = None;
        let mut reader = self.reader.lock();
        loop {
            if !reader.is_wanted && !reader.is_ending {
                self.reader_bell.wait_for(&mut reader, READER_IDLE);
            }
            if reader.is_ending || !reader.is_wanted {
                reader.is_running = false;
                return;
            }
            parking_lot::MutexGuard::unlocked(&mut reader, || {
                // What has just come shall be in it.
                for _ in 0..50 {
                    if self.outbox.lock().is_empty() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let result = parking_lot::MutexGuard::unlocked(&mut reader, || {
                let start = self.clock.now();
                let opened = match store.take() {
                    Some(store) => Ok(store),
                    None => self.location.open(&self.namespace),
                };
                opened.and_then(|mut opened: Box<dyn Store>| {
                    let snapshot = match opened.snapshot() {
                        // Who only reads loses nothing by that.
                        Err(StoreError::Replaced(_)) => opened.snapshot()?,
                        snapshot => snapshot?,
                    };
                    store = Some(opened);
                    Ok(Taken { at: start, snapshot, took: self.clock.now().saturating_sub(start) })
                })
            });
            reader.is_wanted = false;
            match result {
                Ok(taken) => {
                    reader.latest = Some(Arc::new(taken));
                    reader.error = None;
                }
                Err(error) => reader.error = Some((self.clock.now(), error.to_string())),
            }
        }
    }
}

/// What the member's thread does again and again.
struct Turns<'a, C: Clock, S: Signal> {
    shared: &'a Shared<C, S>,
    store: Option<Box<dyn Store>>,
    watches: Vec<Watch>,
    look_through_at: Nanos,
    has_swept: bool,
    /// How often the store has failed since it last did what it was asked for.
    failures: u32,
    /// Until when a stop waits for the store.
    farewell: Option<Nanos>,
}

impl<'a, C: Clock, S: Signal> Turns<'a, C, S> {
    fn new(shared: &'a Shared<C, S>) -> Self {
        Turns {
            shared,
            store: None,
            watches: Vec::new(),
            look_through_at: 0,
            has_swept: false,
            failures: 0,
            farewell: None,
        }
    }

    fn run(&mut self) {
        loop {
            self.shared.is_rung.store(false, Ordering::Release);
            let phase = *self.shared.phase.lock();
            let rest = match phase {
                Phase::Pausing => return self.stand_down(),
                Phase::Out | Phase::Ended => return,
                Phase::Stopping => match self.part() {
                    Some(rest) => rest,
                    None => return,
                },
                Phase::Running => match self.turn() {
                    Ok(rest) => rest,
                    Err(error) => self.failed(&error),
                },
            };
            self.shared.rest(rest);
        }
    }

    /// One turn; answers how long to rest.
    fn turn(&mut self) -> Result<Nanos, StoreError> {
        let shared = self.shared;
        let now = shared.clock.now();
        if now >= self.look_through_at {
            shared.beats.look_through(now, shared.timeout(), &shared.outbox);
            self.look_through_at = now + (shared.timeout() / 6).clamp(10 * MILLISECOND, 5 * SECOND);
        }
        let mut store = self.connect()?;
        let result = self.turn_with(&mut *store);
        self.store = Some(store);
        let rest = result?;
        self.failures = 0;
        Ok(rest)
    }

    fn connect(&mut self) -> Result<Box<dyn Store>, StoreError> {
        match self.store.take() {
            Some(store) => Ok(store),
            None => self.shared.location.open(&self.shared.namespace),
        }
    }

    fn turn_with(&mut self, store: &mut dyn Store) -> Result<Nanos, StoreError> {
        let shared = self.shared;
        self.watches.resize(usize::from(store.partitions()), Watch::default());
        self.commit(store)?;
        if !self.has_swept {
            // Before the first beat is written: with nobody online there is nobody to be held.
            for partition in 0..store.partitions() {
                store.sweep(partition, shared.timeout(), 0)?;
            }
            self.has_swept = true;
        }
        let has_more = self.flush(store)?;
        let mut rest = POLL;
        for partition in 0..store.partitions() {
            self.bid(store, partition)?;
            rest = rest.min(self.sweep(store, partition)?);
            self.fetch(store, partition)?;
        }
        let now = shared.clock.now();
        let log = shared.log.lock();
        let next = log.next(now);
        if next == Some(0) && !log.is_calling() {
            shared.signal.raise();
        } else if let Some(next) = next.filter(|next| *next > 0) {
            rest = rest.min(next);
        }
        let has_commits = log.has_commits();
        drop(log);
        let rest = rest.min(self.look_through_at.saturating_sub(now));
        Ok(if has_more || has_commits { 0 } else { rest })
    }

    /// Takes what was delivered out of the store's log.
    fn commit(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let shared = self.shared;
        let token = *shared.token.lock();
        let mut commits = shared.log.lock().take_commits().into_iter();
        while let Some((partition, commit)) = commits.next() {
            match store.commit(partition, token, &commit) {
                Ok(is_ours) => {
                    shared.changed();
                    let mut log = shared.log.lock();
                    log.committed(&commit);
                    if !is_ours {
                        log.forget(partition);
                    }
                }
                Err(error) => {
                    let mut log = shared.log.lock();
                    log.not_committed(partition, commit);
                    commits.for_each(|(partition, commit)| log.not_committed(partition, commit));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes beats and leaves. Answers whether there are more.
    fn flush(&mut self, store: &mut dyn Store) -> Result<bool, StoreError> {
        let shared = self.shared;
        let taken = shared.outbox.lock().take(USERS_AT_ONCE);
        if taken.is_empty() {
            return Ok(false);
        }
        // A tick more: times are kept in ticks here.
        let messages = taken.messages(shared.clock.now(), shared.clock.jitter() + TICK);
        match store.flush(&messages) {
            Ok(()) => {
                if messages.iter().any(|message| matches!(message, Message::Leave(_))) {
                    // Somebody may be due now.
                    self.watches.iter_mut().for_each(|watch| watch.sweep_at = 0);
                }
                let is_empty = shared.outbox.lock().is_empty();
                shared.changed();
                if is_empty {
                    // Others may be about to beat too.
                    thread::sleep(Duration::from_nanos(BREATH));
                }
                Ok(!is_empty)
            }
            Err(error) => {
                shared.outbox.lock().put_back(taken);
                Err(error)
            }
        }
    }

    fn bid(&mut self, store: &mut dyn Store, partition: Partition) -> Result<(), StoreError> {
        let shared = self.shared;
        let now = shared.clock.now();
        let Some(watch) = self.watches.get_mut(usize::from(partition)).filter(|watch| watch.bid_at <= now) else {
            return Ok(());
        };
        let length = shared.lease_length();
        let token = *shared.token.lock();
        let was_ours = shared.log.lock().is_leased(partition);
        if store.bid(partition, token, length)? {
            watch.bid_at = now + length / 3;
            // From before the store was asked: so it ends here sooner than there.
            shared.log.lock().leased(partition, now + length - length / 8);
        } else {
            watch.bid_at = now + POLL;
            if was_ours {
                shared.log.lock().forget(partition);
            }
        }
        Ok(())
    }

    /// Sets offline whose deadline has passed. Answers when to look again.
    fn sweep(&mut self, store: &mut dyn Store, partition: Partition) -> Result<Nanos, StoreError> {
        let shared = self.shared;
        let timeout = shared.timeout();
        let now = shared.clock.now();
        let Some(watch) = self.watches.get_mut(usize::from(partition)) else { return Ok(POLL) };
        if watch.sweep_at > now {
            return Ok(watch.sweep_at - now);
        }
        let sweep = store.sweep(partition, timeout, USERS_AT_ONCE)?;
        if sweep.expired > 0 {
            shared.changed();
            shared.status.lock().sweep_lag = sweep.lag;
        }
        // Who has no lease does it too, but seldom: in case whoever has it is gone.
        let often = if shared.log.lock().is_leased(partition) { POLL } else { (timeout / 4).max(POLL) };
        // A millisecond more, so that whoever is due then is due for any clock.
        let rest = sweep.next.map_or(often, |next| next.saturating_add(MILLISECOND).min(often));
        let rest = if sweep.expired == USERS_AT_ONCE { 0 } else { rest };
        watch.sweep_at = now + rest;
        Ok(rest)
    }

    fn fetch(&mut self, store: &mut dyn Store, partition: Partition) -> Result<(), StoreError> {
        let shared = self.shared;
        let log = shared.log.lock();
        if !log.is_leased(partition) || !log.has_room() {
            return Ok(());
        }
        let last = log.last(partition);
        drop(log);
        let events = store.events(partition, last, crate::log::AT_ONCE / 2)?;
        if !events.is_empty() {
            shared.log.lock().add(partition, events, shared.clock.now());
        }
        Ok(())
    }

    /// Notes an outage; answers how long to rest.
    fn failed(&mut self, error: &StoreError) -> Nanos {
        let shared = self.shared;
        shared.status.lock().store_errors += 1;
        if let StoreError::Replaced(_) = error {
            self.begin_anew();
        } else {
            self.store = None;
        }
        if self.failures == 0 {
            shared.report(error.to_string());
        }
        self.failures = self.failures.saturating_add(1);
        if let StoreError::Replaced(_) = error {
            return 0;
        }
        backoff(FIRST_RETRY, LAST_RETRY, self.failures)
    }

    /// The store has lost what it knew: of the users who beat here it is told again, of the events nobody can.
    fn begin_anew(&mut self) {
        let shared = self.shared;
        let mut log = shared.log.lock();
        for partition in 0..self.watches.len() {
            log.forget(Partition::try_from(partition).unwrap_or_default());
        }
        drop(log);
        if let Ok(token) = draw_token() {
            *shared.token.lock() = token;
        }
        self.watches.clear();
        self.has_swept = false;
        shared.beats.tell_all(shared.clock.now(), &shared.outbox);
    }

    /// Before a fork. Who has never beaten does not go on after it, and need not keep others from delivering.
    fn stand_down(&mut self) {
        let shared = self.shared;
        if shared.has_beaten.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let token = *shared.token.lock();
        // What fails here mends itself: an event comes twice, a lease ends when its time is over.
        let mut is_well = self.commit(&mut *store).is_ok();
        for partition in 0..store.partitions() {
            shared.log.lock().forget(partition);
            is_well = is_well && store.give_back(partition, token).is_ok();
        }
    }

    /// The last turns: writes everything, and gives the leases back. Answers how long to rest, or `None` when it is done.
    fn part(&mut self) -> Option<Nanos> {
        let shared = self.shared;
        let now = shared.clock.now();
        let until = *self.farewell.get_or_insert_with(|| now.saturating_add(FAREWELL));
        shared.beats.tell_rest(now, &shared.outbox);
        let parted = self.connect().and_then(|mut store| {
            let parted = self.part_from(&mut *store);
            self.store = Some(store);
            parted
        });
        match parted {
            // What a callback is being called for is noted first: else somebody else would deliver it again.
            Ok(()) if shared.log.lock().is_busy() => return Some(POLL),
            Ok(()) => {}
            Err(error) if shared.clock.now() < until => return Some(self.failed(&error).min(POLL)),
            Err(error) => {
                let unwritten = shared.outbox.lock().len();
                shared.report(format!("{error}; heartbeats of {unwritten} users could not be written before the end"));
            }
        }
        self.store = None;
        let log = shared.log.lock();
        *shared.phase.lock() = Phase::Ended;
        shared.signal.raise();
        drop(log);
        None
    }

    fn part_from(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let shared = self.shared;
        self.watches.resize(usize::from(store.partitions()), Watch::default());
        while self.flush(store)? {}
        self.commit(store)?;
        if shared.log.lock().is_busy() {
            for partition in 0..store.partitions() {
                if shared.log.lock().is_leased(partition) {
                    self.bid(store, partition)?;
                }
            }
            return Ok(());
        }
        let token = *shared.token.lock();
        for partition in 0..store.partitions() {
            store.give_back(partition, token)?;
            shared.log.lock().forget(partition);
        }
        Ok(())
    }
}

fn draw_token() -> std::io::Result<Token> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(Token(bytes))
}
