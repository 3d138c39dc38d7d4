//! The event log, the dead letters, and the notices.

use std::collections::{HashMap, HashSet};

use online_manager_tracker::{Nanos, Reason, Transition};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::partition::PartitionRow;
use super::to_sql;
use crate::id::UserId;
use crate::store::{Commit, DeadLetter, Event, Handled, Notice};

/// How many bytes of a callback's error are kept: enough for its class, its message and the first lines of a backtrace.
const MAX_ERROR_BYTES: usize = 2_048;

/// Cuts an error's text to [`MAX_ERROR_BYTES`], at the end of a character.
fn cut(error: &str) -> &str {
    let end = (0..=MAX_ERROR_BYTES.min(error.len())).rev().find(|end| error.is_char_boundary(*end));
    error.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Appends an event. `due` is when the user was due, or the time of the heartbeat that made it online; `seen` is the time of
/// the last heartbeat. The event supersedes the dead letters of its user.
pub(super) fn append(
    transaction: &Transaction<'_>,
    partition: &mut PartitionRow,
    id: &[u8],
    reason: Reason,
    (due, seen): (i64, i64),
) -> rusqlite::Result<()> {
    let number = partition.next_number();
    transaction
        .prepare_cached(
            "INSERT INTO events (namespace, number, id, is_online, is_leave, due, seen, version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?2)",
        )?
        .execute(params![
            partition.number,
            number,
            id,
            reason == Reason::Heartbeat,
            reason == Reason::Leave,
            due,
            seen
        ])?;
    transaction
        .prepare_cached("UPDATE dead_letters SET newest = ?3 WHERE namespace = ?1 AND id = ?2")?
        .execute(params![partition.number, id, number])?;
    Ok(())
}

/// Appends a notice about a user for the other members: of a leave, or of a heartbeat with a shorter timeout.
pub(super) fn append_notice(
    transaction: &Transaction<'_>,
    partition: &mut PartitionRow,
    id: &[u8],
    now: i64,
) -> rusqlite::Result<()> {
    let number = partition.next_number();
    transaction
        .prepare_cached("INSERT INTO notices (namespace, number, id, noted_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![partition.number, number, id, now])
        .map(|_| ())
}

/// Returns the notices with a number above `after`.
pub(super) fn notices(connection: &Connection, namespace: i64, after: u64, now: i64) -> rusqlite::Result<Vec<Notice>> {
    let mut query = connection.prepare_cached(
        "SELECT notices.id, users.is_online, users.deadline, users.left, users.left_until
         FROM notices LEFT JOIN users ON users.namespace = notices.namespace AND users.id = notices.id
         WHERE notices.namespace = ?1 AND notices.number > ?2 ORDER BY notices.number",
    )?;
    let notices = query.query_map(params![namespace, to_sql(after)], |row| {
        let Some(id) = UserId::from_store(row.get_ref(0)?.as_blob()?) else { return Ok(None) };
        let is_online = row.get::<_, Option<bool>>(1)?.unwrap_or(false);
        let due = if is_online { row.get::<_, i64>(2)?.saturating_sub(now).max(0) as Nanos } else { 0 };
        let left = row.get::<_, Option<i64>>(3)?.map(|left| -> rusqlite::Result<(Nanos, Nanos)> {
            let until: i64 = row.get(4)?;
            Ok((now.saturating_sub(left).max(0) as Nanos, until.saturating_sub(left).max(0) as Nanos))
        });
        Ok(Some(Notice { id, due, left: left.transpose()? }))
    })?;
    notices.filter_map(Result::transpose).collect()
}

/// Deletes an event from the log.
fn delete_event(transaction: &Transaction<'_>, namespace: i64, number: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM events WHERE namespace = ?1 AND number = ?2")?
        .execute(params![namespace, to_sql(number)])
        .map(|_| ())
}

/// Deletes what a member delivered before the data went back.
pub(super) fn delete_handled(
    transaction: &Transaction<'_>,
    partition: &PartitionRow,
    handled: &Handled,
) -> rusqlite::Result<()> {
    if handled.epoch != partition.known.epoch {
        return Ok(());
    }
    let except: HashSet<u64> = handled.except.iter().copied().collect();
    let numbers: Vec<u64> = transaction
        .prepare_cached("SELECT number FROM events WHERE namespace = ?1 AND number <= ?2")?
        .query_map(params![partition.number, to_sql(handled.through)], |row| row.get::<_, i64>(0))?
        .map(|number| number.map(|number| number as u64))
        .collect::<rusqlite::Result<_>>()?;
    let delivered = numbers.into_iter().filter(|number| !except.contains(number));
    delivered.into_iter().try_for_each(|number| delete_event(transaction, partition.number, number))
}

/// Returns up to `limit` events behind the event number `after`.
pub(super) fn events(
    connection: &Connection,
    (namespace, now): (i64, Option<i64>),
    (after, limit): (u64, usize),
) -> rusqlite::Result<Vec<Event>> {
    let mut query = connection.prepare_cached(
        "SELECT number, id, is_online, is_leave, due, version, failures, seen FROM events
         WHERE namespace = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let events = query.query_map(params![namespace, to_sql(after), limit], |row| read_event(row, now))?;
    // An event with an id of an unknown kind was written by a newer version of the gem, and is left to it.
    events.filter_map(Result::transpose).collect()
}

/// Returns the number of the first event in the log, and when it was due.
pub(super) fn first(connection: &Connection, namespace: i64) -> rusqlite::Result<Option<(u64, i64)>> {
    connection
        .prepare_cached("SELECT number, due FROM events WHERE namespace = ?1 ORDER BY number LIMIT 1")?
        .query_row([namespace], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))
        .optional()
}

/// Applies a commit of the lease holder.
pub(super) fn commit(transaction: &Transaction<'_>, namespace: i64, commit: &Commit) -> rusqlite::Result<()> {
    for (number, failures, error) in &commit.failed {
        transaction
            .prepare_cached("UPDATE events SET failures = ?3, error = ?4 WHERE namespace = ?1 AND number = ?2")?
            .execute(params![namespace, to_sql(*number), failures, cut(error)])?;
    }
    if !commit.dead.is_empty() {
        let later = later_versions(transaction, namespace, commit)?;
        for (number, failures, error) in &commit.dead {
            add_dead_letter(transaction, namespace, (to_sql(*number), *failures, cut(error)), &later)?;
        }
    }
    // Deleted last: an event that was delivered may supersede one that has become a dead letter.
    commit.done.iter().try_for_each(|number| delete_event(transaction, namespace, *number))
}

/// The numbers and versions of events in the log, by user.
type Versions = HashMap<Vec<u8>, Vec<(i64, i64)>>;

/// Returns the events of the users whose events become dead letters. Reads the log once, however many these are.
fn later_versions(transaction: &Transaction<'_>, namespace: i64, commit: &Commit) -> rusqlite::Result<Versions> {
    let mut versions = Versions::new();
    let mut find = transaction.prepare_cached("SELECT id FROM events WHERE namespace = ?1 AND number = ?2")?;
    for (number, _, _) in &commit.dead {
        let id: Option<Vec<u8>> = find.query_row(params![namespace, to_sql(*number)], |row| row.get(0)).optional()?;
        versions.extend(id.map(|id| (id, Vec::new())));
    }
    let first = commit.dead.iter().map(|(number, _, _)| to_sql(*number)).min();
    let mut query =
        transaction.prepare_cached("SELECT number, id, version FROM events WHERE namespace = ?1 AND number > ?2")?;
    let mut rows = query.query(params![namespace, first])?;
    while let Some(row) = rows.next()? {
        if let Some(versions) = versions.get_mut(row.get_ref(1)?.as_blob()?) {
            versions.push((row.get(0)?, row.get(2)?));
        }
    }
    Ok(versions)
}

/// Makes an event a dead letter, if it is in the log.
fn add_dead_letter(
    transaction: &Transaction<'_>,
    namespace: i64,
    (number, failures, error): (i64, u32, &str),
    later: &Versions,
) -> rusqlite::Result<()> {
    let insert = "INSERT INTO dead_letters
                      (namespace, number, id, is_online, is_leave, due, seen, version, failures, error, newest)
                  SELECT namespace, number, id, is_online, is_leave, due, seen, version, ?3, ?4, version
                  FROM events WHERE namespace = ?1 AND number = ?2
                  RETURNING id, version";
    let event = transaction.prepare_cached(insert)?.query_row(params![namespace, number, failures, error], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?))
    });
    let Some((id, version)) = event.optional()? else { return Ok(()) };
    delete_event(transaction, namespace, number as u64)?;
    let later = later.get(&id).into_iter().flatten().filter(|(later, _)| *later > number);
    let newest = later.map(|(_, version)| *version).max().unwrap_or(version).max(version);
    // All dead letters of a user know its newest transition.
    transaction
        .prepare_cached(
            "UPDATE dead_letters SET newest = max(?3, (SELECT max(newest) FROM dead_letters
                                                       WHERE namespace = ?1 AND id = ?2))
             WHERE namespace = ?1 AND id = ?2",
        )?
        .execute(params![namespace, id, newest])
        .map(|_| ())
}

