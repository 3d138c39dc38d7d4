//! The store in an SQLite file, for the processes of one machine.
//!
//! Over 400 lines: the connection, and every call of the trait. What the calls do is in files of its own.
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
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::boot_clock;
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{
    Commit, DeadLetter, Event, LeaseState, Membership, Partition, PollRequest, PollResult, Snapshot, Store,
    StoreSummary, Sweep, Write, WriteResult, Written,
};
use crate::store_url::Access;

mod events;
mod files;
mod members;
mod partition;
mod permissions;
mod schema;
mod space;
mod sweep;
mod users;

use files::{OpenFile, check_path, store_error};
use partition::PartitionRow;
use schema::{check_format, migrate, reading_time};
use space::Upkeep;

/// The only partition.
const PARTITION: Partition = 0;

/// How often a lease holder reads what other processes have written, whether anything happens or not: a read of a local
/// file is cheap.
const POLL_INTERVAL: Nanos = 50_000_000;

/// See [`StoreUrl::min_timeout`](crate::StoreUrl::min_timeout). Measured with two members and 20 users on a busy machine of
/// two cores: of 120 users for each timeout, the last went offline 65 ms late at 300 ms, but 327 ms late at 250 ms, where
/// a poll that was late counted as an outage; at 200 ms and less, users went offline who sent heartbeats; at 60 ms and less,
/// users stayed online for seconds.
pub(crate) const MIN_TIMEOUT: Nanos = 300_000_000;

/// How long a call waits for another process' lock. Longer than any write of a member; a lock that lasts longer is
/// reported.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before a file that another process is creating is opened again.
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(10);

/// How many pages the write-ahead log may have before SQLite writes it back: 1 MB. With SQLite's own 1,000 pages, a small
/// disk is full before the first page is written back, and then there is no space to do it.
const CHECKPOINT_PAGES: i64 = 250;

/// A connection to the file, for one namespace.
pub struct Sqlite {
    path: PathBuf,
    connection: OpenFile,
    namespace: String,
    access: Access,
    /// Whether the file was replaced, and no member has heard of it yet.
    is_reopened: bool,
    upkeep: Upkeep,
}

impl Sqlite {
    /// See [`StoreUrl::namespaces`](crate::StoreUrl::namespaces).
    pub(crate) fn namespaces(path: &Path) -> Result<Vec<String>, StoreError> {
        let connection = retry(|| open_existing(path))?;
        schema::namespaces(&connection).map_err(|error| store_error(path, "read", &error))
    }

    /// Opens the file. [`Access::Participate`] creates the file and the namespace if they do not exist. Waits for other
    /// processes' locks, for some seconds at most.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the file cannot be opened, created or used, or [`StoreError::Missing`]. The message begins with
    /// the path.
    pub fn open(path: &Path, namespace: &str, access: Access) -> Result<Sqlite, StoreError> {
        let connection = retry(|| match access {
            Access::Participate => open_or_create(path, namespace),
            Access::Inspect => open_existing(path),
        })?;
        let mut store = Sqlite {
            path: path.to_owned(),
            connection,
            namespace: namespace.to_owned(),
            access,
            is_reopened: false,
            upkeep: Upkeep::default(),
        };
        store.read(|_, _| Ok(()))?;
        Ok(store)
    }

    /// Opens the file anew if it, its write-ahead log or the index of that was deleted or replaced: SQLite goes on with
    /// the old ones, which no other process reads.
    fn check_files(&mut self) -> Result<(), StoreError> {
        if self.connection.is_current() {
            return Ok(());
        }
        // The old connection is closed first: a new one to the same database would share its index.
        self.connection.close_stale().map_err(|error| store_error(&self.path, "opened", &error))?;
        self.is_reopened = true;
        let fresh = Sqlite::open(&self.path, &self.namespace, self.access)?;
        self.connection = fresh.connection;
        self.upkeep = Upkeep::default();
        Ok(())
    }

