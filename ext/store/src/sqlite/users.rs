//! Who is online and until when: heartbeats, leaves and the snapshot.

use online_manager_tracker::{Nanos, Reason};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::events::{append, append_notice};
use super::partition::PartitionRow;
use super::to_sql;
use crate::id::UserId;
use crate::store::{Heartbeat, Leave, ORDER_TOLERANCE, Purpose, Snapshot, online_margin};

/// Stands for a generation that is not that of the data.
const UNCERTAIN: u64 = u64::MAX;

/// A user's row.
#[derive(Clone)]
struct User {
    is_online: bool,
    /// When the last heartbeat was; none if the store only knows a leave.
    seen: Option<i64>,
    timeout: i64,
    deadline: i64,
    /// When the last leave since the last heartbeat was, and the soonest deadline that such leaves set to heartbeats
    /// before it.
    left: Option<(i64, i64)>,
    /// Whether a leave has set the deadline, or would if that were not held.
    is_leave: bool,
    /// The generation of the data when the row was made or a transition was last appended for the user, or [`UNCERTAIN`]. In another generation
    /// the application may know of a transition that the store forgot.
    generation: u64,
    /// Of a user who is online, when the sweep checks the deadline, never after it. Of a user who is offline, the time of
    /// the last heartbeat or leave, after which the row is kept for the longest timeout.
    sweep_at: i64,
}

impl User {
    /// A user whom the store does not know.
    fn new(generation: u64) -> User {
        User {
            is_online: false,
            seen: None,
            timeout: 0,
            deadline: 0,
            left: None,
            is_leave: false,
            generation,
            sweep_at: 0,
        }
    }

    fn find(connection: &Connection, namespace: i64, id: &[u8]) -> rusqlite::Result<Option<User>> {
        connection
            .prepare_cached(
                "SELECT is_online, seen, timeout, deadline, left, left_until, is_leave, generation, sweep_at FROM users
                 WHERE namespace = ?1 AND id = ?2",
            )?
            .query_row(params![namespace, id], |row| {
                let left = row.get::<_, Option<i64>>(4)?;
                let until: i64 = row.get(5)?;
                Ok(User {
                    is_online: row.get(0)?,
                    seen: row.get(1)?,
                    timeout: row.get(2)?,
                    deadline: row.get(3)?,
                    left: left.map(|left| (left, until)),
                    is_leave: row.get(6)?,
                    generation: row.get::<_, i64>(7)? as u64,
                    sweep_at: row.get(8)?,
                })
            })
            .optional()
    }

    /// The time of the last heartbeat or leave.
    fn last(&self) -> i64 {
        self.seen.max(self.left.map(|(left, _)| left)).unwrap_or(0)
    }

