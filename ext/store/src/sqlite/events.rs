//! The event log and the dead letters.

use online_manager_tracker::{Nanos, Reason, Transition};
use rusqlite::{Connection, Transaction, params};

use super::{Sqlite, to_sql};
use crate::boot_clock;
use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{Commit, DeadLetter, Event, Token};

/// Appends an event. `due` is when the user was due, or the time of the heartbeat that made it online. The event
/// supersedes the dead letters of its user.
pub(super) fn append(
    transaction: &Transaction<'_>,
    namespace: i64,
    id: &[u8],
    (reason, due): (Reason, i64),
) -> rusqlite::Result<()> {
    // The wall clock keeps versions growing after the file was lost: it is above every version that the lost file held.
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

/// Deletes an event from the log.
fn delete_event(transaction: &Transaction<'_>, number: u64) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM events WHERE number = ?1")?.execute([to_sql(number)]).map(|_| ())
}

impl Sqlite {
    /// Returns up to `limit` events behind the event number `after`.
    pub(super) fn events(&mut self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|connection, namespace| {
            let mut query = connection.prepare_cached(
                "SELECT number, id, is_online, is_leave, due, version, failures FROM events
                 WHERE number > ?1 AND namespace = ?2 ORDER BY number LIMIT ?3",
            )?;
            let now = to_sql(boot_clock::now());
            let events =
                query.query_map(params![to_sql(after), namespace, limit as i64], |row| read_event(row, now))?;
            // An event with an id of an unknown kind was written by a newer version of the gem, and is left to it.
            events.filter_map(Result::transpose).collect()
        })
    }

    /// Applies a commit. Returns false, and changes nothing, if the member does not hold the lease.
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
            // Deleted last: an event that was delivered may supersede one that has become a dead letter.
            for number in &commit.done {
                delete_event(transaction, *number)?;
            }
            Ok(true)
        })
    }
}

/// Returns all dead letters, in order.
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

/// Appends dead letters to the log again, and deletes superseded ones. Returns how many of both.
pub(super) fn requeue_dead_letters(transaction: &Transaction<'_>, namespace: i64) -> rusqlite::Result<(usize, usize)> {
    let superseded =
        transaction.execute("DELETE FROM dead_letters WHERE namespace = ?1 AND is_superseded = 1", [namespace])?;
    let requeued = transaction.execute(
        "INSERT INTO events (namespace, id, is_online, is_leave, due, version)
         SELECT namespace, id, is_online, is_leave, due, version FROM dead_letters
         WHERE namespace = ?1 ORDER BY number",
        [namespace],
    )?;
    transaction.execute("DELETE FROM dead_letters WHERE namespace = ?1", [namespace])?;
    Ok((requeued, superseded))
}

/// Reads an event whose lateness is as of `now`. Returns `None` if its id is of an unknown kind.
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
        // 0 after a reboot: `due` is a time of the clock before.
        lateness: now.saturating_sub(row.get(4)?).max(0) as Nanos,
        version: row.get(5)?,
        failures: row.get(6)?,
    }))
}

fn transition(is_online: bool) -> Transition {
    if is_online { Transition::Online } else { Transition::Offline }
}
