//! The binding between Ruby and the two other crates. It defines the native classes `OnlineManager::NativeTracker` and
//! `OnlineManager::NativeMember`, and converts Ruby values to ids and back. It has no rule about who is online.
//!
//! `ext/README.md` explains threads, locks, exceptions, forks and Ractors.
//!
//! | module | what it knows |
//! |---|---|
//! | [`native_tracker`] | the class `NativeTracker`: a manager's tracker |
//! | [`native_member`] | the class `NativeMember`: a manager's part in a store |
//! | [`handle`] | what both classes have in common |
//! | [`heartbeat`] | the proc that `setup` gets |
//! | [`callback_target`] | the Ruby object whose methods are called: for the timeout and for each transition |
//! | [`key`] | how a Ruby object becomes an id of the tracker's, and back |
//! | [`objects`] | ids that are neither immediate values nor plain strings |
//! | [`store_id`] | how a Ruby object becomes an id of a store's, and back |
//! | [`process_local`] | forks: each process has its own tracker or member |
//! | [`protect`] | calls into Ruby, which come back exactly once |
//! | [`pipe`] | the wakeup pipe |
//! | [`ractor`] | the check that a heartbeat comes from the main Ractor |
//! | [`clock`] | the coarse monotonic clock |
//! | [`error`] | the gem's own errors |
//! | `faults` | faults of the timer thread, and a lack of memory, that specs can cause |

#![allow(unsafe_code, reason = "Ruby's API is unsafe, and so are a few functions of the operating system")]
#![allow(missing_docs, reason = "a cdylib exports nothing but the initialiser that the macro makes")]

mod callback_target;
mod clock;
mod error;
#[cfg(feature = "faults")]
mod faults;
mod handle;
mod heartbeat;
mod key;
mod native_member;
mod native_tracker;
mod objects;
mod pipe;
mod process_local;
mod protect;
mod ractor;
mod store_id;

use magnus::{Error, Ruby};

/// Defines the native classes. Ruby calls it when it loads the extension.
#[magnus::init(name = "online_manager")]
fn init(ruby: &Ruby) -> Result<(), Error> {
    ractor::record_main();
    process_local::count_forks(ruby)?;
    native_tracker::init(ruby)?;
    native_member::init(ruby)?;
    #[cfg(feature = "faults")]
    faults::init(ruby)?;
    Ok(())
}