    /// Writes the row. `before` is what it was, if it existed.
    fn save(
        mut self,
        transaction: &Transaction<'_>,
        (namespace, id): (i64, &[u8]),
        before: Option<&User>,
    ) -> rusqlite::Result<()> {
        self.sweep_at = match before {
            _ if !self.is_online => self.last(),
            Some(before) if before.is_online => before.sweep_at.min(self.deadline),
            _ => self.deadline,
        };
        let (left, left_until) = self.left.unzip();
        let is_indexed_alike =
            before.is_some_and(|before| (before.is_online, before.sweep_at) == (self.is_online, self.sweep_at));
        let statement = if is_indexed_alike {
            // Most heartbeats: SQLite leaves the index by `sweep_at` alone, whose columns are not named.
            "UPDATE users SET seen = ?4, timeout = ?5, deadline = ?6, left = ?7, left_until = ?8, is_leave = ?9,
                 generation = ?10
             WHERE namespace = ?1 AND id = ?2 AND is_online = ?3 AND sweep_at = ?11"
        } else {
            "INSERT OR REPLACE INTO users
                 (namespace, id, is_online, seen, timeout, deadline, left, left_until, is_leave, generation, sweep_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        };
        transaction
            .prepare_cached(statement)?
            .execute(params![
                namespace,
                id,
                self.is_online,
                self.seen,
                self.timeout,
                self.deadline,
                left,
                left_until.unwrap_or(0),
                self.is_leave,
                self.generation as i64,
                self.sweep_at,
            ])
            .map(|_| ())
    }
}

/// Applies a heartbeat. Its age is as of `asked`, when the member called; `now` is later if the file was locked. Returns
/// how many events it appended.
pub(super) fn heartbeat(
    transaction: &Transaction<'_>,
    partition: &mut PartitionRow,
    (asked, now): (i64, i64),
    heartbeat: &Heartbeat,
) -> rusqlite::Result<usize> {
    let id = heartbeat.id.as_bytes();
    let (seen, timeout) = (asked.saturating_sub(to_sql(heartbeat.age)), to_sql(heartbeat.timeout));
    let generation = partition.known.generation;
    let before = User::find(transaction, partition.number, id)?;
    let is_certainly_online = |user: &User| user.is_online && user.generation == generation;
    if heartbeat.purpose == Purpose::Prolong && !before.as_ref().is_some_and(is_certainly_online) {
        return Ok(0);
    }
    partition.use_timeout(timeout, now);
    let mut user = before.clone().unwrap_or_else(|| User::new(generation));
    // Of two heartbeats without a certain order the later arrival counts: its timeout may be another one.
    let is_late = |before: i64| seen.saturating_add(to_sql(ORDER_TOLERANCE)) < before || user.left.is_some();
    let is_uncertain = user.generation != generation;
    // After the data went back, the clock may have been set back too: a resent heartbeat counts whatever its time.
    let is_resend = heartbeat.purpose == Purpose::Resend && is_uncertain;
    let is_known_online = user.is_online && !is_uncertain;
    // The longest one in use is found anew when the one before has not been used for long.
    let longest = partition.longest.max(user.timeout).max(timeout);
    let is_shorter = |timeout: i64| timeout.saturating_mul(3) < longest.saturating_mul(2);
    let deadline = seen.saturating_add(timeout);
    if user.seen.is_some_and(|before| seen < before && is_late(before)) && !is_resend {
        if is_known_online && user.left.is_none() && deadline > user.deadline && is_shorter(user.timeout) {
            // A later one with a shorter timeout has overtaken it.
            append_notice(transaction, partition, id, now)?;
        }
        return Ok(0);
    }
    // What is resent is after a leave only if it was itself, and not because a later heartbeat is known.
    let came = seen;
    let seen = user.seen.map_or(seen, |before| seen.max(before));
    let is_new = user.seen.is_none() || is_uncertain;
    (user.seen, user.timeout) = (Some(seen), timeout);
    let deadline = seen.saturating_add(timeout);
    let is_moved_forward = is_known_online && deadline < user.deadline && is_shorter(timeout);
    // Of equal times the leave counts: the heartbeat may be written again, and a return is dated later than its leave.
    match user.left.filter(|(left, _)| came <= *left) {
        Some((_, until)) => {
            (user.deadline, user.is_leave) = (deadline.min(until), until < deadline.max(partition.held_until(now)));
        }
        None => {
            (user.deadline, user.is_leave, user.left) = (deadline, false, None);
            if is_moved_forward {
                append_notice(transaction, partition, id, now)?;
            }
        }
    }
    let margin = to_sql(online_margin(heartbeat.timeout));
    let is_online_now = !is_known_online && user.deadline > now.saturating_add(margin);
    if is_online_now {
        (user.is_online, user.generation) = (true, generation);
    } else if !is_known_online && heartbeat.purpose == Purpose::Resend && is_new {
        // The data may have lost that the user was online. The sweep sets the user offline, but not before each process had
        // time to write a later heartbeat. A number of its own: this, too, is noticed if the data go back.
        (user.is_online, user.generation) = (true, UNCERTAIN);
        partition.next_number();
    } else if !is_known_online && is_new {
        // An older heartbeat may follow that another process writes again: these data know no transition.
        user.generation = UNCERTAIN;
    }
    user.save(transaction, (partition.number, id), before.as_ref())?;
    if is_online_now {
        append(transaction, partition, id, Reason::Heartbeat, (seen, seen))?;
    }
    Ok(usize::from(is_online_now))
}

/// Applies a leave; see [`heartbeat`] for the times.
pub(super) fn leave(
    transaction: &Transaction<'_>,
    partition: &mut PartitionRow,
    (asked, now): (i64, i64),
    leave: &Leave,
) -> rusqlite::Result<()> {
    let id = leave.id.as_bytes();
    let left = asked.saturating_sub(to_sql(leave.age));
    let until = left.saturating_add(to_sql(leave.after));
    let before = User::find(transaction, partition.number, id)?;
    let mut user = before.clone().unwrap_or_else(|| User::new(partition.known.generation));
    if user.seen.is_some_and(|seen| left.saturating_add(to_sql(ORDER_TOLERANCE)) < seen) {
        return Ok(());
    }
    if user.is_online && until < user.deadline.max(partition.held_until(now)) {
        (user.deadline, user.is_leave) = (until.min(user.deadline), true);
    }
    let (last, sooner) = user.left.unwrap_or((left, until));
    user.left = Some((left.max(last), until.min(sooner)));
    if left >= last || until < sooner {
        append_notice(transaction, partition, id, now)?;
    }
    user.save(transaction, (partition.number, id), before.as_ref())
}

/// Returns everyone who is online, and the sizes of the log and of the dead letters.
pub(super) fn snapshot(connection: &Connection, (namespace, now): (i64, Option<i64>)) -> rusqlite::Result<Snapshot> {
    let count = |table: &str| -> rusqlite::Result<u64> {
        let query = format!("SELECT count(*) FROM {table} WHERE namespace = ?1");
        connection.prepare_cached(&query)?.query_row([namespace], |row| row.get::<_, i64>(0)).map(|count| count as u64)
    };
    let (undelivered_events, dead_letters) = (count("events")?, count("dead_letters")?);
    let mut query = connection.prepare_cached("SELECT id, seen FROM users WHERE namespace = ?1 AND is_online = 1")?;
    let users = query.query_map([namespace], |row| {
        let id = UserId::from_store(row.get_ref(0)?.as_blob()?);
        let seen = row.get::<_, Option<i64>>(1)?;
        let ago = now.zip(seen).map_or(0, |(now, seen)| now.saturating_sub(seen).max(0) as Nanos);
        Ok(id.map(|id| (id, ago)))
    })?;
    let users = users.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?;
    Ok(Snapshot { users, undelivered_events, dead_letters })
}
