//! The tables of the file, and the checks and changes that happen when it is opened.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::files::{resolve, store_error};
use super::partition::PartitionRow;
use super::permissions::refusal;
use super::to_sql;
use crate::boot_clock;
use crate::error::StoreError;

/// The `application_id` of the file: "OnMa" in ASCII.
const APPLICATION: i64 = 0x4f6e_4d61;

/// The format of the file, its `user_version`.
const VERSION: i64 = 6;
const SCHEMA: &str = "
    CREATE TABLE boot (
        id TEXT NOT NULL,
        began INTEGER NOT NULL                   -- the wall clock's time, in nanoseconds, at time 0 of the boot's clock
    );
    CREATE TABLE namespaces (
        number INTEGER PRIMARY KEY,
        name TEXT UNIQUE,                        -- NULL if it was purged and its rows are being deleted
        epoch INTEGER NOT NULL,                  -- when the data began, in microseconds of the wall clock
        generation INTEGER NOT NULL DEFAULT 0,   -- when they were last found to be older than a member knew, or 0
        last INTEGER NOT NULL DEFAULT 0,         -- the last number of an event, a version or a leave
        swept INTEGER,                           -- when the users were swept last
        hold INTEGER NOT NULL DEFAULT 0,         -- who is silent is not set offline before that time
        leave_hold INTEGER NOT NULL DEFAULT 0,   -- who has left is not set offline before that time
        silent_until INTEGER NOT NULL DEFAULT 0, -- no event is handed out before that time
        longest INTEGER NOT NULL DEFAULT 0,      -- the longest timeout in use
        longest_until INTEGER NOT NULL DEFAULT 0,
        overdue INTEGER NOT NULL DEFAULT 0,      -- how late users were set offline at most, of those who were late
        overdue_through INTEGER NOT NULL DEFAULT 0, -- the number of the last of their events
        lease BLOB,                              -- the token of the lease holder
        leased_until INTEGER NOT NULL DEFAULT 0,
        holder BLOB,                             -- the last lease holder, unless it released the lease
        holder_name TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE members (
        namespace INTEGER NOT NULL,
        token BLOB NOT NULL,
        name TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (namespace, token)
    ) WITHOUT ROWID;
    CREATE TABLE users (
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        is_online INTEGER NOT NULL,
        seen INTEGER,                            -- the time of the last heartbeat
        timeout INTEGER NOT NULL,
        deadline INTEGER NOT NULL,
        left INTEGER,                            -- the time of the last leave
        left_until INTEGER NOT NULL,             -- the deadline of heartbeats before the leave
        is_leave INTEGER NOT NULL,               -- whether a leave has set the deadline
        generation INTEGER NOT NULL,
        sweep_at INTEGER NOT NULL,               -- online: never after the deadline; offline: the later of seen and left
        PRIMARY KEY (namespace, id)
    ) WITHOUT ROWID;
    CREATE INDEX users_by_sweep_at ON users (namespace, is_online, sweep_at);
    CREATE INDEX leaving_users ON users (namespace, left_until) WHERE is_online = 1 AND left IS NOT NULL;
    CREATE TABLE events (
        namespace INTEGER NOT NULL,
        number INTEGER NOT NULL,
        id BLOB NOT NULL,
        is_online INTEGER NOT NULL,
        is_leave INTEGER NOT NULL,               -- whether a leave was the reason
        due INTEGER NOT NULL,                    -- when the user was due
        seen INTEGER NOT NULL,                   -- the time of the last heartbeat
        version INTEGER NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        PRIMARY KEY (namespace, number)
    ) WITHOUT ROWID;
    CREATE TABLE dead_letters (
        namespace INTEGER NOT NULL,
        number INTEGER NOT NULL,
        id BLOB NOT NULL,
        is_online INTEGER NOT NULL,
        is_leave INTEGER NOT NULL,
        due INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        version INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        error TEXT NOT NULL,
        newest INTEGER NOT NULL,                 -- the version of the user's newest transition
        PRIMARY KEY (namespace, number)
    ) WITHOUT ROWID;
    CREATE INDEX dead_letters_by_id ON dead_letters (namespace, id);
    CREATE TABLE notices (
        namespace INTEGER NOT NULL,
        number INTEGER NOT NULL,
        id BLOB NOT NULL,
        noted_at INTEGER NOT NULL,               -- when the store got the leave or heartbeat
        PRIMARY KEY (namespace, number)
    ) WITHOUT ROWID;
    CREATE INDEX notices_by_noted_at ON notices (namespace, noted_at);
";

/// Fails unless the file is empty, or has been written by this format of the gem, and may be written.
pub(super) fn check_format(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "read", &error);
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{}: {what}", path.display())));
    if connection.is_readonly("main").map_err(failed)? {
        let refusal = refusal(&resolve(path)).unwrap_or_else(|| "this process may not write the file".into());
        return misconfigured(format!("could not be opened: {refusal}"));
    }
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    if is_empty(connection).map_err(failed)? {
        return Ok(());
    }
    let application = pragma("application_id")?;
    if application != APPLICATION {
        return misconfigured(format!(
            "this is a database of another application: its application_id is {application}, expected {APPLICATION}. \
             Choose another path"
        ));
    }
    match pragma("user_version")? {
        VERSION => Ok(()),
        version if version > VERSION => misconfigured(format!(
            "a newer version of online_manager has written the file, in format {version}; this version reads \
             format {VERSION}. Use the same version of the gem in all processes"
        )),
        version => misconfigured(format!(
            "an older version of online_manager has written the file, in format {version}; this version reads \
             format {VERSION}. Stop all processes, delete the file, and start them with the same version of the gem"
        )),
    }
}

