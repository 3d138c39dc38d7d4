//! The event log and the dead letters.

use online_manager_tracker::{Nanos, Reason, Transition};
use rusqlite::{Connection, Transaction, params};

use super::{Sqlite, to_sql};
use crate::boot_clock;
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{Commit, DeadLetter, Event, Token};

/// Appends an event that was due at that time, with a version above all before it.
pub(super) fn append(
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

/// Takes an event out of the log.
fn delete_event(transaction: &Transaction<'_>, number: u64) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM events WHERE number = ?1")?.execute([to_sql(number)]).map(|_| ())
}

impl Sqlite {
    pub(super) fn events(&mut self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|connection, namespace| {
            let mut query = connection.prepare_cached(
                "SELECT number, id, is_online, is_leave, due, version, failures FROM events
                 WHERE number > ?1 AND namespace = ?2 ORDER BY number LIMIT ?3",
            )?;
            let now = to_sql(boot_clock::now());
            let events =
                query.query_map(params![to_sql(after), namespace, limit as i64], |row| read_event(row, now))?;
            // What a future version may have written is left to it.
            events.filter_map(Result::transpose).collect()
        })
    }

    pub(super) fn commit_one(&mut self, token: Token, commit: &Commit) -> Result<bool, StoreError> {
        self.transaction(|transaction, namespace| {
            let leases_held: i64 = transaction
                .prepare_cached("SELECT count(*) FROM namespaces WHERE number = ?1 AND lease = ?2")?
                .query_row(params![namespace, token.0], |row| row.get(0))?;
            if leases_held == 0 {
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
}

pub(super) fn dead_letters(connection: &Connection, namespace: i64) -> rusqlite::Result<Vec<DeadLetter>> {
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
}

pub(super) fn requeue_dead_letters(transaction: &Transaction<'_>, namespace: i64) -> rusqlite::Result<(usize, usize)> {
    let superseded =
        transaction.execute("DELETE FROM dead_letters WHERE namespace = ?1 AND is_superseded = 1", [namespace])?;
    let requeued = transaction.execute(
        "INSERT INTO events (namespace, id, is_online, is_leave, due, version)
         SELECT namespace, id, is_online, is_leave, due, version FROM dead_letters WHERE namespace = ?1 ORDER BY number",
        [namespace],
    )?;
    transaction.execute("DELETE FROM dead_letters WHERE namespace = ?1", [namespace])?;
    Ok((requeued, superseded))
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

fn transition(is_online: bool) -> Transition {
    if is_online { Transition::Online } else { Transition::Offline }
}
