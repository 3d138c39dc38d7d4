//! The store in an SQLite file, for the processes of one machine.
//!
//! There is one partition. Times in the file are of the [monotonic clock](crate::boot_clock) and belong to the boot
//! whose id is in the file: steps of the wall clock set nobody offline, and after a reboot everyone stays online for
//! one timeout.
//!
//! A heartbeat writes the user's row and no index. The sweep finds users by the indexed column `sweep_at`, which is
//! never after the deadline, and moves it to the deadline of a user who has sent heartbeats since: so the index changes
//! once per timeout and not with each heartbeat.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use online_manager_tracker::Nanos;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::boot_clock;
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{
    Commit, DeadLetter, Event, Known, LeaseRequest, LeaseState, Membership, Partition, PollRequest, PollResult,
    Snapshot, Store, StoreSummary, Write, WriteResult, Written,
};
use crate::store_url::Access;

mod events;
mod lease;
mod schema;
mod users;

use schema::{check_format, migrate};

/// The only partition.
const PARTITION: Partition = 0;

/// How often a lease holder reads what other processes have written, whether anything happens or not: a read of a local
/// file is cheap.
const POLL_INTERVAL: Nanos = 50_000_000;

/// How long a call waits for another process' lock. Longer than any write of a member; a lock that lasts longer is
/// reported.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before a file that another process is creating is opened again.
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(10);

/// How many pages the write-ahead log may have before SQLite writes it back: 4 MB, SQLite's own default.
const CHECKPOINT_PAGES: i64 = 1_000;

/// A connection to the file, for one namespace.
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
    namespace_name: String,
    /// The number of the namespace in the file.
    namespace: i64,
    /// The device and the inode of the file, if it exists.
    file: Option<(u64, u64)>,
}

impl Sqlite {
    /// See [`StoreUrl::namespaces`](crate::StoreUrl::namespaces).
    pub(crate) fn namespaces(_path: &Path) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Opens the file, and creates it if it does not exist. Waits for other processes' locks, for two seconds at most.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the file cannot be opened, created or used. The message begins with the path.
    pub fn open(path: &Path, namespace: &str, _access: Access) -> Result<Sqlite, StoreError> {
        check_path(path)?;
        // While another process creates the file, SQLite fails with "locked" at once, whatever its busy timeout.
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            match Sqlite::try_open(path, namespace) {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => thread::sleep(OPEN_RETRY_DELAY),
                result => return result,
            }
        }
    }

    fn try_open(path: &Path, namespace: &str) -> Result<Sqlite, StoreError> {
        let failed = |error| store_error(path, "opened", &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        check_format(path, &connection)?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
        if mode != "wal" {
            let message = format!(
                "{}: SQLite cannot use a write-ahead log there: the journal mode is {mode}, expected wal. Put \
                 the file on a local disk",
                path.display()
            );
            return Err(StoreError::Misconfigured(message));
        }
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed)?;
        let number = migrate(&mut connection, namespace).map_err(failed)?;
        let file = file_id(path);
        Ok(Sqlite { path: path.to_owned(), connection, namespace_name: namespace.to_owned(), namespace: number, file })
    }

    /// Runs `work` in one transaction. Holds the file's write lock from the beginning: a transaction that read first
    /// could not always be made one that writes.
    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.check_file()?;
        let Sqlite { path, connection, namespace, .. } = self;
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction, *namespace)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error| store_error(path, "written", &error))
    }

    /// Runs `read` without a lock that keeps other processes from writing.
    fn read<T>(&mut self, read: impl FnOnce(&Connection, i64) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.check_file()?;
        read(&self.connection, self.namespace).map_err(|error| store_error(&self.path, "read", &error))
    }

    /// Fails with [`StoreError::Replaced`], and opens the new file, if the file was deleted or replaced: SQLite goes on
    /// with the old one, which no other process reads.
    fn check_file(&mut self) -> Result<(), StoreError> {
        if file_id(&self.path) == self.file {
            return Ok(());
        }
        *self = Sqlite::open(&self.path.clone(), &self.namespace_name.clone(), Access::Participate)?;
        let message =
            format!("{}: the file has been deleted or replaced; from now on the new one is used", self.path.display());
        Err(StoreError::Replaced(message))
    }
}

