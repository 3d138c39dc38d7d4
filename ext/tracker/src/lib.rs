//! Turns heartbeats into transitions: which users are online, and when each of them goes offline.
//!
//! A [`Tracker`] takes heartbeats and calls no callbacks. The thread that runs the callbacks *claims* a user,
//! calls `online` or `offline`, and reports the end of the callback. No lock is held while application code runs,
//! and this crate does not depend on Ruby.
//!
//! | module | holds |
//! |---|---|
//! | [`presence`] | the state machine of one user, rules 1 to 14, 16 and S1 to S16; time is an argument |
//! | [`id`] | user ids: keys and strings |
//! | [`table`] | the hash table of users: linear probing in 64 parts |
//! | [`entry`] | the sixteen bytes of a user |
//! | [`overflow`] | what does not fit into those sixteen bytes |
//! | [`sessions`] | the sessions of users who have named ones |
//! | [`string_arena`] | the bytes of ids that are strings |
//! | [`timeouts`] | a number for each timeout in use, which fits into an entry |
//! | [`stalls`] | when the process stood still, and until when that puts a claim off |
//! | [`wheel`] | the timing wheel: which users to check at which tick |
//! | [`invariant`] | what is impossible, and is counted if it happens |
//! | [`tracker`] | the lock around the state machine, and the timer thread |
//! | `sync` | the locks and threads of the standard library, or of shuttle |
//! | [`time`] | nanoseconds, ticks and clocks |
#![forbid(unsafe_code)]

mod entry;
pub mod id;
pub mod invariant;
mod overflow;
pub mod presence;
mod sessions;
pub mod stalls;
mod string_arena;
mod sync;
mod table;
pub mod time;
mod timeouts;
pub mod tracker;
mod wheel;

pub use id::{Id, OwnedId, StringId};
pub use presence::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, LeaveOutcome, Reason, SessionLeaveOutcome,
    Transition, User,
};
pub use stalls::{Stall, StallDetector};
pub use time::{Clock, Nanos, TICK};
pub use tracker::{HeartbeatBatch, Signal, Tracker};
