//! Rules 1 to 14 and S1 to S16 of `docs/state_machine.md`, one by one. Every test fails without the code that it tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod callbacks;
mod deadlines;
mod harness;
mod heartbeats;
mod leaves_and_stops;
mod sessions;
