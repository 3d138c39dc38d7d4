//! The state that several processes share, so that together they tell of each transition once: behind the trait
//! [`Store`], in a file of SQLite's or in a Redis. Nothing in here knows that the callbacks are Ruby's.
//!
//! A heartbeat ends in this process' own memory. A thread of its own, the *member*, takes it to the store, where state
//! and event change in one step. Whoever holds the *lease* delivers the events from the store's log.
//!
//! ```text
//! heartbeat ─► Coalescer ─► Outbox ─► member thread ─► Store: users, events ─► member thread of the lease's owner
//!              (who beat here)                                               └─► Log ─► whoever runs the callbacks
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | [`id`] | ids as bytes that any process reads alike |
//! | [`coalescer`] | who has beaten in this process, and whether the store has to hear of it |
//! | [`outbox`] | what the store has not been told yet: the latest beat and leave of each user |
//! | [`store`] | the trait, and what goes through it |
//! | [`store_url`] | which store a `store:` option means |
//! | [`sqlite`] | the store that is a file |
//! | [`redis`] | the store for several machines; `redis/*.lua` are its rules |
//! | [`interrupt`] | how a store is told to stop waiting |
//! | [`boot_clock`] | the boot_clock's monotonic clock, and which boot it counts from |
//! | [`log`] | events on their way to the callbacks: order, retries, who has to wait |
//! | [`member`] | how a process takes part: flush, lease, sweep, delivery, snapshot |

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
pub mod redis;
#[cfg(test)]
mod simulator;
pub mod sqlite;
pub mod store;
pub mod store_url;

pub use error::StoreError;
pub use id::UserId;
pub use store::Store;
pub use store_url::StoreUrl;
