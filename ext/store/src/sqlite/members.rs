//! The registered members, the figures for an operator, and the end of a namespace.

use online_manager_tracker::Nanos;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::events;
use super::partition::PartitionRow;
use super::schema::update_boot;
use super::to_sql;
use crate::store::{MemberSummary, Membership, PartitionSummary, StoreSummary, Token};

/// How many rows of a purged namespace one transaction deletes: some milliseconds, for which the others wait.
const PURGE_BATCH_SIZE: i64 = 2_000;

/// Registers a member, and deletes registrations that have expired.
pub(super) fn register(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    membership: &Membership,
    now: i64,
) -> rusqlite::Result<()> {
    update_boot(transaction)?;
    transaction.prepare_cached("DELETE FROM members WHERE expires_at <= ?1")?.execute([now])?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO members (namespace, token, name, expires_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            partition.number,
            membership.token.0,
            membership.name,
            now.saturating_add(to_sql(membership.lease))
        ])
        .map(|_| ())
}

/// Ends a registration.
pub(super) fn deregister(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    token: Token,
) -> rusqlite::Result<()> {
    transaction
        .execute("DELETE FROM members WHERE namespace = ?1 AND token = ?2", params![partition.number, token.0])
        .map(|_| ())
}

/// Returns the figures of a namespace. `now` is `None` if its times are of another boot: no lease and no registration
/// of that time counts.
pub(super) fn summary(
    connection: &Connection,
    partition: &PartitionRow,
    now: Option<i64>,
) -> rusqlite::Result<StoreSummary> {
    let count = |of: &str| -> rusqlite::Result<u64> {
        let query = format!("SELECT count(*) FROM {of}");
        connection.query_row(&query, [partition.number], |row| row.get::<_, i64>(0)).map(|count| count as u64)
    };
    let first = events::first(connection, partition.number)?;
    let figures = PartitionSummary {
        online: count("users WHERE namespace = ?1 AND is_online = 1")?,
        undelivered: count("events WHERE namespace = ?1")?,
        oldest: first.map(|(_, due)| now.map_or(0, |now| now.saturating_sub(due).max(0) as Nanos)),
        dead_letters: count("dead_letters WHERE namespace = ?1")?,
        lease_holder: now.and_then(|now| partition.lease_holder(now)),
        hold: now.map_or(0, |now| partition.hold.saturating_sub(now).max(0) as Nanos),
        epoch: partition.known.epoch,
        generation: partition.known.generation,
    };
    let mut query = connection.prepare(
        "SELECT name, expires_at - ?2 FROM members WHERE namespace = ?1 AND expires_at > ?2 ORDER BY name, token",
    )?;
    let members = query.query_map(params![partition.number, now], |row| {
        Ok(MemberSummary { name: row.get(0)?, remaining: row.get::<_, i64>(1)? as Nanos })
    })?;
    Ok(StoreSummary { partitions: vec![figures], members: members.collect::<rusqlite::Result<_>>()? })
}

/// Takes the name off a namespace, so that its next member begins a new one; [`delete_purged`] deletes what was in it.
/// Returns false, and changes nothing, if a member is registered and `is_forced` is false.
pub(super) fn purge(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    now: Option<i64>,
    is_forced: bool,
) -> rusqlite::Result<bool> {
    let has_members: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM members WHERE namespace = ?1 AND expires_at > ?2)",
        params![partition.number, now],
        |row| row.get(0),
    )?;
    if has_members && !is_forced {
        return Ok(false);
    }
    transaction.execute("UPDATE namespaces SET name = NULL WHERE number = ?1", [partition.number])?;
    transaction.execute("DELETE FROM members WHERE namespace = ?1", [partition.number])?;
    Ok(true)
}

/// Whether rows of purged namespaces are left.
pub(super) fn has_purged(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM namespaces WHERE name IS NULL)")?
        .query_row([], |row| row.get(0))
}

/// Deletes some rows of a purged namespace, and the namespace when none is left. Returns whether there was any.
pub(super) fn delete_purged(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    let find = "SELECT number FROM namespaces WHERE name IS NULL LIMIT 1";
    let Some(number) = transaction.query_row(find, [], |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(false);
    };
    for (table, key) in [("users", "id"), ("events", "number"), ("dead_letters", "number"), ("notices", "number")] {
        let delete = format!(
            "DELETE FROM {table} WHERE namespace = ?1 AND {key} IN
                 (SELECT {key} FROM {table} WHERE namespace = ?1 LIMIT ?2)"
        );
        if transaction.execute(&delete, params![number, PURGE_BATCH_SIZE])? > 0 {
            return Ok(true);
        }
    }
    transaction.execute("DELETE FROM namespaces WHERE number = ?1", [number])?;
    Ok(true)
}
