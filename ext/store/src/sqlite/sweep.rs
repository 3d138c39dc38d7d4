//! The sweep: who is set offline, and what is forgotten.

use online_manager_tracker::{Nanos, Reason};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::events::append;
use super::partition::PartitionRow;
use super::to_sql;
use crate::store::{Membership, OVERDUE, Sweep};

/// How many users one sweep only postpones, how many it forgets, and how many notices, besides the users that it sets offline:
/// some milliseconds of work each.
const MAX_MAINTAINED: usize = 1_000;

/// For how long notices are kept at least, in nanoseconds: members poll several times in that time.
const MIN_NOTICE_KEPT: i64 = 1_000_000_000;

/// Returns what a sweep would return that has nothing to do, or `None` if it has. `timeout` is the config's.
pub(super) fn idle(
    connection: &Connection,
    partition: &PartitionRow,
    (now, timeout): (i64, i64),
) -> rusqlite::Result<Option<Sweep>> {
    // Only half a timeout without a recorded sweep counts as a gap, so one each eighth is enough.
    if partition.swept.is_none_or(|swept| now.saturating_sub(swept) >= timeout / 8) {
        return Ok(None);
    }
    let first = first_sweep_at(connection, partition, now)?;
    let is_over = first.is_some_and(|first| first <= now) || can_forget(connection, partition, (now, timeout))?;
    Ok((!is_over).then(|| Sweep { expired: 0, lag: 0, next: until_next(first, now) }))
}

/// Sets up to `limit` users offline whose deadline has passed, and forgets what is over.
pub(super) fn run(
    transaction: &Transaction<'_>,
    partition: &mut PartitionRow,
    membership: &Membership,
    now: i64,
    limit: usize,
) -> rusqlite::Result<Sweep> {
    let timeout = to_sql(membership.timeout);
    let is_gap = partition.swept.is_some_and(|swept| now.saturating_sub(swept) > timeout / 2);
    if is_gap && first_deadline(transaction, partition)?.is_some() {
        partition.hold_deadlines(membership, now);
    }
    partition.swept = Some(now);
    forget(transaction, partition, (now, timeout))?;
    let due = if partition.hold <= now {
        due_users(transaction, partition, now, limit)?
    } else if partition.leave_hold <= now {
        due_leaving_users(transaction, partition, now, limit)?
    } else {
        Vec::new()
    };
    let lag = set_offline(transaction, partition, now, &due)?;
    Ok(Sweep { expired: due.len(), lag, next: until_next(first_sweep_at(transaction, partition, now)?, now) })
}

fn until_next(first: Option<i64>, now: i64) -> Option<Nanos> {
    first.map(|first| first.saturating_sub(now).max(0) as Nanos)
}

/// Returns the time at which the sweep has to check the next user, or `None` if nobody is online.
fn first_sweep_at(connection: &Connection, partition: &PartitionRow, now: i64) -> rusqlite::Result<Option<i64>> {
    let first = first_deadline(connection, partition)?.map(|first| first.max(partition.hold));
    if partition.hold <= now {
        return Ok(first);
    }
    let query = "SELECT left_until FROM users WHERE namespace = ?1 AND is_online = 1 AND left IS NOT NULL
                 ORDER BY left_until LIMIT 1";
    let leaving = connection.prepare_cached(query)?.query_row([partition.number], |row| row.get::<_, i64>(0));
    let leaving = leaving.optional()?.map(|leaving| leaving.max(partition.leave_hold));
    Ok(first.into_iter().chain(leaving).min())
}

/// Returns a time before which nobody who is online has a deadline, or `None` if nobody is online.
pub(super) fn first_deadline(connection: &Connection, partition: &PartitionRow) -> rusqlite::Result<Option<i64>> {
    let query = "SELECT sweep_at FROM users WHERE namespace = ?1 AND is_online = 1 ORDER BY sweep_at LIMIT 1";
    let first = connection.prepare_cached(query)?.query_row([partition.number], |row| row.get::<_, i64>(0));
    first.optional()
}

/// Until when the last heartbeat or leave of users must have been, and a notice appended, to be forgotten now.
fn forgotten_until(partition: &PartitionRow, (now, timeout): (i64, i64)) -> (i64, i64) {
    let longest = partition.longest(timeout);
    (now.saturating_sub(longest), now.saturating_sub(longest.max(MIN_NOTICE_KEPT)))
}

fn can_forget(connection: &Connection, partition: &PartitionRow, times: (i64, i64)) -> rusqlite::Result<bool> {
    let (users, notices) = forgotten_until(partition, times);
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM users WHERE namespace = ?1 AND is_online = 0 AND sweep_at <= ?2)
                 OR EXISTS (SELECT 1 FROM notices WHERE namespace = ?1 AND noted_at <= ?3)",
        )?
        .query_row(params![partition.number, users, notices], |row| row.get(0))
}