    /// Runs `read` on the namespace, all at one moment and without a lock that keeps other processes from writing. Returns
    /// `None` if the namespace does not exist.
    fn read_existing<T>(
        &mut self,
        read: impl FnOnce(&Transaction<'_>, &PartitionRow) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.check_files()?;
        let run = || {
            let transaction = self.connection.unchecked_transaction()?;
            let partition = PartitionRow::find(&transaction, &self.namespace)?;
            partition.map(|partition| read(&transaction, &partition)).transpose()
        };
        run().map_err(|error| store_error(&self.path, "read", &error))
    }

    /// Runs `read` on the namespace, which a participating process creates if it was purged.
    fn read<T>(
        &mut self,
        read: impl FnOnce(&Transaction<'_>, &PartitionRow) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let is_missing = self.read_existing(|_, _| Ok(()))?.is_none();
        if is_missing {
            // Fails if this process does not participate.
            self.transaction(|_, _, _| Ok(()))?;
        }
        self.read_existing(read)?.ok_or_else(|| self.missing())
    }

    /// The error for a namespace that does not exist.
    fn missing(&self) -> StoreError {
        match schema::namespaces(&self.connection) {
            Ok(names) => StoreError::missing_namespace(&self.path.display(), &self.namespace, &names),
            Err(error) => store_error(&self.path, "read", &error),
        }
    }

    /// Runs `work` in one transaction, with the time at its beginning. Holds the file's write lock from the beginning: a
    /// transaction that read first could not always be made one that writes.
    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut PartitionRow, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.check_files()?;
        self.transaction_of_checked_files(work)
    }

    /// See [`Sqlite::transaction`]. The caller has checked the files.
    fn transaction_of_checked_files<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut PartitionRow, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let Sqlite { connection, namespace, access, .. } = self;
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let now = to_sql(boot_clock::now());
            let found = match access {
                Access::Participate => Some(PartitionRow::find_or_create(&transaction, namespace)?),
                Access::Inspect => PartitionRow::find(&transaction, namespace)?,
            };
            let Some(mut partition) = found else { return Ok::<_, rusqlite::Error>(None) };
            let before = partition.clone();
            let result = work(&transaction, &mut partition, now)?;
            partition.save(&transaction, &before)?;
            transaction.commit()?;
            Ok(Some(result))
        };
        let result = run().map_err(|error| store_error(&self.path, "written", &error))?;
        result.ok_or_else(|| self.missing())
    }

    /// Runs `work` in one transaction, unless the data are others than the member knows, or older: then the inner result
    /// is [`StoreError::Replaced`].
    fn change<T>(
        &mut self,
        membership: &Membership,
        work: impl FnOnce(&Transaction<'_>, &mut PartitionRow, i64) -> rusqlite::Result<T>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        self.check_files()?;
        let is_reopened = self.is_reopened;
        let result = self.transaction_of_checked_files(|transaction, partition, now| {
            if partition.enter(membership, now, is_reopened) {
                work(transaction, partition, now).map(Some)
            } else {
                Ok(None)
            }
        })?;
        self.is_reopened = false;
        Ok(result.ok_or_else(|| {
            let what = if is_reopened {
                "it, its -wal or its -shm file was deleted or replaced while this process used it"
            } else {
                "its data are not those that this process knew, or older: they were deleted, or a backup was restored"
            };
            let message = format!(
                "{}: {what}. Every process writes its users again. Change the files only while no process uses them",
                self.path.display()
            );
            StoreError::Replaced(message)
        }))
    }

    fn poll_partition(
        &mut self,
        membership: &Membership,
        request: &PollRequest,
    ) -> Result<Result<PollResult, StoreError>, StoreError> {
        self.check_files()?;
        if !self.is_reopened {
            let result =
                self.read_existing(|transaction, partition| peek(transaction, partition, membership, request))?;
            if let Some(result) = result.flatten() {
                return Ok(Ok(result));
            }
        }
        self.change(membership, |transaction, partition, now| {
            let lease = partition.lease(membership, now, request.lease);
            let sweep = request.sweep.map(|limit| sweep::run(transaction, partition, membership, now, limit));
            let sweep = sweep.transpose()?;
            if let Some(handled) = &request.handled {
                events::delete_handled(transaction, partition, handled)?;
            }
            poll_result(transaction, partition, now, request, (lease, sweep))
        })
    }
}

