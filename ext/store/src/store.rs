//! The contract between a member and a store: the trait [`Store`] and the types of its arguments and results.
//!
//! Every store promises:
//!
//! * A user's state and the event of its transition change in one atomic step.
//! * Events of one user are delivered in order and at least once. An event stays in the log until it is committed.
//! * A user's version grows with each transition, even if the store has lost its data in between.
//! * Only the store's clock counts. Members send ages and lengths, never times.
//! * Every write is idempotent: a member that does not know whether a write arrived sends it again.
//!
//! Over 400 lines: it is one contract, and most lines are its documentation.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use online_manager_tracker::{Nanos, Reason, Transition};

use crate::error::StoreError;
use crate::id::UserId;

/// What a member writes to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The user is there.
    Heartbeat(Heartbeat),
    /// The user leaves.
    Leave(Leave),
}

impl Write {
    /// Returns the user.
    pub fn id(&self) -> &UserId {
        match self {
            Write::Heartbeat(heartbeat) => &heartbeat.id,
            Write::Leave(leave) => &leave.id,
        }
    }
}

/// A heartbeat: the user is online until the timeout has passed since the heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The user.
    pub id: UserId,
    /// How long ago the heartbeat was when [`Store::write`] is called, in nanoseconds.
    pub age: Nanos,
    /// How long the user stays online after the heartbeat, in nanoseconds.
    pub timeout: Nanos,
    /// Why the member writes it.
    pub purpose: Purpose,
}

/// Why a member writes a heartbeat. Of two heartbeats that are written as one the greater purpose counts; one that prolongs is
/// written by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To put the deadline of a user off who is online: later heartbeats may wait to be read in this process. It brings nobody
    /// online.
    Prolong,
    /// The user has sent it.
    Report,
    /// The store may have lost it. If the store does not know the user, and the heartbeat is no longer good, the store appends
    /// the `offline` event: nobody else can.
    Resend,
}

/// For how many nanoseconds two heartbeats or leaves have no certain order. Their ages come from clocks with steps of up to
/// 10 ms, and they travel for different times. Of two heartbeats the later arrival counts: its timeout may be another one. A
/// leave counts that seems older than the last heartbeat by no more: a leave that is lost costs a timeout, a heartbeat that
/// is lost only the time to the next one, since each process hears of the leave.
pub const ORDER_TOLERANCE: Nanos = 30_000_000;

/// Returns for how many nanoseconds a heartbeat has to be good yet to bring its user online; its timeout is in nanoseconds too.
/// One that is written again seems a little later than the first time. Without the margin it would bring a user online, for a
/// moment, whom the sweep has just set offline.
pub(crate) fn online_margin(timeout: Nanos) -> Nanos {
    ORDER_TOLERANCE.min(timeout / 4)
}

/// A store notes that a user was set offline later than this many nanoseconds after its deadline. All other events are in the
/// log nearly in the order of their deadlines, so the first event says how long ago the others can have been due. Of the users
/// who were set offline late the store keeps how late they were at most, until their events are delivered.
pub const OVERDUE: Nanos = 100_000_000;

/// A leave: the user is due some time after it, unless its deadline is sooner anyway. A later heartbeat undoes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// The user.
    pub id: UserId,
    /// How long ago the leave was when [`Store::write`] is called, in nanoseconds.
    pub age: Nanos,
    /// How long after the leave the user is due, in nanoseconds.
    pub after: Nanos,
}

/// What a member asks for with a partition's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseRequest {
    /// Only the state of the lease.
    None,
    /// The lease for another [`Membership::lease`], if the member holds it.
    Renew,
    /// The lease for a [`Membership::lease`], if nobody holds it.
    Acquire,
    /// The end of the lease, if the member holds it.
    Release,
}

/// The state of a lease, as the asking member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Nobody holds it.
    Free,
    /// Another member holds it.
    HeldByOther,
    /// This member holds it, and no other member has held it since this one acquired it. The lease may have expired: it
    /// is this member's until another one acquires it.
    Renewed,
    /// This member has just acquired it. Another member may have delivered events before.
    Acquired,
}

impl LeaseState {
    /// Whether the asking member holds the lease.
    pub fn is_held(self) -> bool {
        matches!(self, LeaseState::Renewed | LeaseState::Acquired)
    }
}

