//! The binding between Ruby and the tracker, or a store: it state Ruby values into keys and back, and defines
//! the native classes `OnlineManager::Native` and `OnlineManager::Shared`. No rule of presence lives here.
//!
//! | module | what it knows |
//! |---|---|
//! | [`native`] | the class, its one proc, and heartbeats; in `native::deliver` the reactor's part, in `native::seen_all` crowds |
//! | [`heartbeat`] | that one proc |
//! | [`target`] | the Ruby object behind it all: asked for the timeout, called for each transition |
//! | [`key`] | how a Ruby object becomes an id of the tracker's, and back |
//! | [`objects`] | ids that are neither immediate nor plain strings |
//! | [`shared`] | the class `OnlineManager::Shared`: the same with a store; in `shared::deliver` the reactor's part, in `shared::check` the look before `setup`, in `shared::look` an operator's |
//! | [`store_id`] | how a Ruby object becomes an id of a store's, and back |
//! | [`era`] | forks: every process has a tracker of its own, or a member of a store |
//! | [`pipe`] | the wakeup pipe |
//! | [`ractor`] | that everything belongs to the main Ractor |
//! | [`clock`] | the coarse monotonic clock |
//! | `faults` | only for the specs: what can go wrong with the timer thread |

#![allow(unsafe_code, reason = "Ruby's API is unsafe, and so are a few functions of the operating system's")]
#![allow(missing_docs, reason = "a cdylib exports nothing but the initialiser that the macro makes")]

mod callback_target;
mod clock;
#[cfg(feature = "faults")]
mod faults;
mod heartbeat;
mod key;
mod native;
mod objects;
mod pipe;
mod process_local;
mod ractor;
mod shared;
mod store_id;

use magnus::{Error, Ruby};

/// Called by Ruby when it loads the extension.
#[magnus::init(name = "online_manager")]
fn init(ruby: &Ruby) -> Result<(), Error> {
    ractor::note_main();
    process_local::count_forks(ruby)?;
    native::init(ruby)?;
    shared::init(ruby)?;
    #[cfg(feature = "faults")]
    faults::init(ruby)?;
    Ok(())
}
