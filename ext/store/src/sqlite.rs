//! The store that is a file, for the processes of one boot_clock.
//!
//! Over 400 lines: every statement is next to the one whose rows it relies on, and all of them share one schema.
//!
//! One partition. The clock is the boot_clock's monotonic one, kept beside the boot that it counts from: after a reboot
//! everybody gets one timeout to come back, and no step of the wall clock sets anybody offline.
//!
//! A heartbeat writes to the user's own row and to no index. The sweep finds users by `sweep_at`, the time to look at them:
//! who has beaten since is put back, so that the index changes once for each timeout and not for each heartbeat.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use online_manager_tracker::{Nanos, Reason, Transition};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::boot_clock;
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{
    Commit, DeadLetter, Event, Heartbeat, LeaseRequest, LeaseState, Leave, Membership, Partition, PollRequest,
    PollResult, Snapshot, Store, Sweep, Token, Write, WriteResult,
};

/// The only one.
const PARTITION: Partition = 0;

/// How often a member requests what the others have written.
const POLL_INTERVAL: Nanos = 50_000_000;

/// What the file says that it is ("OnMa").
const APPLICATION: i64 = 0x4f6e_4d61;

/// The version of what is in the file.
const VERSION: i64 = 2;

/// For how long another program's lock is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before a file that is being made is opened again.
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Pages that the log of SQLite's may have before it is written back.
const CHECKPOINT_PAGES: i64 = 1_000;

const SCHEMA: &str = "
    CREATE TABLE boot (id TEXT NOT NULL);
    CREATE TABLE namespaces (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL DEFAULT 0,      -- the last one given out
        swept INTEGER,                           -- when, on this boot's clock
        held_until INTEGER NOT NULL DEFAULT 0,   -- nobody is set offline before
        lease BLOB,
        leased_until INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE users (
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        is_online INTEGER NOT NULL,
        seen INTEGER NOT NULL,                   -- the last heartbeat: an older one changes nothing
        left INTEGER NOT NULL DEFAULT 0,         -- the last leave: no heartbeat before it undoes it
        timeout INTEGER NOT NULL,
        deadline INTEGER NOT NULL,
        sweep_at INTEGER NOT NULL,                -- never after the deadline
        PRIMARY KEY (namespace, id)
    ) WITHOUT ROWID;
    CREATE INDEX users_by_sweep_at ON users (namespace, sweep_at);
    CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        is_online INTEGER NOT NULL,
        is_leave INTEGER NOT NULL,                -- whether a leave was the reason
        due INTEGER NOT NULL,                    -- when it should have been, on this boot's clock
        version INTEGER NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        error TEXT
    );
    CREATE TABLE dead_letters (
        number INTEGER PRIMARY KEY,
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        is_online INTEGER NOT NULL,
        is_leave INTEGER NOT NULL,
        due INTEGER NOT NULL,
        version INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        error TEXT NOT NULL,
        is_superseded INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX dead_letters_by_id ON dead_letters (namespace, id);
";

/// A connection to the file.
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
    name: String,
    namespace: i64,
    /// Which file it is.
    file: Option<(u64, u64)>,
}

impl Sqlite {
    /// Opens the file, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]. The message names the path.
    pub fn open(path: &Path, namespace: &str) -> Result<Sqlite, StoreError> {
        check_path(path)?;
        // While another process makes the file, SQLite says at once that it is locked, however long it was told to wait.
        let patient_until = Instant::now() + BUSY_TIMEOUT;
        loop {
            match Sqlite::try_open(path, namespace) {
                Err(StoreError::Unavailable(_)) if Instant::now() < patient_until => thread::sleep(OPEN_RETRY_DELAY),
                result => return result,
            }
        }
    }

    fn try_open(path: &Path, namespace: &str) -> Result<Sqlite, StoreError> {
        let failed = |error| explain(path, "opened", &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        check_format(path, &connection)?;
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
        if mode != "wal" {
            let message = format!("{}: SQLite cannot use a write-ahead log there (it says {mode})", path.display());
            return Err(StoreError::Misconfigured(message));
        }
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed)?;
        let number = migrate(&mut connection, namespace).map_err(failed)?;
        let file = identity(path);
        Ok(Sqlite { path: path.to_owned(), connection, name: namespace.to_owned(), namespace: number, file })
    }

