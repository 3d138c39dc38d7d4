//! What the state machine says and is told: users, callbacks, and what became of them.

use crate::id::OwnedId;
use crate::time::Nanos;

/// A user whom a callback is being called for. Good until the callback's end has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct User(pub(super) u64);

impl User {
    /// The key under which the user is kept; the caller's own, for ids that are keys.
    pub fn key(self) -> u64 {
        self.0
    }
}

/// What a heartbeat came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatOutcome {
    /// The user is known; the deadline is moved, or the heartbeat remembered (rules 3 and 4).
    Known,
    /// The user is new: call `online`, then [`super::Presence::announced`].
    Announce(User),
    /// Nobody is taken in any more (rule 12), or there is no room for another string.
    Ignored,
}

/// Which callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// `online`
    Online,
    /// `offline`
    Offline,
}

/// Why a transition came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `online`: there was one.
    Heartbeat,
    /// `offline`: there was none for a whole timeout.
    Timeout,
    /// `offline`: a leave brought the deadline forward.
    Leave,
    /// `offline`: the manager was stopped.
    Stop,
}

/// A user claimed by the reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Whom to report the callback's end for.
    pub user: User,
    /// The user's id.
    pub id: OwnedId,
    /// Why.
    pub reason: Reason,
    /// How long ago the user was due; for an `online`, how long ago the user beat. Exact to a tick.
    pub lateness: Nanos,
}

/// How a callback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallbackOutcome {
    /// It returned.
    Returned,
    /// It was left in any other way: an exception, a `throw`, the end of its thread (rule 10).
    Aborted,
}

/// What the end of `online` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The user is online.
    Online,
    /// The user is offline, and forgotten.
    Offline,
    /// A stop came meanwhile: call `offline`, then [`super::Presence::departed`] (rule 12).
    Depart,
}

/// What the end of `offline` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departed {
    /// The user is offline, and forgotten.
    Offline,
    /// A heartbeat came meanwhile: the user waits to be claimed for `online` (rule 4).
    Rejoining,
}

/// What `leave` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaveOutcome {
    /// Whether the user was online.
    pub was_online: bool,
    /// Whether the user is forgotten by it: a remembered heartbeat was all that was left.
    pub forgotten: Option<User>,
}

/// How many users are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From the call of `online` to the call of `offline`.
    pub present: usize,
    /// Of these, inside `online`.
    pub announcing: usize,
    /// Inside `offline`, or waiting for the `online` that follows it.
    pub departing: usize,
    /// Up for a claim. Some may have been saved by a heartbeat meanwhile.
    pub due: usize,
}

/// What the timer has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call again.
    Now,
    /// Call again at that moment, or as soon as [`super::Presence::take_wake_request`].
    At(Nanos),
    /// Nothing, until [`super::Presence::take_wake_request`].
    Never,
}