/// Whether the file has no tables yet.
pub(super) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Returns the present time, or `None` if the times in the file are of another boot, whose clock nobody can read.
pub(super) fn reading_time(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let recorded: String = connection.prepare_cached("SELECT id FROM boot")?.query_row([], |row| row.get(0))?;
    Ok((recorded == boot_clock::boot_id()).then(|| to_sql(boot_clock::now())))
}

/// Returns the names of the namespaces, in order.
pub(super) fn namespaces(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut query = connection.prepare("SELECT name FROM namespaces WHERE name IS NOT NULL ORDER BY name")?;
    query.query_map([], |row| row.get(0))?.collect()
}

/// Creates the tables and the namespace if they do not exist, and adapts the times after a reboot. Writes nothing if
/// nothing has changed: opening a store takes no lock then.
pub(super) fn migrate(connection: &mut Connection, namespace: &str) -> rusqlite::Result<()> {
    let is_current = |connection: &Connection| -> rusqlite::Result<bool> {
        Ok(!is_empty(connection)?
            && reading_time(connection)?.is_some()
            && PartitionRow::find(connection, namespace)?.is_some())
    };
    if is_current(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let boot = boot_clock::boot_id();
    if is_empty(&transaction)? {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute("INSERT INTO boot (id, began) VALUES (?1, ?2)", params![boot, boot_began()])?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    if reading_time(&transaction)?.is_none() {
        adapt_times(&transaction, &boot)?;
    }
    PartitionRow::find_or_create(&transaction, namespace)?;
    transaction.commit()
}

/// The wall clock's time at time 0 of the boot's clock, in nanoseconds.
fn boot_began() -> i64 {
    boot_clock::wall_micros().saturating_mul(1_000).saturating_sub(to_sql(boot_clock::now()))
}

/// Records again when the boot began, if the wall clock has been set since or the machine has slept.
pub(super) fn update_boot(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE boot SET began = ?1 WHERE abs(began - ?1) > 1000000000")?
        .execute([boot_began()])
        .map(|_| ())
}

/// Times of another boot mean nothing on this boot's clock. Everyone stays online for one timeout; what was kept for late
/// writes goes, since no process of that boot lives. Of last heartbeats and events only the wall clock says how long ago they
/// were. They were before this boot, whatever it says.
fn adapt_times(transaction: &Transaction<'_>, boot: &str) -> rusqlite::Result<()> {
    let now = to_sql(boot_clock::now());
    let began = boot_began();
    let before: i64 = transaction.query_row("SELECT began FROM boot", [], |row| row.get(0))?;
    let shift = before.saturating_sub(began);
    transaction.execute("UPDATE boot SET id = ?1, began = ?2", params![boot, began])?;
    transaction.execute("DELETE FROM users WHERE is_online = 0", [])?;
    transaction.execute(
        "UPDATE users SET seen = min(seen + ?2, 0), left = NULL, left_until = 0, is_leave = 0, deadline = ?1 + timeout,
             sweep_at = ?1 + timeout",
        [now, shift],
    )?;
    for table in ["events", "dead_letters"] {
        let shift_times = format!("UPDATE {table} SET due = min(due + ?1, 0), seen = min(seen + ?1, 0)");
        transaction.execute(&shift_times, [shift])?;
    }
    transaction.execute_batch("DELETE FROM notices; DELETE FROM members")?;
    transaction.execute(
        "UPDATE namespaces SET swept = NULL, hold = 0, leave_hold = 0, silent_until = 0, overdue_through = 0,
             longest_until = ?1 + 2 * longest, lease = NULL, leased_until = 0, holder = NULL",
        [now],
    )?;
    Ok(())
}