    /// One atomic step.
    fn step<T>(
        &mut self,
        doing: &str,
        step: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.check_file()?;
        let Sqlite { path, connection, namespace, .. } = self;
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = step(&transaction, *namespace)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error| explain(path, doing, &error))
    }

    fn read<T>(&mut self, read: impl FnOnce(&Connection, i64) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.check_file()?;
        read(&self.connection, self.namespace).map_err(|error| explain(&self.path, "read", &error))
    }

    /// SQLite goes on with a file that has been deleted or replaced, which no other process would ever read.
    fn check_file(&mut self) -> Result<(), StoreError> {
        if identity(&self.path) == self.file {
            return Ok(());
        }
        *self = Sqlite::open(&self.path.clone(), &self.name.clone())?;
        let message =
            format!("{}: the file has been deleted or replaced; from now on the new one is used", self.path.display());
        Err(StoreError::Replaced(message))
    }
}

/// What tells a file from another one of the same name, if there is one.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

/// SQLite's own messages leave out what one needs to know at two in the morning.
fn check_path(path: &Path) -> Result<(), StoreError> {
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{}: {what}", path.display())));
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return misconfigured("this names no file".into()),
    };
    if path.is_dir() {
        return misconfigured("this is a folder, and should be a file".into());
    }
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => misconfigured(format!("{} is no folder", folder.display())),
        Err(error) => misconfigured(format!("its folder cannot be reached: {error}")),
    }
}

/// Whether the file is ours, and of a version that we know.
fn check_format(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let failed = |error| explain(path, "read", &error);
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{}: {what}", path.display())));
    if connection.is_readonly("main").map_err(failed)? {
        return misconfigured("the file may not be written".into());
    }
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if tables == 0 {
        return Ok(());
    }
    if pragma("application_id")? != APPLICATION {
        return misconfigured("this is a database of another application".into());
    }
    match pragma("user_version")? {
        VERSION => Ok(()),
        version => misconfigured(format!(
            "a newer version of online_manager has written the file (in format {version}; this one knows {VERSION}). All \
             processes need the same version of the gem"
        )),
    }
}