/// How a process participates: its token, the length of its leases and its timeout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Identifies the member.
    pub token: Token,
    /// The machine's name and the process id, as in `web-1:4711`, for an operator.
    pub name: String,
    /// The length of the member's leases and of its registration, in nanoseconds.
    pub lease: Nanos,
    /// The config's timeout in nanoseconds: a gap in the sweeps, and the pause after it, are measured by it.
    pub timeout: Nanos,
    /// What the member knows of each partition, by number. A store whose data are others, or older, changes nothing but
    /// [`PollResult::known`], holds each deadline, and returns [`StoreError::Replaced`]. It holds that of a user who has left
    /// for a lease length, and every other one for one timeout.
    pub known: Vec<Known>,
}

impl Membership {
    /// What the member knows of a partition; nothing if it has not polled it.
    pub fn known(&self, partition: Partition) -> Known {
        self.known.get(usize::from(partition)).copied().unwrap_or_default()
    }
}

/// Which data a partition has, and how far they have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When the data began, in microseconds of the wall clock of that moment; 0 if that is not known.
    pub epoch: u64,
    /// When these data were last found to be older than a member knew, in microseconds of the wall clock; 0 if never. A later
    /// finding has a greater number, and none has the number of another one: the data may go back to before a finding that
    /// some members know, and others do not.
    pub generation: u64,
    /// The highest number that was given out: to an event, a version or a leave.
    pub last: u64,
}

/// What [`Store::poll`] does with one partition: first the lease, then the sweep, then the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollRequest {
    /// The partition.
    pub partition: Partition,
    /// What the member asks for with the lease.
    pub lease: LeaseRequest,
    /// The maximum number of users to set offline whose deadline has passed, each in one atomic step with its event;
    /// `None` for no sweep. A store may set fewer offline. A sweep of 0 only records that the partition was swept.
    ///
    /// After more than half a timeout without a sweep, who is silent is not set offline for one timeout: perhaps no member could
    /// reach the store, and no heartbeat was written either. Who has left is not set offline for a lease length.
    pub sweep: Option<usize>,
    /// The number of the event behind which to read the log, 0 for its beginning, and the maximum number of events;
    /// `None` for no events. A store may return fewer. Only the lease holder gets events.
    pub events: Option<(u64, usize)>,
    /// The notices with a higher number than this are wanted; `None` for no notices.
    pub notices_after: Option<u64>,
    /// What this member knows to be delivered, sent once after the data perhaps went back. The store deletes these events.
    pub handled: Option<Handled>,
}

/// Says that a user's deadline was moved forward: by a leave, or by a heartbeat with a timeout of less than two thirds of the
/// longest one in use. Another process writes its heartbeats of the user each third of their timeout, and the first of two such
/// writes may be of a heartbeat from before that one: it has to hear of it, to write the next one at once. So does a process
/// whose heartbeat changes nothing, because a later one with such a timeout has overtaken it.
/// A notice is about the user as the store knows it when the notice is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The user.
    pub id: UserId,
    /// In how many nanoseconds the user is due; 0 for a user who is offline.
    pub due: Nanos,
    /// How many nanoseconds ago the user left, and how long after that the user was due; `None` if there was no leave since
    /// the last heartbeat.
    pub left: Option<(Nanos, Nanos)>,
}

/// What a member knows to be delivered of a partition: every event up to a number, except a few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// Of which data, see [`Known::epoch`].
    pub epoch: u64,
    /// The number.
    pub through: u64,
    /// The numbers of the events that are not delivered, or may not be.
    pub except: Vec<u64>,
}

/// The result of a [`PollRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollResult {
    /// The state of the lease after the request.
    pub lease: LeaseState,
    /// The result of the sweep, if one was requested.
    pub sweep: Option<Sweep>,
    /// The events, in the order of the log.
    pub events: Vec<Event>,
    /// The notices that were wanted.
    pub notices: Vec<Notice>,
    /// The number after which further notices are to be asked for.
    pub notices_until: u64,
    /// How long ago the first of those was due whose event is not delivered, or who are not set offline yet; `None` if there
    /// is nobody. It may be up to [`OVERDUE`] less.
    pub oldest: Option<Nanos>,
    /// Every event up to this number is delivered.
    pub delivered_through: u64,
    /// What is known of the partition from now on.
    pub known: Known,
}

/// The result of the writes to one partition, or an error. After an error the writes may have arrived or not; the member
/// sends them again, which changes nothing then. Several results may be of the same partition.
pub type WriteResult = (Partition, Result<Written, StoreError>);