/// Returns the result of a poll that changes nothing; `None` if it would change something.
fn peek(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    membership: &Membership,
    request: &PollRequest,
) -> rusqlite::Result<Option<PollResult>> {
    let now = to_sql(boot_clock::now());
    let mut after = partition.clone();
    let is_known = after.enter(membership, now, false);
    let lease = after.lease(membership, now, request.lease);
    if !is_known || after != *partition || request.handled.is_some() {
        return Ok(None);
    }
    let sweep = match request.sweep {
        Some(_) => match sweep::idle(transaction, partition, (now, to_sql(membership.timeout)))? {
            None => return Ok(None),
            idle => idle,
        },
        None => None,
    };
    poll_result(transaction, partition, now, request, (lease, sweep)).map(Some)
}

/// Reads what a poll returns.
fn poll_result(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    now: i64,
    request: &PollRequest,
    (lease, sweep): (LeaseState, Option<Sweep>),
) -> rusqlite::Result<PollResult> {
    let namespace = partition.number;
    let events = match request.events.filter(|_| lease.is_held() && now >= partition.silent_until) {
        Some(range) => events::events(transaction, (namespace, Some(now)), range)?,
        None => Vec::new(),
    };
    let notices = match request.notices_after {
        Some(after) => events::notices(transaction, namespace, after, now)?,
        None => Vec::new(),
    };
    let first = events::first(transaction, namespace)?;
    let event = first.map(|(number, due)| due.saturating_sub(partition.overdue(number)));
    let due = sweep::first_deadline(transaction, partition)?.into_iter().chain(event).min().filter(|due| *due <= now);
    let oldest = due.map(|due| now.saturating_sub(due) as Nanos);
    let known = partition.known;
    let delivered_through = first.map_or(known.last, |(number, _)| number - 1);
    Ok(PollResult { lease, sweep, events, notices, notices_until: known.last, oldest, delivered_through, known })
}

/// Opens a file while other processes may be creating it: then SQLite fails with "locked" at once, whatever its busy
/// timeout.
fn retry<T>(open: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match open() {
            Err(StoreError::Unavailable(_)) if Instant::now() < deadline => thread::sleep(OPEN_RETRY_DELAY),
            result => return result,
        }
    }
}

