//! The tables of the file, and the checks and changes that happen when it is opened.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{store_error, to_sql};
use crate::boot_clock;
use crate::error::StoreError;

/// The `application_id` of the file: "OnMa" in ASCII.
const APPLICATION: i64 = 0x4f6e_4d61;

/// The format of the file, its `user_version`.
const VERSION: i64 = 2;
const SCHEMA: &str = "
    CREATE TABLE boot (id TEXT NOT NULL);
    CREATE TABLE namespaces (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL DEFAULT 0,      -- the last version of an event
        swept INTEGER,                           -- when the users were swept last
        held_until INTEGER NOT NULL DEFAULT 0,   -- nobody is set offline before that time
        lease BLOB,                              -- the token of the lease holder
        leased_until INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE users (
        namespace INTEGER NOT NULL,
        id BLOB NOT NULL,
        is_online INTEGER NOT NULL,
        seen INTEGER NOT NULL,                   -- the time of the last heartbeat
        left INTEGER NOT NULL DEFAULT 0,         -- the time of the last leave, 0 for none
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
        due INTEGER NOT NULL,                    -- when the user was due
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

/// Fails unless the file is empty, or has been written by this format of the gem, and may be written.
pub(super) fn check_format(path: &Path, connection: &Connection) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "read", &error);
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{}: {what}", path.display())));
    if connection.is_readonly("main").map_err(failed)? {
        return misconfigured(
            "the file may not be written by this process. Give its user permission to write the file and its folder"
                .into(),
        );
    }
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if tables == 0 {
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

/// Creates the tables and the namespace if they do not exist, and adapts the times after a reboot. Returns the number
/// of the namespace. Writes nothing if nothing has changed: opening a store takes no lock then.
pub(super) fn migrate(connection: &mut Connection, namespace: &str) -> rusqlite::Result<i64> {
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
    let recorded_boot: String = transaction.query_row("SELECT id FROM boot", [], |row| row.get(0))?;
    if recorded_boot != boot {
        // Times of another boot mean nothing on this boot's clock: everyone stays online for one timeout.
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
