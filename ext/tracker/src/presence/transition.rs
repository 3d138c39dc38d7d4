//! The types that go into the state machine and come out of it: users, transitions, outcomes.

use crate::id::OwnedId;
use crate::time::Nanos;

/// A user with a running callback. Valid until the end of the callback is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct User(pub(super) u64);

impl User {
    /// Returns the user's key in the table; the caller's key, for ids that are keys.
    pub fn key(self) -> u64 {
        self.0
    }
}

/// The result of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatOutcome {
    /// The user is known: the heartbeat moved the deadline, or is remembered (rules 3 and 4).
    Known,
    /// The user is new: call `online`, then [`super::Presence::announced`].
    Announce(User),
    /// The heartbeat had no effect: after a stop (rule 12), or without room for another string.
    Ignored,
}

/// A change that a callback is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The user came online: `online` is called.
    Online,
    /// The user went offline: `offline` is called.
    Offline,
}

/// The cause of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `online`: a heartbeat came.
    Heartbeat,
    /// `offline`: no heartbeat came for a whole timeout.
    Timeout,
    /// `offline`: a leave brought the deadline forward.
    Leave,
    /// `offline`: the manager was stopped.
    Stop,
}

/// A user claimed for a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The user, for the report of the callback's end.
    pub user: User,
    /// The user's id.
    pub id: OwnedId,
    /// Why the callback is called.
    pub reason: Reason,
    /// How many nanoseconds ago the user became due; for `online`, how many ago the heartbeat came. Exact to a tick.
    pub lateness: Nanos,
    /// How many nanoseconds ago the user's last heartbeat came. As exact as [`super::Presence::last_seen`].
    pub seen_ago: Nanos,
}

/// How a callback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallbackOutcome {
    /// It returned.
    Returned,
    /// It did not return: an exception, a `throw`, the end of its thread (rule 10).
    Aborted,
}

/// The user's state after the end of `online`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The user is online.
    Online,
    /// The user is offline, and forgotten.
    Offline,
    /// A stop came during `online`: call `offline`, then [`super::Presence::departed`] (rule 12).
    Depart,
}

/// The user's state after the end of `offline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departed {
    /// The user is offline, and forgotten.
    Offline,
    /// A heartbeat came during `offline`: the user waits to be claimed for `online` (rule 4).
    Rejoining,
}

/// The result of a leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaveOutcome {
    /// Whether the user was online.
    pub was_online: bool,
    /// The user, if the leave removed the entry: `offline` had returned, and only a heartbeat was remembered.
    pub forgotten: Option<User>,
}

/// The result of a leave of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLeaveOutcome {
    /// Whether the session was there: among [`super::Presence::session_ids`] just before.
    pub was_there: bool,
    /// The user, if the leave removed the entry: `offline` had returned, and only this session's heartbeat was
    /// remembered.
    pub forgotten: Option<User>,
}

/// How many users are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Online: Announcing or Online.
    pub present: usize,
    /// Of these, inside `online`.
    pub announcing: usize,
    /// Inside `offline`, or waiting for the `online` that follows it.
    pub departing: usize,
    /// In the due queue. A heartbeat may have come since for some of them.
    pub due: usize,
    /// The sessions of the users online; one without named sessions has one. Sessions that are over count until the
    /// timer has checked their user.
    pub sessions: usize,
}

/// When the timer has to call [`super::Presence::advance`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Now: there may be more users to check.
    Now,
    /// At that moment, or as soon as [`super::Presence::take_wake_request`] returns true.
    At(Nanos),
    /// As soon as [`super::Presence::take_wake_request`] returns true.
    Never,
}