/// Returns the device and the inode of the file, if it exists.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

/// Fails if the path cannot be that of a file. SQLite's own message for all of these is "unable to open database file".
fn check_path(path: &Path) -> Result<(), StoreError> {
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{}: {what}", path.display())));
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return misconfigured("the path names no file; expected the path of an SQLite file".into()),
    };
    if path.is_dir() {
        return misconfigured("this is a folder; expected an SQLite file, or none".into());
    }
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => misconfigured(format!("{} is not a folder; expected the file's folder", folder.display())),
        Err(error) => misconfigured(format!(
            "its folder cannot be reached: {error}. Create the folder; the file is created with the first use"
        )),
    }
}

/// Turns an error of SQLite into one for the operator. `action` is what the file could not be: "opened", "read",
/// "written".
fn store_error(path: &Path, action: &str, error: &rusqlite::Error) -> StoreError {
    let message = format!("{}: could not be {action}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(
            ErrorCode::NotADatabase
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::CannotOpen,
        ) => StoreError::Misconfigured(message),
        _ => StoreError::Unavailable(message),
    }
}

/// Converts to an SQLite integer, which is signed: what does not fit becomes the maximum.
fn to_sql(nanos: Nanos) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

impl Sqlite {
    fn poll_partition(&mut self, membership: &Membership, request: &PollRequest) -> Result<PollResult, StoreError> {
        let lease = match request.lease {
            LeaseRequest::None => self.lease_state(membership.token)?,
            LeaseRequest::Renew | LeaseRequest::Acquire => self.acquire(membership.token, membership.lease)?,
            LeaseRequest::Release => {
                self.release(membership.token)?;
                LeaseState::Free
            }
        };
        let sweep = request.sweep.map(|limit| self.sweep(membership.timeout, limit)).transpose()?;
        let events = match request.events.filter(|_| lease.is_held()) {
            Some((after, limit)) => self.events(after, limit)?,
            None => Vec::new(),
        };
        Ok(PollResult {
            lease,
            sweep,
            events,
            leaves: Vec::new(),
            leaves_until: 0,
            oldest: None,
            known: Known::default(),
        })
    }
}

/// See [`StoreUrl::min_timeout`](crate::StoreUrl::min_timeout).
pub(crate) const MIN_TIMEOUT: Nanos = 250_000_000;

impl Store for Sqlite {
    fn summary(&mut self) -> Result<StoreSummary, StoreError> {
        Ok(StoreSummary::default())
    }

    fn purge(&mut self, _is_forced: bool) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn partitions(&self) -> Partition {
        PARTITION + 1
    }

    fn partition_of(&self, _: &UserId) -> Partition {
        PARTITION
    }

    fn poll_interval(&self, _: bool) -> Nanos {
        POLL_INTERVAL
    }

    fn write(&mut self, _: &Membership, writes: &[Write]) -> Result<Vec<WriteResult>, StoreError> {
        // Read before the wait for the file's lock: the ages are as of now.
        let now = to_sql(boot_clock::now());
        self.transaction(|transaction, namespace| {
            writes.iter().try_for_each(|write| match write {
                Write::Heartbeat(write) => users::heartbeat(transaction, namespace, now, write),
                Write::Leave(write) => users::leave(transaction, namespace, now, write),
            })
        })?;
        Ok(vec![(PARTITION, Ok(Written { appended: writes.len(), known: Known::default() }))])
    }

    fn poll(
        &mut self,
        membership: &Membership,
        requests: &[PollRequest],
    ) -> Result<Vec<Result<PollResult, StoreError>>, StoreError> {
        requests.iter().map(|request| self.poll_partition(membership, request).map(Ok)).collect()
    }

    fn commit(
        &mut self,
        membership: &Membership,
        commits: &[(Partition, Commit)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        commits.iter().map(|(_, commit)| self.commit_one(membership.token, commit).map(Ok)).collect()
    }

    fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        self.read(users::snapshot)
    }

    fn undelivered_events(&mut self) -> Result<Vec<Event>, StoreError> {
        self.events(0, usize::MAX / 2)
    }

    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(events::dead_letters)
    }

    fn requeue_dead_letters(&mut self) -> Result<(usize, usize), StoreError> {
        self.transaction(events::requeue_dead_letters)
    }
}
