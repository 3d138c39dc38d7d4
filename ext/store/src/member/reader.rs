//! Questions about all processes: who is online, and the figures of the store. A thread reads them while somebody asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use online_manager_tracker::{Clock, Nanos, Signal};
use parking_lot::MutexGuard;

use super::{Member, Phase, SECOND, Shared, seconds};
use crate::error::StoreError;
use crate::store::{Snapshot, Store, StoreSummary};
use crate::store_url::Access;

/// A result is read again once it is older than the reading took, with opening the store, times this: then reading takes 5 % of the time at most.
const MIN_READ_INTERVAL_FACTOR: u64 = 20;

/// The figures are not older than this, however long reading them takes.
const MAX_SUMMARY_AGE: Nanos = seconds(5);

/// How old figures are taken without reading them again, in nanoseconds: the caller asks again a few milliseconds later.
const MIN_SUMMARY_AGE: Nanos = 20_000_000;

/// The reading thread ends when nobody has asked for this long.
const READER_IDLE: Duration = Duration::from_secs(10);

/// How often, and after what delay, a store is opened again that another process is perhaps creating. Together shorter than
/// a fork waits.
const CREATION_RETRIES: usize = 20;
const CREATION_RETRY_DELAY: Duration = Duration::from_millis(10);

/// The result of [`Member::snapshot`] or [`Member::summary`].
#[derive(Clone, Debug)]
pub enum ReadResult<T> {
    /// What was read, and when.
    Ready(Arc<Timed<T>>),
    /// It is being read. Ask again in a moment.
    NotYet,
    /// It cannot be read; the message says why.
    Failed(String),
}

/// What was read from the store, and when.
#[derive(Debug, Default)]
pub struct Timed<T> {
    /// When the reading began, in nanoseconds of the member's clock.
    pub at: Nanos,
    /// What was read.
    pub value: T,
    /// How long the reading took, in nanoseconds.
    took: Nanos,
}

/// One kind of question.
#[derive(Debug)]
struct Question<T> {
    latest: Option<Arc<Timed<T>>>,
    /// Why the last attempt failed, and when.
    error: Option<(Nanos, String)>,
    is_requested: bool,
}

impl<T> Default for Question<T> {
    fn default() -> Question<T> {
        Question { latest: None, error: None, is_requested: false }
    }
}

