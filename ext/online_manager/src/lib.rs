//! The binding between Ruby and the tracker, or a store: it state Ruby values into keys and back, and defines
//! the native classes `OnlineManager::NativeTracker` and `OnlineManager::NativeMember`. No rule of presence lives here.
//!
//! | module | what it knows |
//! |---|---|
//! | [`native_tracker`] | the class, its one proc, and heartbeats; in `native_tracker::deliver` the reactor's part, in `native_tracker::seen_all` crowds |
//! | [`heartbeat`] | that one proc |
//! | [`callback_target`] | the Ruby object behind it all: asked for the timeout, called for each transition |
//! | [`key`] | how a Ruby object becomes an id of the tracker's, and back |
//! | [`objects`] | ids that are neither immediate nor plain strings |
//! | [`native_member`] | the class `OnlineManager::NativeMember`: the same with a store; in `native_member::deliver` the reactor's part, in `native_member::check` the look before `setup`, in `native_member::look` an operator's |
//! | [`store_id`] | how a Ruby object becomes an id of a store's, and back |
//! | [`process_local`] | forks: every process has a tracker of its own, or a member of a store |
//! | [`pipe`] | the wakeup pipe |
//! | [`ractor`] | that everything belongs to the main Ractor |
//! | [`clock`] | the coarse monotonic clock |
//! | `faults` | only for the specs: what can go wrong with the timer thread |

#![allow(unsafe_code, reason = "Ruby's API is unsafe, and so are a few functions of the operating system's")]
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
mod ractor;
mod store_id;

use magnus::{Error, Ruby};

/// Called by Ruby when it loads the extension.
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