/// Opens the file, and creates the file and the namespace if they do not exist.
fn open_or_create(path: &Path, namespace: &str) -> Result<OpenFile, StoreError> {
    let file = check_path(path)?;
    let failed = |error| store_error(path, "opened", &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = OpenFile::open(path, file, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    check_format(path, &connection)?;
    // Free pages can be given back later only if this is set before the file has a first page.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    use_wal(path, &connection)?;
    migrate(&mut connection, namespace).map_err(failed)?;
    connection.record()?;
    Ok(connection)
}

/// Opens the file, and changes nothing.
fn open_existing(path: &Path) -> Result<OpenFile, StoreError> {
    let file = check_path(path)?;
    if !file.exists() {
        let message = format!(
            "{}: there is no such store yet, and no namespace. Check the path; the first process that participates \
             creates the file",
            path.display()
        );
        return Err(StoreError::Missing(message));
    }
    let failed = |error| store_error(path, "opened", &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = OpenFile::open(path, file, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    check_format(path, &connection)?;
    if schema::is_empty(&connection).map_err(failed)? {
        let message = format!(
            "{}: there is nothing in it yet: no process has written to it, or none could. Check the path, and that the disk \
             has space",
            path.display()
        );
        return Err(StoreError::Missing(message));
    }
    use_wal(path, &connection)?;
    connection.record()?;
    Ok(connection)
}

/// Uses a write-ahead log, of a limited size.
fn use_wal(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "opened", &error);
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
    connection.pragma_update(None, "journal_size_limit", space::MAX_WAL_BYTES).map_err(failed)
}

/// Converts to an SQLite integer, which is signed: what does not fit becomes the maximum.
fn to_sql(nanos: Nanos) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

impl Store for Sqlite {
    fn partitions(&self) -> Partition {
        PARTITION + 1
    }

    fn partition_of(&self, _: &UserId) -> Partition {
        PARTITION
    }

    fn poll_interval(&self, _: bool) -> Nanos {
        POLL_INTERVAL
    }

    /// Keeps a store whose file was replaced until a member has heard of it. Another one would not know.
    fn recover(&mut self) -> bool {
        self.is_reopened
    }

    /// After a file was deleted or replaced, none of the process' connections to it can be opened anew before each that is
    /// open has noticed; one that nobody uses never does.
    fn may_idle(&self) -> bool {
        false
    }

    fn register(&mut self, membership: &Membership) -> Result<Partition, StoreError> {
        self.transaction(|transaction, partition, now| members::register(transaction, partition, membership, now))?;
        Ok(self.partitions())
    }

    fn deregister(&mut self, membership: &Membership) -> Result<(), StoreError> {
        self.transaction(|transaction, partition, _| members::deregister(transaction, partition, membership.token))?;
        // The process may end before its connection is closed: the file alone should hold everything then.
        self.empty_wal();
        Ok(())
    }

    fn write(&mut self, membership: &Membership, writes: &[Write]) -> Result<Vec<WriteResult>, StoreError> {
        // Read before the wait for the file's lock: the ages are as of now.
        let asked = to_sql(boot_clock::now());
        let result = self.change(membership, |transaction, partition, now| {
            let mut appended = 0;
            for write in writes {
                match write {
                    Write::Heartbeat(write) => {
                        appended += users::heartbeat(transaction, partition, (asked, now), write)?;
                    }
                    Write::Leave(write) => users::leave(transaction, partition, (asked, now), write)?,
                }
            }
            Ok(Written { appended, known: partition.known })
        })?;
        Ok(vec![(PARTITION, result)])
    }

    fn poll(
        &mut self,
        membership: &Membership,
        requests: &[PollRequest],
    ) -> Result<Vec<Result<PollResult, StoreError>>, StoreError> {
        let results: Vec<_> =
            requests.iter().map(|request| self.poll_partition(membership, request)).collect::<Result<_, _>>()?;
        if results.iter().flatten().any(|result| result.lease.is_held()) {
            self.give_space_back();
        }
        Ok(results)
    }

    fn commit(
        &mut self,
        membership: &Membership,
        commits: &[(Partition, Commit)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        let mut commit = |commit| {
            self.change(membership, |transaction, partition, _| {
                let is_held = partition.is_held_by(membership.token);
                if is_held {
                    events::commit(transaction, partition.number, commit)?;
                }
                Ok(is_held)
            })
        };
        commits.iter().map(|(_, of_partition)| commit(of_partition)).collect()
    }

    fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        self.read(|transaction, partition| users::snapshot(transaction, (partition.number, reading_time(transaction)?)))
    }

    fn undelivered_events(&mut self) -> Result<Vec<Event>, StoreError> {
        self.read(|transaction, partition| {
            events::events(transaction, (partition.number, reading_time(transaction)?), (0, usize::MAX))
        })
    }

    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(|transaction, partition| {
            events::dead_letters(transaction, (partition.number, reading_time(transaction)?))
        })
    }

    fn requeue_dead_letters(&mut self) -> Result<(usize, usize), StoreError> {
        self.transaction(|transaction, partition, _| events::requeue_dead_letters(transaction, partition))
    }

    fn summary(&mut self) -> Result<StoreSummary, StoreError> {
        self.read(|transaction, partition| members::summary(transaction, partition, reading_time(transaction)?))
    }

    fn purge(&mut self, is_forced: bool) -> Result<bool, StoreError> {
        let is_purged = self.transaction(|transaction, partition, _| {
            let now = reading_time(transaction)?;
            members::purge(transaction, partition, now, is_forced)
        })?;
        if is_purged {
            self.finish_purge().map_err(|error| store_error(&self.path, "written", &error))?;
        }
        Ok(is_purged)
    }
}