/// Makes what is not there yet, and lets nobody expire because of a boot. Answers the namespace's number.
fn migrate(connection: &mut Connection, namespace: &str) -> rusqlite::Result<i64> {
    let boot = boot_clock::boot_id();
    let is_current = |connection: &Connection| -> rusqlite::Result<Option<i64>> {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 || connection.query_row("SELECT id FROM boot", [], |row| row.get::<_, String>(0))? != boot {
            return Ok(None);
        }
        let number = "SELECT number FROM namespaces WHERE name = ?1";
        connection.query_row(number, [namespace], |row| row.get(0)).optional()
    };
    if let Some(number) = is_current(connection)? {
        return Ok(number);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute("INSERT INTO boot (id) VALUES (?1)", [&boot])?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    let known: String = transaction.query_row("SELECT id FROM boot", [], |row| row.get(0))?;
    if known != boot {
        // Times of another boot mean nothing on this one's clock. Everybody gets one timeout to come back.
        let now = to_sql(boot_clock::now());
        transaction.execute("UPDATE boot SET id = ?1", [&boot])?;
        transaction
            .execute("UPDATE users SET seen = 0, left = 0, deadline = ?1 + timeout, sweep_at = ?1 + timeout", [now])?;
        transaction
            .execute("UPDATE namespaces SET swept = NULL, held_until = 0, lease = NULL, leased_until = 0", [])?;
    }
    transaction.execute("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)", [namespace])?;
    let number =
        transaction.query_row("SELECT number FROM namespaces WHERE name = ?1", [namespace], |row| row.get(0))?;
    transaction.commit()?;
    Ok(number)
}

/// An error as an operator wants to read it.
fn explain(path: &Path, doing: &str, error: &rusqlite::Error) -> StoreError {
    let message = format!("{}: could not be {doing}: {error}", path.display());
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

/// SQLite's integers are signed: what does not fit is cut.
fn to_sql(nanos: Nanos) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn transition(is_online: bool) -> Transition {
    if is_online { Transition::Online } else { Transition::Offline }
}

/// Appends an event that was due at that time, with a version above all before it.
fn append(
    transaction: &Transaction<'_>,
    namespace: i64,
    id: &[u8],
    (reason, due): (Reason, i64),
) -> rusqlite::Result<()> {
    // Above the last one and, should the file get lost, above what was given out before that: then the wall clock helps.
    let version: i64 = transaction
        .prepare_cached("UPDATE namespaces SET version = max(version + 1, ?2) WHERE number = ?1 RETURNING version")?
        .query_row(params![namespace, boot_clock::wall_micros()], |row| row.get(0))?;
    transaction
        .prepare_cached(
            "INSERT INTO events (namespace, id, is_online, is_leave, due, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![namespace, id, reason == Reason::Heartbeat, reason == Reason::Leave, due, version])?;
    transaction
        .prepare_cached("UPDATE dead_letters SET is_superseded = 1 WHERE namespace = ?1 AND id = ?2")?
        .execute(params![namespace, id])?;
    Ok(())
}

/// What is kept of a user.
struct Row {
    is_online: bool,
    seen: i64,
    left: i64,
    deadline: i64,
    sweep_at: i64,
}

fn find(transaction: &Transaction<'_>, namespace: i64, id: &[u8]) -> rusqlite::Result<Option<Row>> {
    transaction
        .prepare_cached("SELECT is_online, seen, left, deadline, sweep_at FROM users WHERE namespace = ?1 AND id = ?2")?
        .query_row(params![namespace, id], |row| {
            let (is_online, seen, left) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Row { is_online, seen, left, deadline: row.get(3)?, sweep_at: row.get(4)? })
        })
        .optional()
}

fn beat(transaction: &Transaction<'_>, namespace: i64, now: i64, beat: &Heartbeat) -> rusqlite::Result<()> {
    let id = beat.id.as_bytes();
    let (seen, timeout) = (now.saturating_sub(to_sql(beat.age)), to_sql(beat.timeout));
    let deadline = seen.saturating_add(timeout);
    match find(transaction, namespace, id)? {
        // Late: from a process that did not know, or told twice.
        Some(row) if row.seen > seen || row.left >= seen || (row.seen == seen && !row.is_online) => Ok(()),
        Some(row) if row.is_online && row.sweep_at <= deadline => {
            let put_off = "UPDATE users SET seen = ?3, timeout = ?4, deadline = ?5 WHERE namespace = ?1 AND id = ?2";
            transaction.prepare_cached(put_off)?.execute(params![namespace, id, seen, timeout, deadline])?;
            Ok(())
        }
        row => {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO users (namespace, id, is_online, seen, timeout, deadline, sweep_at)
                     VALUES (?1, ?2, 1, ?3, ?4, ?5, ?5)",
                )?
                .execute(params![namespace, id, seen, timeout, deadline])?;
            match row {
                Some(row) if row.is_online => Ok(()),
                _ => append(transaction, namespace, id, (Reason::Heartbeat, seen)),
            }
        }
    }
}

fn leave(transaction: &Transaction<'_>, namespace: i64, now: i64, leave: &Leave) -> rusqlite::Result<()> {
    let id = leave.id.as_bytes();
    let left = now.saturating_sub(to_sql(leave.age));
    let deadline = left.saturating_add(to_sql(leave.after));
    match find(transaction, namespace, id)? {
        Some(row) if row.is_online && row.seen <= left && deadline < row.deadline => {
            transaction
                .prepare_cached(
                    "UPDATE users SET left = ?3, deadline = ?4, sweep_at = min(sweep_at, ?4)
                     WHERE namespace = ?1 AND id = ?2",
                )?
                .execute(params![namespace, id, left, deadline])?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Takes an event out of the log.
fn delete_event(transaction: &Transaction<'_>, number: u64) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM events WHERE number = ?1")?.execute([to_sql(number)]).map(|_| ())
}

impl Sqlite {
    /// Takes or renews the lease, if it is free or one's own.
    fn acquire(&mut self, token: Token, length: Nanos) -> Result<LeaseState, StoreError> {
        let now = to_sql(boot_clock::now());
        let before = self.lease_state(token)?;
        if before == LeaseState::HeldByOther {
            // Without a write, which would hold up the others.
            return Ok(before);
        }
        self.step("written", |transaction, namespace| {
            let now = to_sql(boot_clock::now()).max(now);
            let until = now.saturating_add(to_sql(length));
            let update = "UPDATE namespaces SET lease = ?2, leased_until = ?4
                          WHERE number = ?1 AND (lease = ?2 OR lease IS NULL OR leased_until < ?3)";
            let count = transaction.prepare_cached(update)?.execute(params![namespace, token.0, now, until])?;
            Ok(match (count, before) {
                (0, _) => LeaseState::HeldByOther,
                (_, LeaseState::Renewed) => LeaseState::Renewed,
                _ => LeaseState::Acquired,
            })
        })
    }

    /// Whose the lease is. It stays one's own after its time until somebody else takes it.
    fn lease_state(&mut self, token: Token) -> Result<LeaseState, StoreError> {
        let now = to_sql(boot_clock::now());
        self.read(|connection, namespace| {
            let query = "SELECT lease = ?2, lease IS NULL OR leased_until < ?3 FROM namespaces WHERE number = ?1";
            connection.prepare_cached(query)?.query_row(params![namespace, token.0, now], |row| {
                Ok(match (row.get::<_, Option<bool>>(0)?, row.get(1)?) {
                    (Some(true), _) => LeaseState::Renewed,
                    (_, true) => LeaseState::Free,
                    (_, false) => LeaseState::HeldByOther,
                })
            })
        })
    }

    fn give_back(&mut self, token: Token) -> Result<(), StoreError> {
        self.step("written", |transaction, namespace| {
            let update = "UPDATE namespaces SET lease = NULL, leased_until = 0 WHERE number = ?1 AND lease = ?2";
            transaction.execute(update, params![namespace, token.0]).map(|_| ())
        })
    }

    fn sweep(&mut self, timeout: Nanos, most: usize) -> Result<Sweep, StoreError> {
        let timeout = to_sql(timeout);
        let (swept, first) = self.read(|connection, namespace| {
            let swept = connection
                .prepare_cached("SELECT swept FROM namespaces WHERE number = ?1")?
                .query_row([namespace], |row| row.get::<_, Option<i64>>(0))?;
            Ok((swept, first_sweep_at(connection, namespace)?))
        })?;
        let now = to_sql(boot_clock::now());
        let is_due = first.is_some_and(|first| first <= now);
        // Half a timeout is what the guard allows: with a few marks within it, none is missed.
        let is_marked = swept.is_some_and(|swept| now - swept < timeout / 8);
        if !is_due && is_marked {
            return Ok(Sweep { expired: 0, lag: 0, next: first.map(|first| (first - now) as Nanos) });
        }
        self.step("written", |transaction, namespace| {
            let now = to_sql(boot_clock::now());
            let (swept, mut held_until) = transaction
                .prepare_cached("SELECT swept, held_until FROM namespaces WHERE number = ?1")?
                .query_row([namespace], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?)))?;
            if swept.is_some_and(|swept| now - swept > timeout / 2) && first_sweep_at(transaction, namespace)?.is_some()
            {
                held_until = now.saturating_add(timeout);
            }
            transaction
                .prepare_cached("UPDATE namespaces SET swept = ?2, held_until = ?3 WHERE number = ?1")?
                .execute(params![namespace, now, held_until])?;
            let (expired, lag) = expire(transaction, namespace, (now, held_until), most)?;
            let next = first_sweep_at(transaction, namespace)?.map(|first| (first - now).max(0) as Nanos);
            Ok(Sweep { expired, lag, next })
        })
    }

    fn events(&mut self, after: u64, most: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|connection, namespace| {
            let mut query = connection.prepare_cached(
                "SELECT number, id, is_online, is_leave, due, version, failures FROM events
                 WHERE number > ?1 AND namespace = ?2 ORDER BY number LIMIT ?3",
            )?;
            let now = to_sql(boot_clock::now());
            let events = query.query_map(params![to_sql(after), namespace, most as i64], |row| read_event(row, now))?;
            // What a future version may have written is left to it.
            events.filter_map(Result::transpose).collect()
        })
    }

    fn commit_one(&mut self, token: Token, commit: &Commit) -> Result<bool, StoreError> {
        self.step("written", |transaction, namespace| {
            let is_mine: i64 = transaction
                .prepare_cached("SELECT count(*) FROM namespaces WHERE number = ?1 AND lease = ?2")?
                .query_row(params![namespace, token.0], |row| row.get(0))?;
            if is_mine == 0 {
                return Ok(false);
            }
            for (number, failures, error) in &commit.failed {
                transaction
                    .prepare_cached("UPDATE events SET failures = ?2, error = ?3 WHERE number = ?1")?
                    .execute(params![to_sql(*number), failures, error])?;
            }
            for (number, error) in &commit.dead {
                transaction
                    .prepare_cached(
                        "INSERT INTO dead_letters
                             (number, namespace, id, is_online, is_leave, due, version, failures, error, is_superseded)
                         SELECT number, namespace, id, is_online, is_leave, due, version, failures, ?2,
                             EXISTS (SELECT 1 FROM events AS later WHERE later.number > events.number
                                     AND later.namespace = events.namespace AND later.id = events.id)
                         FROM events WHERE number = ?1",
                    )?
                    .execute(params![to_sql(*number), error])?;
                delete_event(transaction, *number)?;
            }
            // At last: what was done may have superseded who is buried.
            for number in &commit.done {
                delete_event(transaction, *number)?;
            }
            Ok(true)
        })
    }

    fn poll_partition(&mut self, membership: &Membership, request: &PollRequest) -> Result<PollResult, StoreError> {
        let lease = match request.lease {
            LeaseRequest::None => self.lease_state(membership.token)?,
            LeaseRequest::Renew | LeaseRequest::Acquire => self.acquire(membership.token, membership.lease)?,
            LeaseRequest::Release => {
                self.give_back(membership.token)?;
                LeaseState::Free
            }
        };
        let sweep = request.sweep.map(|most| self.sweep(membership.timeout, most)).transpose()?;
        let events = match request.events.filter(|_| lease.is_held()) {
            Some((after, most)) => self.events(after, most)?,
            None => Vec::new(),
        };
        Ok(PollResult { lease, sweep, events })
    }
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

    fn write(&mut self, _: &Membership, messages: &[Write]) -> Result<Vec<WriteResult>, StoreError> {
        // Before the file is waited for: ages are as of now.
        let now = to_sql(boot_clock::now());
        self.step("written", |transaction, namespace| {
            messages.iter().try_for_each(|message| match message {
                Write::Heartbeat(message) => beat(transaction, namespace, now, message),
                Write::Leave(message) => leave(transaction, namespace, now, message),
            })
        })?;
        Ok(vec![(PARTITION, Ok(messages.len()))])
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
        self.read(|connection, namespace| {
            // One moment for all of it.
            let transaction = connection.unchecked_transaction()?;
            let now = to_sql(boot_clock::now());
            let count = |table: &str| -> rusqlite::Result<u64> {
                let query = format!("SELECT count(*) FROM {table} WHERE namespace = ?1");
                transaction
                    .prepare_cached(&query)?
                    .query_row([namespace], |row| row.get::<_, i64>(0))
                    .map(|count| count as u64)
            };
            let (waiting, dead_letters) = (count("events")?, count("dead_letters")?);
            let mut query =
                transaction.prepare_cached("SELECT id, seen FROM users WHERE namespace = ?1 AND is_online = 1")?;
            let users = query.query_map([namespace], |row| {
                let id = UserId::from_store(row.get_ref(0)?.as_blob()?);
                let ago = (now - row.get::<_, i64>(1)?).max(0) as Nanos;
                Ok(id.map(|id| (id, ago)))
            })?;
            let users = users.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?;
            Ok(Snapshot { users, waiting, dead_letters })
        })
    }

    fn waiting(&mut self) -> Result<Vec<Event>, StoreError> {
        self.events(0, usize::MAX / 2)
    }

    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(|connection, namespace| {
            let mut query = connection.prepare(
                "SELECT number, id, is_online, is_leave, due, version, failures, error, is_superseded FROM dead_letters
                 WHERE namespace = ?1 ORDER BY number",
            )?;
            let now = to_sql(boot_clock::now());
            let letters = query.query_map([namespace], |row| {
                let (error, is_superseded) = (row.get(7)?, row.get(8)?);
                Ok(read_event(row, now)?.map(|event| DeadLetter { event, error, is_superseded }))
            })?;
            letters.filter_map(Result::transpose).collect()
        })
    }

    fn requeue_dead_letters(&mut self) -> Result<(usize, usize), StoreError> {
        self.step("written", |transaction, namespace| {
            let superseded = transaction
                .execute("DELETE FROM dead_letters WHERE namespace = ?1 AND is_superseded = 1", [namespace])?;
            let retried = transaction.execute(
                "INSERT INTO events (namespace, id, is_online, is_leave, due, version)
                 SELECT namespace, id, is_online, is_leave, due, version FROM dead_letters WHERE namespace = ?1 ORDER BY number",
                [namespace],
            )?;
            transaction.execute("DELETE FROM dead_letters WHERE namespace = ?1", [namespace])?;
            Ok((retried, superseded))
        })
    }
}

