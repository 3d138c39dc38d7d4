//! The row of a namespace: what its only partition is, its counter, its lease, and the rules for these.

use online_manager_tracker::Nanos;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{PARTITION, to_sql};
use crate::boot_clock;
use crate::store::{Known, LeaseRequest, LeaseState, Membership, Token};

/// For how long after the data went back no event is handed out, in nanoseconds: nearly every member polls within that time,
/// and says what it has delivered. A slower one that held the lease finds it free: the others leave it alone for one lease
/// length.
const SETTLING: i64 = 1_000_000_000;

/// A namespace. Times are nanoseconds of the boot clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionRow {
    /// The number of the namespace in the file.
    pub(super) number: i64,
    pub(super) known: Known,
    /// When the users were last swept.
    pub(super) swept: Option<i64>,
    /// Who is silent is not set offline before the first time, and who has left not before the second, which is never later.
    pub(super) hold: i64,
    pub(super) leave_hold: i64,
    /// No event is handed out before that time.
    pub(super) silent_until: i64,
    /// The longest timeout in use, and until when it counts.
    pub(super) longest: i64,
    longest_until: i64,
    /// How late users were set offline at most, of those who were late, and the number of the last of their events.
    overdue: i64,
    overdue_through: i64,
    /// The member that holds the lease, if one does, and until when.
    lease: Option<Token>,
    leased_until: i64,
    /// The member that held the lease last, unless it released it.
    holder: Option<Token>,
    holder_name: String,
}

const COLUMNS: &str = "number, epoch, generation, last, swept, hold, leave_hold, silent_until, longest, longest_until,
    overdue, overdue_through, lease, leased_until, holder, holder_name";

fn read_row(row: &Row<'_>) -> rusqlite::Result<PartitionRow> {
    let counter = |column| row.get::<_, i64>(column).map(|number| number as u64);
    let token = |column| row.get::<_, Option<[u8; 16]>>(column).map(|token| token.map(Token));
    Ok(PartitionRow {
        number: row.get(0)?,
        known: Known { epoch: counter(1)?, generation: counter(2)?, last: counter(3)? },
        swept: row.get(4)?,
        hold: row.get(5)?,
        leave_hold: row.get(6)?,
        silent_until: row.get(7)?,
        longest: row.get(8)?,
        longest_until: row.get(9)?,
        overdue: row.get(10)?,
        overdue_through: row.get(11)?,
        lease: token(12)?,
        leased_until: row.get(13)?,
        holder: token(14)?,
        holder_name: row.get(15)?,
    })
}

impl PartitionRow {
    /// Reads a namespace, if it exists.
    pub(super) fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<PartitionRow>> {
        connection
            .prepare_cached(&format!("SELECT {COLUMNS} FROM namespaces WHERE name = ?1"))?
            .query_row([name], read_row)
            .optional()
    }

