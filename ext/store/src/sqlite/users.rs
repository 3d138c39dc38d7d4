//! Who is online and until when: heartbeats, leaves, the sweep and the snapshot.

use online_manager_tracker::{Nanos, Reason};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::events::append;
use super::{Sqlite, to_sql};
use crate::boot_clock;
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{Heartbeat, Leave, Snapshot, Sweep};

/// A user's row.
struct Row {
    is_online: bool,
    /// When the last heartbeat was.
    seen: i64,
    /// When the last leave was, 0 for none.
    left: i64,
    deadline: i64,
    /// When the sweep finds the user; never after the deadline.
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

/// Applies a heartbeat; its age is as of `now`.
pub(super) fn heartbeat(
    transaction: &Transaction<'_>,
    namespace: i64,
    now: i64,
    heartbeat: &Heartbeat,
) -> rusqlite::Result<()> {
    let id = heartbeat.id.as_bytes();
    let (seen, timeout) = (now.saturating_sub(to_sql(heartbeat.age)), to_sql(heartbeat.timeout));
    let deadline = seen.saturating_add(timeout);
    match find(transaction, namespace, id)? {
        // Late, or written twice. A heartbeat right at the time of a leave does not undo it.
        Some(row) if row.seen > seen || row.left >= seen || (row.seen == seen && !row.is_online) => Ok(()),
        Some(row) if row.is_online && row.sweep_at <= deadline => {
            let update = "UPDATE users SET seen = ?3, timeout = ?4, deadline = ?5 WHERE namespace = ?1 AND id = ?2";
            transaction.prepare_cached(update)?.execute(params![namespace, id, seen, timeout, deadline])?;
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

/// Applies a leave; its age is as of `now`.
pub(super) fn leave(transaction: &Transaction<'_>, namespace: i64, now: i64, leave: &Leave) -> rusqlite::Result<()> {
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

impl Sqlite {
    /// Sets up to `limit` users offline whose deadline has passed. Writes nothing if nobody is due and a sweep has been
    /// recorded lately. `timeout` is the config's, in nanoseconds.
    pub(super) fn sweep(&mut self, timeout: Nanos, limit: usize) -> Result<Sweep, StoreError> {
        let timeout = to_sql(timeout);
        let (swept, first) = self.read(|connection, namespace| {
            let swept = connection
                .prepare_cached("SELECT swept FROM namespaces WHERE number = ?1")?
                .query_row([namespace], |row| row.get::<_, Option<i64>>(0))?;
            Ok((swept, first_sweep_at(connection, namespace)?))
        })?;
        let now = to_sql(boot_clock::now());
        let is_due = first.is_some_and(|first| first <= now);
        // Only half a timeout without a recorded sweep counts as a gap, so one each eighth is enough.
        let is_marked = swept.is_some_and(|swept| now - swept < timeout / 8);
        if !is_due && is_marked {
            return Ok(Sweep { expired: 0, lag: 0, next: first.map(|first| (first - now) as Nanos) });
        }
        self.transaction(|transaction, namespace| {
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
            let (expired, lag) = expire(transaction, namespace, (now, held_until), limit)?;
            let next = first_sweep_at(transaction, namespace)?.map(|first| (first - now).max(0) as Nanos);
            Ok(Sweep { expired, lag, next })
        })
    }
}

/// Returns the time at which the sweep has to check the next user, or `None` if there are no users.
fn first_sweep_at(connection: &Connection, namespace: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT sweep_at FROM users WHERE namespace = ?1 ORDER BY sweep_at LIMIT 1")?
        .query_row([namespace], |row| row.get(0))
        .optional()
}

/// Checks up to `limit` users whose `sweep_at` has passed, and sets those offline whose deadline has passed too.
/// Returns how many, and the greatest lateness among them, in nanoseconds.
fn expire(
    transaction: &Transaction<'_>,
    namespace: i64,
    (now, held_until): (i64, i64),
    limit: usize,
) -> rusqlite::Result<(usize, Nanos)> {
    let mut query = transaction.prepare_cached(
        "SELECT id, is_online, deadline, timeout, seen FROM users
         WHERE namespace = ?1 AND sweep_at <= ?2 ORDER BY sweep_at LIMIT ?3",
    )?;
    let rows = query.query_map(params![namespace, now, limit as i64], |row| {
        let (id, is_online, deadline) = (row.get::<_, Vec<u8>>(0)?, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?);
        Ok((id, is_online, deadline, row.get::<_, i64>(3)?, row.get::<_, i64>(4)?))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let postpone = |id: &[u8], sweep_at: i64| {
        transaction
            .prepare_cached("UPDATE users SET sweep_at = ?3 WHERE namespace = ?1 AND id = ?2")?
            .execute(params![namespace, id, sweep_at])
    };
    let (mut expired, mut lag) = (0, 0);
    for (id, is_online, deadline, timeout, seen) in rows {
        // A heartbeat sets the deadline to its time plus the timeout; only a leave moves it forward.
        let reason = if deadline < seen.saturating_add(timeout) { Reason::Leave } else { Reason::Timeout };
        let deadline = deadline.max(held_until);
        if !is_online {
            // The row was kept for a timeout, so that a late heartbeat does not make the user online again.
            transaction
                .prepare_cached("DELETE FROM users WHERE namespace = ?1 AND id = ?2")?
                .execute(params![namespace, id])?;
        } else if deadline > now {
            postpone(&id, deadline)?;
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

/// Returns everyone who is online, and the sizes of the log and of the dead letters, all at one moment.
pub(super) fn snapshot(connection: &Connection, namespace: i64) -> rusqlite::Result<Snapshot> {
    // A read transaction, so that all queries see the same moment.
    let transaction = connection.unchecked_transaction()?;
    let now = to_sql(boot_clock::now());
    let count = |table: &str| -> rusqlite::Result<u64> {
        let query = format!("SELECT count(*) FROM {table} WHERE namespace = ?1");
        transaction.prepare_cached(&query)?.query_row([namespace], |row| row.get::<_, i64>(0)).map(|count| count as u64)
    };
    let (undelivered_events, dead_letters) = (count("events")?, count("dead_letters")?);
    let mut query = transaction.prepare_cached("SELECT id, seen FROM users WHERE namespace = ?1 AND is_online = 1")?;
    let users = query.query_map([namespace], |row| {
        let id = UserId::from_store(row.get_ref(0)?.as_blob()?);
        let ago = (now - row.get::<_, i64>(1)?).max(0) as Nanos;
        Ok(id.map(|id| (id, ago)))
    })?;
    let users = users.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?;
    Ok(Snapshot { users, undelivered_events, dead_letters })
}
