//! The state that several processes share, so that together they call each callback once: behind the trait [`Store`],
//! in an SQLite file or in Redis. Nothing in this crate knows that the callbacks are Ruby's.
//!
//! A heartbeat ends in the memory of its own process. A thread, the *member*, writes it to the store, where state and
//! event change in one atomic step. The holder of the *lease* reads the events from the store's log and delivers them.
//!
//! ```text
//! heartbeat ─► Coalescer ─► Outbox ─► member thread ─► Store: users, events ─► member thread of the lease holder
//!           (who is online here)                                                 └─► Log ─► reactor, callbacks
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`id`] | ids as bytes that any process reads alike |
//! | [`coalescer`] | who has sent heartbeats in this process, and which of them the store needs |
//! | [`outbox`] | what is not written yet: the latest heartbeat and leave of each user |
//! | [`store`] | the trait, and the types of its arguments and results |
//! | [`store_url`] | which store a `store:` option means |
//! | [`sqlite`] | the store in a file |
//! | [`redis`] | the store for several machines; its rules are in `redis/*.lua` |
//! | [`interrupt`] | how a store is made to stop waiting |
//! | [`boot_clock`] | the monotonic clock of this boot, and the id of the boot |
//! | [`log`] | events on their way to the callbacks: order, retries, back-off |
//! | [`member`] | how a process participates: flush, lease, sweep, delivery, snapshot |

// The tests in here use what the tests in tests/ use.
#[cfg(test)]
extern crate self as online_manager_store;

#[cfg(test)]
mod against_model;
pub mod boot_clock;
pub mod coalescer;
pub mod error;
pub mod id;
pub mod interrupt;
pub mod log;
pub mod member;
#[cfg(test)]
mod model;
mod outbox;
mod redacted;
pub mod redis;
#[cfg(test)]
mod simulator;
pub mod sqlite;
pub mod store;
pub mod store_url;

pub use error::StoreError;
pub use id::UserId;
pub use store::Store;
pub use store_url::{Access, StoreUrl};