    /// Reads a namespace, and creates it if it does not exist.
    pub(super) fn find_or_create(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<PartitionRow> {
        if let Some(row) = PartitionRow::find(transaction, name)? {
            return Ok(row);
        }
        let insert = format!("INSERT INTO namespaces (name, epoch) VALUES (?1, ?2) RETURNING {COLUMNS}");
        transaction.query_row(&insert, params![name, boot_clock::wall_micros().max(1)], read_row)
    }

    /// Writes what differs from `before`, if anything does.
    pub(super) fn save(&self, transaction: &Transaction<'_>, before: &PartitionRow) -> rusqlite::Result<()> {
        if self == before {
            return Ok(());
        }
        let update = "UPDATE namespaces SET generation = ?2, last = ?3, swept = ?4, hold = ?5, leave_hold = ?6,
                          silent_until = ?7, longest = ?8, longest_until = ?9, overdue = ?10, overdue_through = ?11,
                          lease = ?12, leased_until = ?13, holder = ?14, holder_name = ?15
                      WHERE number = ?1";
        let values = params![
            self.number,
            self.known.generation as i64,
            self.known.last as i64,
            self.swept,
            self.hold,
            self.leave_hold,
            self.silent_until,
            self.longest,
            self.longest_until,
            self.overdue,
            self.overdue_through,
            self.lease.map(|token| token.0),
            self.leased_until,
            self.holder.map(|token| token.0),
            self.holder_name,
        ];
        transaction.prepare_cached(update)?.execute(values).map(|_| ())
    }

    /// Compares the data with what the member knows. Returns whether they are the same, and not older; otherwise holds
    /// everyone's deadline, since heartbeats may be missing. `is_reopened` says that the file was replaced under this
    /// process: heartbeats may be missing though no number is.
    pub(super) fn enter(&mut self, membership: &Membership, now: i64, is_reopened: bool) -> bool {
        let (known, data) = (membership.known(PARTITION), self.known);
        if known.epoch == 0 {
            // The member knew other data before, or none.
            self.known.last = data.last.max(known.last);
        }
        let is_same = (known.epoch, known.generation) == (data.epoch, data.generation);
        let is_lost = known.epoch != 0 && (!is_same || is_reopened);
        let is_older = known.epoch == data.epoch
            && (known.generation > data.generation || (known.generation == data.generation && known.last > data.last));
        if !is_lost && !is_older {
            return true;
        }
        self.hold_deadlines(membership, now);
        self.known.last = data.last.max(known.last);
        if is_older {
            // Not only one more: the data may be from before a finding that another member knows.
            self.known.generation = (known.generation + 1).max(boot_clock::wall_micros() as u64);
            self.silent_until = now.saturating_add(SETTLING);
        }
        false
    }

    /// Holds the deadlines, as heartbeats may be missing: for one timeout. Those of users who have left are held for one lease
    /// length: within it each member writes what it knows, so that a later heartbeat undoes the leave. No member shortens
    /// the hold of another one.
    pub(super) fn hold_deadlines(&mut self, membership: &Membership, now: i64) {
        self.hold = self.hold.max(now.saturating_add(to_sql(membership.timeout)));
        let lease = to_sql(membership.lease.min(membership.timeout));
        self.leave_hold = self.leave_hold.max(now.saturating_add(lease));
    }

    /// Returns until when a deadline is held, of a user who has left and would be due at `left_until`, or has not left.
    pub(super) fn held_for(&self, left_until: Option<i64>) -> i64 {
        left_until.map_or(self.hold, |until| self.hold.min(self.leave_hold.max(until)))
    }

    /// Returns until when deadlines are held, if they are. Times of before the boot are negative.
    pub(super) fn held_until(&self, now: i64) -> i64 {
        if now < self.hold { self.hold } else { i64::MIN }
    }

    /// Draws the next number of an event, a version or a leave. By the wall clock, they grow even after the file was lost.
    pub(super) fn next_number(&mut self) -> i64 {
        self.known.last = (self.known.last + 1).max(boot_clock::wall_micros() as u64);
        self.known.last as i64
    }

    /// Notes that a timeout is in use.
    pub(super) fn use_timeout(&mut self, timeout: i64, now: i64) {
        let until = now.saturating_add(timeout.saturating_mul(2));
        // Moved in steps: most writes leave the row as it is.
        if timeout > self.longest || now > self.longest_until || (timeout == self.longest && until > self.longest_until)
        {
            (self.longest, self.longest_until) = (timeout, until.saturating_add(timeout / 8));
        }
    }

    /// Returns the longest timeout in use, at least the config's.
    pub(super) fn longest(&self, timeout: i64) -> i64 {
        self.longest.max(timeout)
    }

    /// Notes that users were set offline up to `lateness` nanoseconds late, whose last event is the last of the log.
    /// `first_event` is the number of the first event in the log before.
    pub(super) fn note_overdue(&mut self, lateness: i64, first_event: Option<u64>) {
        let is_undelivered = first_event.is_some_and(|first| to_sql(first) <= self.overdue_through);
        self.overdue = if is_undelivered { lateness.max(self.overdue) } else { lateness };
        self.overdue_through = self.known.last as i64;
    }

    /// Returns how long before `due`, at which the first event in the log was due, the first deadline of all may have been.
    pub(super) fn overdue(&self, first_event: u64) -> i64 {
        if to_sql(first_event) <= self.overdue_through { self.overdue } else { 0 }
    }

    fn current_holder(&self, now: i64) -> Option<Token> {
        self.lease.filter(|_| self.leased_until > now)
    }

    /// Whether a member held the lease last. It may have expired since.
    pub(super) fn is_held_by(&self, token: Token) -> bool {
        self.holder == Some(token)
    }

    /// Returns the name of the member that holds the lease, and for how long from now.
    pub(super) fn lease_holder(&self, now: i64) -> Option<(String, Nanos)> {
        self.current_holder(now).map(|_| (self.holder_name.clone(), self.leased_until.saturating_sub(now) as Nanos))
    }

    /// Does with the lease what a member asks for. Returns its state afterwards.
    pub(super) fn lease(&mut self, membership: &Membership, now: i64, request: LeaseRequest) -> LeaseState {
        let (token, current) = (membership.token, self.current_holder(now));
        let is_mine = current == Some(token) || (current.is_none() && self.is_held_by(token));
        let is_extended = match request {
            LeaseRequest::Renew => is_mine,
            LeaseRequest::Acquire => is_mine || current.is_none(),
            LeaseRequest::None => false,
            LeaseRequest::Release if is_mine => {
                (self.lease, self.leased_until, self.holder) = (None, 0, None);
                return LeaseState::Free;
            }
            LeaseRequest::Release => false,
        };
        if is_extended {
            (self.lease, self.leased_until) = (Some(token), now.saturating_add(to_sql(membership.lease)));
            (self.holder, self.holder_name) = (Some(token), membership.name.clone());
        }
        match current {
            _ if is_mine => LeaseState::Renewed,
            _ if is_extended => LeaseState::Acquired,
            Some(_) => LeaseState::HeldByOther,
            None => LeaseState::Free,
        }
    }
}
