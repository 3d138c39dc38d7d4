//! How the file and its write-ahead log stay small: what is free is given back to the file system, in small steps.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::{BUSY_TIMEOUT, CHECKPOINT_PAGES, Sqlite, members, to_sql};
use crate::boot_clock;

/// How often the lease holder gives space back, in nanoseconds.
const INTERVAL: i64 = 250_000_000;

/// How many free pages the file keeps, 1 MB: users come and go, and a page that is given back is soon asked for again.
const KEPT_PAGES: i64 = 256;

/// How many pages one step gives back, 1 MB: it takes some milliseconds, for which the others wait. 4 MB a second.
const STEP_PAGES: i64 = 256;

/// How many bytes the write-ahead log may keep while nobody writes.
const IDLE_WAL_BYTES: u64 = 256 * 1_024;

/// For how long nobody may have written before the log is emptied, in nanoseconds.
const IDLE_TIME: i64 = 1_000_000_000;

/// The size of a page, SQLite's default. An older file may have another one; then the limit is another one too.
const PAGE_BYTES: i64 = 4_096;

/// The size to which SQLite cuts a log that grew larger, in a long read or a large write, when it begins anew.
pub(super) const MAX_WAL_BYTES: i64 = CHECKPOINT_PAGES * PAGE_BYTES;

/// What a connection knows of the last writes.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// When to look again.
    due_at: i64,
    /// SQLite's counters of the writes of other connections and of this one, and when they last changed.
    counters: (i64, u64),
    changed_at: i64,
}

impl Sqlite {
    /// Gives some space back, if it is time. Errors are left to the next call: nothing depends on it.
    pub(super) fn give_space_back(&mut self) {
        let now = to_sql(boot_clock::now());
        if now < self.upkeep.due_at {
            return;
        }
        self.upkeep.due_at = now.saturating_add(INTERVAL);
        // It waits for no lock: what others do is more urgent.
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let _ = self.give_step_back(now);
        let _ = self.connection.busy_timeout(BUSY_TIMEOUT);
    }

    fn give_step_back(&mut self, now: i64) -> rusqlite::Result<()> {
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        let counters = (version, self.connection.total_changes());
        if counters != self.upkeep.counters {
            (self.upkeep.counters, self.upkeep.changed_at) = (counters, now);
        }
        if members::has_purged(&self.connection)? {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            members::delete_purged(&transaction)?;
            transaction.commit()?;
        }
        vacuum_step(&self.connection)?;
        let size = self.connection.wal_size();
        let is_idle = now.saturating_sub(self.upkeep.changed_at) >= IDLE_TIME;
        if size > MAX_WAL_BYTES as u64 || (size > IDLE_WAL_BYTES && is_idle) {
            empty_wal(&self.connection)?;
        }
        Ok(())
    }

    /// Deletes the rows of purged namespaces, and gives all space back.
    pub(super) fn finish_purge(&mut self) -> rusqlite::Result<()> {
        loop {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let is_left = members::delete_purged(&transaction)?;
            transaction.commit()?;
            if !is_left {
                break;
            }
        }
        while vacuum_step(&self.connection)? {}
        empty_wal(&self.connection)
    }

    /// Copies the write-ahead log into the database and cuts it to nothing, unless another connection reads or writes.
    pub(super) fn empty_wal(&self) {
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let _ = empty_wal(&self.connection);
        let _ = self.connection.busy_timeout(BUSY_TIMEOUT);
    }
}

/// Gives up to [`STEP_PAGES`] free pages back. Returns whether it did.
fn vacuum_step(connection: &Connection) -> rusqlite::Result<bool> {
    let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    let pages = free.saturating_sub(KEPT_PAGES).min(STEP_PAGES);
    if pages <= 0 {
        return Ok(false);
    }
    // The statement returns a row for each page, and goes on when it is asked for the next.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    let left: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    Ok(left < free)
}

/// Copies the write-ahead log into the database and cuts it to nothing, unless another connection reads or writes.
fn empty_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