/// What the writes to a partition did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The maximum number of events that they appended.
    pub appended: usize,
    /// What the member knows of the partition from now on.
    pub known: Known,
}

/// Identifies a member: 16 random bytes that no other process draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

/// The number of a partition: a share of the users with a lease and an event log of its own.
pub type Partition = u16;

/// A transition in the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's number in the log of its partition. Numbers grow, with gaps.
    pub number: u64,
    /// The user.
    pub id: UserId,
    /// Whether the user came online or went offline.
    pub transition: Transition,
    /// The cause: [`Reason::Leave`] only if a leave moved the deadline forward, or the end of a hold, and never
    /// [`Reason::Stop`].
    pub reason: Reason,
    /// How long before the event was read the user was due, in nanoseconds; for an `online`, how long before that the
    /// heartbeat was.
    pub lateness: Nanos,
    /// How long before the event was read the user's last heartbeat was, in nanoseconds: the last one that the store knew of
    /// when it appended the event.
    pub seen_ago: Nanos,
    /// Greater than the version of every earlier transition of the user.
    pub version: i64,
    /// How often the callback has failed for this event while other callbacks succeeded.
    pub failures: u32,
}

/// What became of events of one partition that were delivered. An event is named by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The events whose callback returned. They leave the log.
    pub done: Vec<u64>,
    /// The events whose callback failed, with the number of failures and the last error. They stay in the log.
    pub failed: Vec<(u64, u32, String)>,
    /// The events that have failed too often, with the number of failures and the last error. They become dead letters.
    pub dead: Vec<(u64, u32, String)>,
}

impl Commit {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failed.is_empty() && self.dead.is_empty()
    }
}

/// The result of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// How many users were set offline.
    pub expired: usize,
    /// How long ago the first of them was due, in nanoseconds; 0 if nobody was.
    pub lag: Nanos,
    /// How long from now until the next user may be due, in nanoseconds: 0 if the sweep did not get to the end, `None`
    /// if nobody is online.
    pub next: Option<Nanos>,
}

/// Everyone who is online, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The users, and how long ago each was last seen, in nanoseconds.
    pub users: HashMap<UserId, Nanos, RandomState>,
    /// The number of events in the log.
    pub undelivered_events: u64,
    /// The number of dead letters.
    pub dead_letters: u64,
}

/// An event that failed too often and is not delivered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// The last error of its callback.
    pub error: String,
    /// Whether the user has had a later transition. If so, to deliver this one would report an outdated state.
    pub is_superseded: bool,
}

/// What an operator sees of a store at a glance: see [`Store::summary`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreSummary {
    /// Every partition, in order.
    pub partitions: Vec<PartitionSummary>,
    /// The registered members.
    pub members: Vec<MemberSummary>,
}

/// What an operator sees of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionSummary {
    /// The number of users who are online.
    pub online: u64,
    /// The number of events that are not delivered.
    pub undelivered: u64,
    /// How long ago the oldest of these events became due.
    pub oldest: Option<Nanos>,
    /// The number of dead letters.
    pub dead_letters: u64,
    /// The name of the member that holds the lease, and for how long from now; `None` if no member holds it.
    pub lease_holder: Option<(String, Nanos)>,
    /// For how long from now nobody is set offline who is silent; 0 if no deadline is held.
    pub hold: Nanos,
    /// See [`Known::epoch`].
    pub epoch: u64,
    /// See [`Known::generation`].
    pub generation: u64,
}

/// What an operator sees of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSummary {
    /// See [`Membership::name`].
    pub name: String,
    /// For how long from now the registration lasts.
    pub remaining: Nanos,
}

/// The state that the processes of one namespace share.
///
/// A `Store` is one connection. It belongs to one thread, which may block in it, and must not be used after a fork.
///
/// # Partitions
///
/// Each method that returns one result per partition may fail for some and succeed for others. `Err` of the method
/// itself stands for all of them.
///
/// # Errors
///
/// After [`StoreError::Unavailable`] the caller retries later, [`recover`](Store::recover)ing the store first. It does
/// the same after [`StoreError::Misconfigured`], which an operator has to mend. After [`StoreError::Replaced`] the
/// store works, but has lost its data: the caller writes everyone who is online again.
pub trait Store: Send {
    /// Returns the number of partitions. They are numbered from 0.
    fn partitions(&self) -> Partition;