/// Forgets users who are offline, and notices, after the longest timeout in use: what could still arrive is older then.
fn forget(transaction: &Transaction<'_>, partition: &PartitionRow, times: (i64, i64)) -> rusqlite::Result<()> {
    let (users, notices) = forgotten_until(partition, times);
    transaction
        .prepare_cached(
            "DELETE FROM users WHERE namespace = ?1 AND id IN
                 (SELECT id FROM users WHERE namespace = ?1 AND is_online = 0 AND sweep_at <= ?2 LIMIT ?3)",
        )?
        .execute(params![partition.number, users, MAX_MAINTAINED as i64])?;
    transaction
        .prepare_cached(
            "DELETE FROM notices WHERE namespace = ?1 AND number IN
                 (SELECT number FROM notices WHERE namespace = ?1 AND noted_at <= ?2 LIMIT ?3)",
        )?
        .execute(params![partition.number, notices, MAX_MAINTAINED as i64])
        .map(|_| ())
}

/// A user whom the sweep sets offline, or finds too early.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    deadline: i64,
    id: Vec<u8>,
    is_leave: bool,
    seen: i64,
    /// When the user is due who has left, if nothing else makes the user due before.
    left_until: Option<i64>,
}

/// Finds up to `count` users who are online and meet `rest`, which is SQL: a condition and the order.
fn find_due(
    transaction: &Transaction<'_>,
    (namespace, now): (i64, i64),
    count: usize,
    rest: &str,
) -> rusqlite::Result<Vec<Due>> {
    let query = format!(
        "SELECT deadline, id, is_leave, ifnull(seen, deadline), left, left_until FROM users
         WHERE namespace = ?1 AND is_online = 1 AND {rest} LIMIT ?3"
    );
    let mut query = transaction.prepare_cached(&query)?;
    let due = query.query_map(params![namespace, now, i64::try_from(count).unwrap_or(i64::MAX)], |row| {
        let left_until = row.get::<_, Option<i64>>(4)?.map(|_| row.get(5)).transpose()?;
        Ok(Due { deadline: row.get(0)?, id: row.get(1)?, is_leave: row.get(2)?, seen: row.get(3)?, left_until })
    })?;
    due.collect()
}

/// Returns who is due, the earliest first. Postpones the users who are found too early.
fn due_users(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    now: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Due>> {
    let count = limit.saturating_add(MAX_MAINTAINED);
    let found = find_due(transaction, (partition.number, now), count, "sweep_at <= ?2 ORDER BY sweep_at")?;
    let (mut due, early): (Vec<_>, Vec<_>) = found.into_iter().partition(|user| user.deadline <= now);
    let set = "UPDATE users SET sweep_at = ?3 WHERE namespace = ?1 AND id = ?2";
    for Due { deadline, id, .. } in early {
        transaction.prepare_cached(set)?.execute(params![partition.number, id, deadline])?;
    }
    due.sort();
    due.truncate(limit);
    Ok(due)
}

/// Returns who has left and is due, the earliest first, while everyone else's deadline is held.
fn due_leaving_users(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    now: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Due>> {
    let rest = "left IS NOT NULL AND left_until <= ?2 ORDER BY left_until, id";
    find_due(transaction, (partition.number, now), limit, rest)
}

/// Sets users offline. Returns by how much the first of them was late.
fn set_offline(
    transaction: &Transaction<'_>,
    partition: &mut PartitionRow,
    now: i64,
    due: &[Due],
) -> rusqlite::Result<Nanos> {
    let overdue =
        due.iter().map(|user| now.saturating_sub(user.deadline)).max().filter(|lateness| *lateness > to_sql(OVERDUE));
    let first_event = if overdue.is_some() { super::events::first(transaction, partition.number)? } else { None };
    let mut lag = 0;
    for Due { deadline, id, is_leave, seen, left_until } in due {
        transaction
            .prepare_cached(
                "UPDATE users SET is_online = 0, sweep_at = max(seen, ifnull(left, seen)), generation = ?3
                 WHERE namespace = ?1 AND id = ?2",
            )?
            .execute(params![partition.number, id, partition.known.generation as i64])?;
        let due = (*deadline).max(partition.held_for(*left_until));
        append(transaction, partition, id, if *is_leave { Reason::Leave } else { Reason::Timeout }, (due, *seen))?;
        lag = lag.max(now.saturating_sub(due) as Nanos);
    }
    if let Some(lateness) = overdue {
        partition.note_overdue(lateness, first_event.map(|(number, _)| number));
    }
    Ok(lag)
}
