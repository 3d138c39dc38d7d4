//! What a store must be able to do, and what it promises.
//!
//! Section 6 of the design, in short: a user's state and the event that tells of it change in one atomic step; events are
//! delivered at least once and in order for each user; versions grow with each transition of a user, also when the
//! store has lost its data.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use online_manager_tracker::{Nanos, Reason, Transition};

use crate::error::StoreError;
use crate::id::UserId;

/// What a process tells a store, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A heartbeat.
    Heartbeat(Heartbeat),
    /// A leave.
    Leave(Leave),
}

impl Write {
    /// Whom it is about.
    pub fn id(&self) -> &UserId {
        match self {
            Write::Heartbeat(heartbeat) => &heartbeat.id,
            Write::Leave(leave) => &leave.id,
        }
    }
}

/// A heartbeat. Its age is told and not its time: only the store's own clock counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whose.
    pub id: UserId,
    /// How long ago.
    pub age: Nanos,
    /// For how long it is good, from then on.
    pub timeout: Nanos,
    /// Whether the member writes it again because the store may have lost it. If the store does not know the user, and the
    /// heartbeat is no longer good, the store appends the `offline` event: nobody else can.
    pub is_resend: bool,
}

/// A leave: the user is due so long after it, if that is sooner than its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Whose.
    pub id: UserId,
    /// How long ago.
    pub age: Nanos,
    /// From then on.
    pub after: Nanos,
}

/// What a process wants of a partition's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseRequest {
    /// Nothing, but to know whose it is.
    None,
    /// To have it for longer, if one has it.
    Renew,
    /// To have it, if it is free.
    Acquire,
    /// To have it no longer.
    Release,
}

/// Whose a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Nobody's.
    Free,
    /// Another process'.
    HeldByOther,
    /// One's own, and nobody else has had it since one took it.
    Renewed,
    /// One's own from now on.
    Acquired,
}

impl LeaseState {
    /// Whether one has it.
    pub fn is_held(self) -> bool {
        matches!(self, LeaseState::Renewed | LeaseState::Acquired)
    }
}

/// On what membership a process takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Who it is.
    pub token: Token,
    /// How long its leases are for.
    pub lease: Nanos,
    /// The config's timeout.
    pub timeout: Nanos,
    /// What the member knows of each partition, by number. A store whose data are others, or older, changes nothing but
    /// [`PollResult::known`], holds everyone's deadline for one timeout, and returns [`StoreError::Replaced`].
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
    /// How often these data were found to be older than a member knew.
    pub generation: u64,
    /// The highest number that was given out: to an event, a version or a leave.
    pub last: u64,
}

/// What is to be looked at in a partition, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollRequest {
    /// Which.
    pub partition: Partition,
    /// What is wanted of its lease.
    pub lease: LeaseRequest,
    /// Up to how many users are to be set offline whose deadline has passed, each with its event in one step. With 0
    /// only the look itself is noted.
    ///
    /// If nobody has looked for longer than half a timeout, nobody is set offline for one timeout: perhaps their beats
    /// had nowhere to go.
    pub sweep: Option<usize>,
    /// Behind which number of the log events are wanted, and up to how many. One who has no lease gets none.
    pub events: Option<(u64, usize)>,
    /// The leaves with a higher number than this are wanted; `None` for no leaves.
    pub leaves_after: Option<u64>,
    /// What this member delivered before the data went back, sent once after that.
    pub handled: Option<Handled>,
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

/// What a [`PollRequest`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollResult {
    /// Whose the lease is now.
    pub lease: LeaseState,
    /// What the sweep found, if one was wanted.
    pub sweep: Option<Sweep>,
    /// In order.
    pub events: Vec<Event>,
    /// The users of the leaves that were wanted.
    pub leaves: Vec<UserId>,
    /// The number after which further leaves are to be asked for.
    pub leaves_until: u64,
    /// How long ago the oldest event became due that is not delivered; `None` if all are.
    pub oldest: Option<Nanos>,
    /// What is known of the partition from now on.
    pub known: Known,
}

/// What became of the messages for a partition: up to how many events they made. Or they were not taken, or it is not known
/// whether they were; to tell them again changes nothing then.
pub type WriteResult = (Partition, Result<Written, StoreError>);

/// What a write has done in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The greatest number of events that it can have appended.
    pub appended: usize,
    /// What is known of the partition from now on.
    pub known: Known,
}

/// Who has or wants a lease: a number that no other process draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub [u8; 16]);

