//! Snapshots of who is online: a thread reads them while anybody asks for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use online_manager_tracker::{Clock, Nanos, Signal};

use super::{Member, SECOND, Shared, SnapshotResult, TimedSnapshot};
use crate::error::StoreError;
use crate::store::Store;
use crate::store_url::Access;

/// A snapshot may be as old as so many times what it took, though it could be newer.
const MIN_READ_INTERVAL_FACTOR: u64 = 20;

/// The reading thread ends when nobody has asked for so long.
const READER_IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct SnapshotReader {
    latest: Option<Arc<TimedSnapshot>>,
    /// Why the last attempt failed, and when.
    error: Option<(Nanos, String)>,
    is_requested: bool,
    is_running: bool,
    pub(super) is_ending: bool,
}

impl<C: Clock, S: Signal> Member<C, S> {
    /// Everybody who is online, in all processes: not older than a third of the timeout, and as a rule much newer.
    pub fn snapshot(&self) -> SnapshotResult {
        let now = self.now();
        let mut reader = self.shared.reader.lock();
        if reader.is_ending {
            return SnapshotResult::NotYet;
        }
        let most = self.shared.timeout.load(Ordering::Relaxed) / 3;
        let changed_at = self.shared.state.lock().changed_at;
        let (age, is_changed) = match &reader.latest {
            Some(latest) => {
                let age = now.saturating_sub(latest.at);
                (age, changed_at >= latest.at && age > MIN_READ_INTERVAL_FACTOR * latest.took)
            }
            None => (Nanos::MAX, true),
        };
        // An older one was nobody's.
        let error = reader.error.take().filter(|(at, _)| now.saturating_sub(*at) < SECOND).map(|(_, error)| error);
        if error.is_none() && (age > most / 2 || is_changed) {
            reader.is_requested = true;
            if !reader.is_running {
                reader.is_running = true;
                let shared = Arc::clone(&self.shared);
                match thread::Builder::new().name("online_manager".into()).spawn(move || shared.read()) {
                    Ok(thread) => self.keep(thread),
                    Err(error) => {
                        reader.is_running = false;
                        return SnapshotResult::Failed(format!("starting a thread: {error}"));
                    }
                }
            }
            self.shared.reader_wakeup.notify_one();
            if age > most || is_changed {
                return SnapshotResult::NotYet;
            }
        }
        match (&reader.latest, error) {
            // An older one would be a guess.
            (_, Some(error)) if age > most => SnapshotResult::Failed(error),
            (Some(latest), _) => SnapshotResult::Ready(Arc::clone(latest)),
            (None, _) => SnapshotResult::NotYet,
        }
    }
}

impl<C: Clock, S: Signal> Shared<C, S> {
    /// The reading thread.
    fn read(&self) {
        let mut store = None;
        let mut reader = self.reader.lock();
        loop {
            if !reader.is_requested && !reader.is_ending {
                self.reader_wakeup.wait_for(&mut reader, READER_IDLE);
            }
            if reader.is_ending || !reader.is_requested {
                reader.is_running = false;
                return;
            }
            parking_lot::MutexGuard::unlocked(&mut reader, || {
                // What has just come shall be in it.
                for _ in 0..50 {
                    if self.state.lock().outbox.is_empty() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let result = parking_lot::MutexGuard::unlocked(&mut reader, || {
                let old = store.take();
                // It may have been away since it was last asked, or be another one.
                old.and_then(|old| self.read_with(old).ok()).map_or_else(|| self.read_anew(), Ok)
            });
            let result = result.map(|(opened, taken)| {
                store = opened;
                taken
            });
            reader.is_requested = false;
            match result {
                Ok(taken) => {
                    reader.latest = Some(Arc::new(taken));
                    reader.error = None;
                }
                Err(error) => reader.error = Some((self.clock.now(), error.to_string())),
            }
        }
    }

    /// Opens the store and reads it. Before any member has created the store nobody is online.
    fn read_anew(&self) -> Result<(Option<Box<dyn Store>>, TimedSnapshot), StoreError> {
        let at = self.clock.now();
        match self.store_url.open(&self.namespace, Access::Inspect, &self.interrupt) {
            Ok(store) => self.read_with(store),
            Err(StoreError::Missing(_)) => Ok((None, TimedSnapshot { at, ..TimedSnapshot::default() })),
            Err(error) => Err(error),
        }
    }

    fn read_with(&self, mut store: Box<dyn Store>) -> Result<(Option<Box<dyn Store>>, TimedSnapshot), StoreError> {
        let at = self.clock.now();
        let snapshot = store.snapshot()?;
        let took = self.clock.now().saturating_sub(at);
        Ok((Some(store), TimedSnapshot { at, snapshot, took }))
    }
}