impl<T> Question<T> {
    fn answer(&mut self, now: Nanos, result: Result<Timed<T>, StoreError>) {
        self.is_requested = false;
        match result {
            Ok(timed) => {
                self.latest = Some(Arc::new(timed));
                self.error = None;
            }
            Err(error) => self.error = Some((now, error.to_string())),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    snapshot: Question<Snapshot>,
    summary: Question<StoreSummary>,
    is_running: bool,
    pub(super) is_ending: bool,
}

impl<C: Clock, S: Signal> Member<C, S> {
    /// Returns everyone who is online, in all processes: not older than a third of the timeout, and as a rule much newer.
    pub fn snapshot(&self) -> ReadResult<Snapshot> {
        let changed_at = self.shared.state.lock().changed_at;
        let max_age = self.shared.timeout.load(Ordering::Relaxed) / 3;
        // A short outage does not change who is online.
        self.read(|reader| &mut reader.snapshot, max_age, max_age, |at| changed_at >= at)
    }

    /// Returns the store's figures: as a rule read anew, since other members change them at any time.
    pub fn summary(&self) -> ReadResult<StoreSummary> {
        // An operator is to see an outage at once.
        let now = self.now();
        let may_have_changed = |at| now.saturating_sub(at) > MIN_SUMMARY_AGE;
        self.read(|reader| &mut reader.summary, MAX_SUMMARY_AGE, 0, may_have_changed)
    }

    /// Returns the answer to a question, not older than `max_age`, or than `max_age_after_error` if reading it again has failed.
    /// `has_changed` says whether what was read at a moment may have changed since.
    fn read<T>(
        &self,
        question: impl Fn(&mut Reader) -> &mut Question<T>,
        max_age: Nanos,
        max_age_after_error: Nanos,
        has_changed: impl Fn(Nanos) -> bool,
    ) -> ReadResult<T> {
        let now = self.now();
        let mut reader = self.shared.reader.lock();
        if reader.is_ending {
            return ReadResult::NotYet;
        }
        let asked = question(&mut reader);
        let (age, is_changed) = match &asked.latest {
            Some(latest) => {
                let age = now.saturating_sub(latest.at);
                (age, has_changed(latest.at) && age > MIN_READ_INTERVAL_FACTOR * latest.took)
            }
            None => (Nanos::MAX, true),
        };
        // An older error was that of another question, whose caller has given up.
        let error = asked.error.take().filter(|(at, _)| now.saturating_sub(*at) < SECOND).map(|(_, error)| error);
        let latest = asked.latest.clone();
        if error.is_none() && (age > max_age / 2 || is_changed) {
            asked.is_requested = true;
            if let Err(error) = self.wake_reader(&mut reader) {
                return ReadResult::Failed(format!("starting a thread: {error}"));
            }
            if age > max_age || is_changed {
                return ReadResult::NotYet;
            }
        }
        match (latest, error) {
            // An older result would be a guess.
            (_, Some(error)) if age > max_age_after_error => ReadResult::Failed(error),
            (Some(latest), _) => ReadResult::Ready(latest),
            (None, _) => ReadResult::NotYet,
        }
    }

    /// Wakes the reading thread; starts it if need be.
    fn wake_reader(&self, reader: &mut Reader) -> std::io::Result<()> {
        if !reader.is_running {
            let shared = Arc::clone(&self.shared);
            let thread =
                thread::Builder::new().name("online_manager".into()).spawn(move || shared.answer_questions())?;
            reader.is_running = true;
            self.keep(thread);
        }
        self.shared.reader_wakeup.notify_one();
        Ok(())
    }
}

impl<C: Clock, S: Signal> Shared<C, S> {
    /// The reading thread.
    fn answer_questions(&self) {
        let mut store = None;
        let mut reader = self.reader.lock();
        loop {
            if !(reader.snapshot.is_requested || reader.summary.is_requested || reader.is_ending) {
                self.reader_wakeup.wait_for(&mut reader, READER_IDLE);
            }
            let (snapshot, summary) = (reader.snapshot.is_requested, reader.summary.is_requested);
            if reader.is_ending || !(snapshot || summary) {
                reader.is_running = false;
                return;
            }
            MutexGuard::unlocked(&mut reader, || self.wait_for_writes());
            // The figures first: they take less.
            if summary {
                let result = MutexGuard::unlocked(&mut reader, || self.read(&mut store, |store| store.summary()));
                reader.summary.answer(self.clock.now(), result);
            }
            if snapshot {
                let result = MutexGuard::unlocked(&mut reader, || self.read(&mut store, |store| store.snapshot()));
                reader.snapshot.answer(self.clock.now(), result);
            }
            if store.as_ref().is_some_and(|store| !store.may_idle()) {
                MutexGuard::unlocked(&mut reader, || store = None);
            }
        }
    }

    fn is_failing(&self) -> bool {
        self.state.lock().is_failing(self.clock.now())
    }

    /// Waits for 50 ms at most, so that heartbeats that have just come are in the result.
    fn wait_for_writes(&self) {
        for _ in 0..50 {
            if self.state.lock().outbox.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads from the store; opens it if need be, and once more if that fails. Nobody is online in a store that does not
    /// exist, if that is because no process can have tried to write it, and this one has not tried in vain.
    fn read<T: Default>(
        &self,
        store: &mut Option<Box<dyn Store>>,
        read: impl Fn(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<Timed<T>, StoreError> {
        let timed = |at, value| Timed { at, value, took: self.clock.now().saturating_sub(at) };
        // The connection may have been lost since the last question, or the file have been replaced.
        let at = self.clock.now();
        if let Some(mut old) = store.take()
            && let Ok(value) = read(&mut *old)
        {
            *store = Some(old);
            return Ok(timed(at, value));
        }
        let mut open_and_read = |at| {
            let mut opened = self.store_url.open(&self.namespace, Access::Inspect, &self.interrupt)?;
            let value = read(&mut *opened)?;
            *store = Some(opened);
            Ok(timed(at, value))
        };
        let at = self.clock.now();
        let mut result = open_and_read(at);
        if let Err(StoreError::Missing(_)) = result
            && self.state.lock().phase == Phase::Running
        {
            // This process' users are not in it yet. If the store cannot be created, the error says why.
            drop(self.store_url.open(&self.namespace, Access::Participate, &self.interrupt)?);
            result = open_and_read(at);
        }
        for _ in 0..CREATION_RETRIES {
            match result {
                Err(StoreError::Missing(_)) if self.store_url.is_unused() && !self.is_failing() => {
                    return Ok(Timed { at, ..Timed::default() });
                }
                Err(StoreError::Missing(_)) => thread::sleep(CREATION_RETRY_DELAY),
                result => return result,
            }
            result = open_and_read(at);
        }
        result
    }
}
