//! Who is online, and since when: the state machine of presence, its table and its timing wheel.
//!
//! A [`Tracker`] takes heartbeats and tells of transitions. It calls nobody: what has to be
//! announced or set offline is *claimed* by whoever runs the callbacks, and reported back when the
//! callback has returned. So no lock is ever held while foreign code runs, and nothing in here
//! knows that the foreign code is Ruby.
//!
//! | module | what it knows |
//! |---|---|
//! | [`presence`] | the state machine of one user, rules 1 to 13, with time as an argument |
//! | [`table`] | where a user is kept: linear probing in 64 parts |
//! | [`entry`] | the sixteen bytes of a user |
//! | [`overflow`] | what those sixteen bytes have no room for |
//! | [`string_arena`] | the ids that are strings |
//! | [`timeouts`] | the few timeouts that users have, numbered so that an entry can name one |
//! | [`wheel`] | which users to look at, and when |
//! | [`tracker`] | the lock around it all, and the timer thread |
//! | `sync` | the locks and threads that those two use |
//! | [`time`] | nanoseconds, ticks and clocks |
#![forbid(unsafe_code)]

mod entry;
pub mod id;
mod overflow;
pub mod presence;
mod string_arena;
mod sync;
mod table;
pub mod time;
mod timeouts;
pub mod tracker;
mod wheel;

pub use id::{Id, OwnedId, StringId};
pub use presence::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, LeaveOutcome, Reason, Transition, User,
};
pub use time::{Clock, Nanos, TICK};
pub use tracker::{HeartbeatBatch, Signal, Tracker};
