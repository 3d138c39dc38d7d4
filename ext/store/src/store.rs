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
pub enum Message {
    /// A heartbeat.
    Beat(Beat),
    /// A leave.
    Leave(Leave),
}

impl Message {
    /// Whom it is about.
    pub fn id(&self) -> &UserId {
        match self {
            Message::Beat(beat) => &beat.id,
            Message::Leave(leave) => &leave.id,
        }
    }
}

/// A heartbeat. Its age is told and not its time: only the store's own clock counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whose.
    pub id: UserId,
    /// How long ago.
    pub age: Nanos,
    /// For how long it is good, from then on.
    pub timeout: Nanos,
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
    pub waiting: u64,
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
    pub is_overtaken: bool,
}

/// The state that processes share. One of these belongs to one thread, which may block on it; none crosses a fork.
///
/// All that is in it is of one namespace; stores of different namespaces do not know each other.
pub trait Store: Send {
    /// How many partitions there are: the leases are for 0 and so on.
    fn partitions(&self) -> Partition;

    /// Takes beats and leaves in. A beat of who is offline makes the user online and appends the event, in one step. A beat
    /// that is older than what the store knows of the user changes nothing.
    ///
    /// # Errors
    ///
    /// None of them was taken then.
    fn flush(&mut self, messages: &[Message]) -> Result<(), StoreError>;

    /// Takes or renews a lease, if it is free or one's own. Answers whether one has it.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn bid(&mut self, partition: Partition, token: Token, length: Nanos) -> Result<bool, StoreError>;

    /// Gives a lease back, if one has it.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn give_back(&mut self, partition: Partition, token: Token) -> Result<(), StoreError>;

    /// Sets up to `most` users offline whose deadline has passed, each with its event in one step.
    ///
    /// If nobody has swept for longer than half a `timeout`, which is the config's, nobody is set offline for one
    /// timeout: perhaps their beats had nowhere to go.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn sweep(&mut self, partition: Partition, timeout: Nanos, most: usize) -> Result<Sweep, StoreError>;

    /// Up to `most` events of a log whose number is above `after`, in order.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn events(&mut self, partition: Partition, after: u64, most: usize) -> Result<Vec<Event>, StoreError>;

    /// Takes out of the log what has been delivered or given up. Answers false, and changes nothing, if the lease is
    /// another's.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn commit(&mut self, partition: Partition, token: Token, commit: &Commit) -> Result<bool, StoreError>;

    /// Everybody who is online.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn snapshot(&mut self) -> Result<Snapshot, StoreError>;

    /// The events that were given up, in order.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError>;

    /// Puts the events that were given up at the end of the log, but those that are overtaken: these are dropped. Answers
    /// how many there are of both.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    fn retry_dead_letters(&mut self) -> Result<(usize, usize), StoreError>;
}