/// A part of the users that has a lease and an event log of its own.
pub type Partition = u16;

/// A transition in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number in the log of its partition. They grow, and may leave some out.
    pub number: u64,
    /// Whose.
    pub id: UserId,
    /// Which.
    pub transition: Transition,
    /// Why: a leave only if it brought the deadline forward, and never [`Reason::Stop`].
    pub reason: Reason,
    /// How long before it was read the user was due; for an `online`, how long before that the user beat.
    pub lateness: Nanos,
    /// Grows with each transition of that user.
    pub version: i64,
    /// How often its callback has failed while others succeeded.
    pub failures: u32,
}

/// What became of events that were delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Numbers of those whose callback returned.
    pub done: Vec<u64>,
    /// Numbers of those that failed, how often, and the last error.
    pub failed: Vec<(u64, u32, String)>,
    /// Numbers of those that are given up, and the last error.
    pub dead: Vec<(u64, String)>,
}

impl Commit {
    /// Whether there is nothing to be told.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.failed.is_empty() && self.dead.is_empty()
    }
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// How many users were set offline.
    pub expired: usize,
    /// How long after its deadline the first of them was. 0 if there was none.
    pub lag: Nanos,
    /// How long from now until somebody may be due. `Some(0)` at once, `None` when nobody is online.
    pub next: Option<Nanos>,
}

/// Everybody who is online, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// How long ago each of them was last seen.
    pub users: HashMap<UserId, Nanos, RandomState>,
    /// How many events have not been delivered.
    pub undelivered_events: u64,
    /// How many events were given up.
    pub dead_letters: u64,
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// The last error.
    pub error: String,
    /// Whether a later transition of the same user has come: then it is not worth delivering.
    pub is_superseded: bool,
}

/// The state that processes share. One of these belongs to one thread, which may block on it; none crosses a fork.
///
/// All that is in it is of one namespace; stores of different namespaces do not know each other. Where a method answers for
/// several partitions, one of them may fail while others go on; an error of the method itself is one of all of them.
pub trait Store: Send {
    /// How many partitions there are: the leases are for 0 and so on.
    fn partitions(&self) -> Partition;

    /// Which partition a user is in.
    fn partition_of(&self, id: &UserId) -> Partition;

    /// How often the log is to be looked at for what other processes have written: while something happens, or has lately,
    /// and when nothing does.
    fn poll_interval(&self, is_active: bool) -> Nanos;

    /// How often to ask whether a lease that another process has is free.
    fn lease_poll_interval(&self) -> Nanos {
        self.poll_interval(true)
    }

    /// What an operator should know of the store, though it works.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Gets ready to go on after an error. Answers false if the store is to be opened anew instead.
    fn recover(&mut self) -> bool {
        false
    }

    /// Connects anew if the connection was lost. Answers whether it was: what the store was told last may be lost then.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn reconnect(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Says that the process takes part, for as long as a lease. Answers how many partitions it may have, so that every
    /// process has its share.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn register(&mut self, _: &Membership) -> Result<Partition, StoreError> {
        Ok(self.partitions())
    }

    /// Says that it does not any longer.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn deregister(&mut self, _: &Membership) -> Result<(), StoreError> {
        Ok(())
    }

    /// Takes beats and leaves in. A beat of who is offline makes the user online and appends the event, in one step. A beat
    /// that is older than what the store knows of the user changes nothing.
    ///
    /// # Errors
    ///
    /// See [`WriteResult`].
    fn write(&mut self, membership: &Membership, writes: &[Write]) -> Result<Vec<WriteResult>, StoreError>;

    /// Looks at partitions. The answers are in the order of the requests.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn poll(
        &mut self,
        membership: &Membership,
        requests: &[PollRequest],
    ) -> Result<Vec<Result<PollResult, StoreError>>, StoreError>;

    /// Takes out of the logs what has been delivered or given up. The answers are in the order of the commits: false, and
    /// nothing has changed, if the lease is another's.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn commit(
        &mut self,
        membership: &Membership,
        commits: &[(Partition, Commit)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError>;

    /// Everybody who is online.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn snapshot(&mut self) -> Result<Snapshot, StoreError>;

    /// All events that have not been delivered, in order for each partition.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn undelivered_events(&mut self) -> Result<Vec<Event>, StoreError>;

    /// The events that were given up, in order for each partition.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError>;

    /// Puts the events that were given up at the end of the log, but those that are superseded: these are dropped. Answers
    /// how many there are of both.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn requeue_dead_letters(&mut self) -> Result<(usize, usize), StoreError>;
}