    /// Returns the partition of a user. It never changes.
    fn partition_of(&self, id: &UserId) -> Partition;

    /// Returns how often a lease holder polls its partition, in nanoseconds. `is_active` says that something has
    /// happened lately: a store may be polled less often otherwise.
    fn poll_interval(&self, is_active: bool) -> Nanos;

    /// Returns how often a member asks whether a lease that another member holds is free, in nanoseconds.
    fn lease_poll_interval(&self) -> Nanos {
        self.poll_interval(true)
    }

    /// Prepares the store for the next call after an error. Returns false if it has to be opened anew instead.
    fn recover(&mut self) -> bool {
        false
    }

    /// Whether it may stay open while nobody uses it.
    fn may_idle(&self) -> bool {
        true
    }

    /// Connects again if the connection was lost. Returns whether it was: the last writes may then be lost too.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if no connection can be made.
    fn reconnect(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Registers the member for [`Membership::lease`], by the store's clock. A registered member may register again,
    /// which extends the registration. Returns how many leases the member may hold, so that each gets an equal share.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the registration may not have arrived.
    fn register(&mut self, _: &Membership) -> Result<Partition, StoreError> {
        Ok(self.partitions())
    }

    /// Ends the registration, so that the other members get larger shares at once. Idempotent.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the end may not have arrived. The registration then expires by itself.
    fn deregister(&mut self, _: &Membership) -> Result<(), StoreError> {
        Ok(())
    }

    /// Applies heartbeats and leaves, in order for each user.
    ///
    /// A heartbeat makes a user who is offline online and appends the event, in one atomic step. It changes nothing if
    /// it is older than the last heartbeat that the store knows of the user, or not later than the last leave. A leave
    /// changes nothing if it is older than the last heartbeat, or if the user is due sooner anyway. Therefore a write
    /// that is sent twice, or late, does no harm.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if nothing is known of any of the writes; see [`WriteResult`] for those of one partition.
    fn write(&mut self, membership: &Membership, writes: &[Write]) -> Result<Vec<WriteResult>, StoreError>;

    /// Updates leases, sets users offline and reads logs. Returns one result for each request, in their order.
    ///
    /// The lease expires [`Membership::lease`] after the call by the store's clock. Setting a user offline and
    /// appending the event is one atomic step; the request as a whole need not be. Reading leaves events in the log:
    /// they are returned again until they are committed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it is not known what was done. To poll again is safe.
    fn poll(
        &mut self,
        membership: &Membership,
        requests: &[PollRequest],
    ) -> Result<Vec<Result<PollResult, StoreError>>, StoreError>;

    /// Commits what became of delivered events. Returns one result for each commit, in their order: `Ok(false)`, and
    /// nothing has changed, if the member does not hold the lease. An expired lease that no other member has acquired
    /// is enough. Idempotent: numbers that are not in the log are ignored.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it is not known whether a commit arrived. To commit again is safe.
    fn commit(
        &mut self,
        membership: &Membership,
        commits: &[(Partition, Commit)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError>;

    /// Returns everyone who is online. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if any partition cannot be read.
    fn snapshot(&mut self) -> Result<Snapshot, StoreError>;

    /// Returns all events in the log, in order for each partition. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if any partition cannot be read.
    fn undelivered_events(&mut self) -> Result<Vec<Event>, StoreError>;

    /// Returns all dead letters, in order for each partition. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if any partition cannot be read.
    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError>;

    /// Appends the dead letters to the log again, with their version and without failures, and deletes those that are
    /// superseded. Returns how many were requeued, and how many were deleted.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. Some may have been requeued already; they are not dead letters any more, so that a second call
    /// does not requeue them twice.
    fn requeue_dead_letters(&mut self) -> Result<(usize, usize), StoreError>;

    /// Returns the figures of all partitions and the registered members, in at most a few round trips. Writes nothing.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn summary(&mut self) -> Result<StoreSummary, StoreError>;

    /// Deletes everything of the namespace: users, events that are not delivered, dead letters. Returns false, and deletes
    /// nothing, if a member is registered and `is_forced` is false.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn purge(&mut self, is_forced: bool) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_heartbeat_brings_its_user_online_however_short_its_timeout_is() {
        for timeout in [1, 1_000_000, ORDER_TOLERANCE, 10 * ORDER_TOLERANCE] {
            assert!(online_margin(timeout) <= timeout / 4);
        }
    }
}