/// The first time at which somebody has to be looked at.
fn first_sweep_at(connection: &Connection, namespace: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT sweep_at FROM users WHERE namespace = ?1 ORDER BY sweep_at LIMIT 1")?
        .query_row([namespace], |row| row.get(0))
        .optional()
}

/// Looks at those whose time has come. Answers how many were set offline, and how late the first of them was.
fn expire(
    transaction: &Transaction<'_>,
    namespace: i64,
    (now, held_until): (i64, i64),
    most: usize,
) -> rusqlite::Result<(usize, Nanos)> {
    let mut query = transaction.prepare_cached(
        "SELECT id, is_online, deadline, timeout, seen FROM users
         WHERE namespace = ?1 AND sweep_at <= ?2 ORDER BY sweep_at LIMIT ?3",
    )?;
    let rows = query.query_map(params![namespace, now, most as i64], |row| {
        let (id, is_online, deadline) = (row.get::<_, Vec<u8>>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?);
        Ok((id, is_online, deadline, row.get::<_, i64>(3)?, row.get::<_, i64>(4)?))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let sweep_at = |id: &[u8], tick: i64| {
        transaction
            .prepare_cached("UPDATE users SET sweep_at = ?3 WHERE namespace = ?1 AND id = ?2")?
            .execute(params![namespace, id, tick])
    };
    let (mut expired, mut lag) = (0, 0);
    for (id, is_online, deadline, timeout, seen) in rows {
        // A heartbeat sets the whole of it.
        let reason = if deadline < seen.saturating_add(timeout) { Reason::Leave } else { Reason::Timeout };
        let deadline = deadline.max(held_until);
        if !is_online {
            // It was kept so that no late beat brings the user back.
            transaction
                .prepare_cached("DELETE FROM users WHERE namespace = ?1 AND id = ?2")?
                .execute(params![namespace, id])?;
        } else if deadline > now {
            sweep_at(&id, deadline)?;
        } else {
            transaction
                .prepare_cached("UPDATE users SET is_online = 0, sweep_at = ?3 WHERE namespace = ?1 AND id = ?2")?
                .execute(params![namespace, id, now.saturating_add(timeout)])?;
            append(transaction, namespace, &id, (reason, deadline))?;
            expired += 1;
            lag = lag.max((now - deadline) as Nanos);
        }
    }
    Ok((expired, lag))
}

/// An event as of `now`.
fn read_event(row: &rusqlite::Row<'_>, now: i64) -> rusqlite::Result<Option<Event>> {
    let Some(id) = UserId::from_store(row.get_ref(1)?.as_blob()?) else { return Ok(None) };
    let (is_online, is_leave) = (row.get(2)?, row.get(3)?);
    let reason = match (is_online, is_leave) {
        (true, _) => Reason::Heartbeat,
        (false, true) => Reason::Leave,
        (false, false) => Reason::Timeout,
    };
    Ok(Some(Event {
        number: row.get::<_, i64>(0)? as u64,
        id,
        transition: transition(is_online),
        reason,
        // Before a boot the clock was another.
        lateness: now.saturating_sub(row.get(4)?).max(0) as Nanos,
        version: row.get(5)?,
        failures: row.get(6)?,
    }))
}