/// Returns all dead letters, in order.
pub(super) fn dead_letters(
    connection: &Connection,
    (namespace, now): (i64, Option<i64>),
) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut query = connection.prepare_cached(
        "SELECT number, id, is_online, is_leave, due, version, failures, seen, error, newest > version
         FROM dead_letters WHERE namespace = ?1 ORDER BY number",
    )?;
    let letters = query.query_map([namespace], |row| {
        let (error, is_superseded) = (row.get(8)?, row.get(9)?);
        Ok(read_event(row, now)?.map(|event| DeadLetter { event, error, is_superseded }))
    })?;
    letters.filter_map(Result::transpose).collect()
}

/// Appends dead letters to the log again, and deletes superseded ones. Returns how many of both.
pub(super) fn requeue_dead_letters(
    transaction: &Transaction<'_>,
    partition: &mut PartitionRow,
) -> rusqlite::Result<(usize, usize)> {
    let namespace = partition.number;
    let superseded =
        transaction.execute("DELETE FROM dead_letters WHERE namespace = ?1 AND newest > version", [namespace])?;
    let numbers: Vec<i64> = transaction
        .prepare_cached("SELECT number FROM dead_letters WHERE namespace = ?1 ORDER BY number")?
        .query_map([namespace], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for number in &numbers {
        transaction
            .prepare_cached(
                "INSERT INTO events (namespace, number, id, is_online, is_leave, due, seen, version)
                 SELECT namespace, ?3, id, is_online, is_leave, due, seen, version FROM dead_letters
                 WHERE namespace = ?1 AND number = ?2",
            )?
            .execute(params![namespace, number, partition.next_number()])?;
    }
    transaction.execute("DELETE FROM dead_letters WHERE namespace = ?1", [namespace])?;
    Ok((numbers.len(), superseded))
}

/// Reads an event whose lateness and age are as of `now`; 0 if the event may be of another boot. Returns `None` if its id is
/// of an unknown kind.
fn read_event(row: &rusqlite::Row<'_>, now: Option<i64>) -> rusqlite::Result<Option<Event>> {
    let Some(id) = UserId::from_store(row.get_ref(1)?.as_blob()?) else { return Ok(None) };
    let (is_online, is_leave) = (row.get(2)?, row.get(3)?);
    let reason = match (is_online, is_leave) {
        (true, _) => Reason::Heartbeat,
        (false, true) => Reason::Leave,
        (false, false) => Reason::Timeout,
    };
    let ago = |time: i64| now.map_or(0, |now| now.saturating_sub(time).max(0) as Nanos);
    Ok(Some(Event {
        number: row.get::<_, i64>(0)? as u64,
        id,
        transition: if is_online { Transition::Online } else { Transition::Offline },
        reason,
        lateness: ago(row.get(4)?),
        seen_ago: ago(row.get(7)?),
        version: row.get(5)?,
        failures: row.get(6)?,
    }))
}
