//! Calls into Ruby, each of which comes back exactly once: whatever Ruby does, what was claimed before a call can be
//! reported after it.
//!
//! Ruby leaves native functions by `longjmp`: for an exception, a `throw`, the end of a thread, and for the
//! NoMemoryError of an allocation, which most of magnus' functions that make an object do not catch. A continuation
//! (`callcc`) enters a call again that has returned: it restores the stack, whose values refer to memory that is freed.
//! Ruby refuses that only if the continuation is called from another depth of the stack.
//!
//! `spec/continuation_spec.rb` checks that no other module calls Ruby in another way.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use magnus::rb_sys::resume_error;
use magnus::value::{IntoId, ReprValue};
use magnus::{ArgList, Error, Ruby, TryConvert};
use rb_sys::VALUE;

use crate::error::gem_error;

/// The numbers of the calls that have not returned, each by the address of its frame. A call that never returns, since a
/// continuation or a fiber has left it, gives its place to the next call there: so there are no more places than stacks
/// have had frames at a time. Locked for a few instructions, with the GVL held, and never while Ruby runs.
static RUNNING: Mutex<BTreeMap<usize, u64>> = Mutex::new(BTreeMap::new());
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Calls `function`, which may do anything in Ruby. Returns as an `Err` whatever else than a return ends it. Values
/// with a destructor that `function` has at that moment are leaked.
///
/// If a continuation has entered the call again after it returned, raises an Error in the caller's place, whose values
/// are dropped already.
pub(crate) fn protect<T>(function: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let number = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
    let frame = ptr::from_ref(black_box(&number)).addr();
    running().insert(frame, number);
    let mut result = None;
    let caught = magnus::rb_sys::protect(|| {
        result = Some(function());
        rb_sys::special_consts::Qnil as VALUE
    });
    if !end(frame, number) {
        // SAFETY: what the frames up to Ruby's have to drop was dropped when the call returned. The jump to Ruby leaves
        // it alone.
        unsafe { resume_error(entered_again()) }
    }
    caught?;
    result.unwrap_or_else(|| Err(entered_again()))
}

/// Calls a method of `receiver`, with the arguments that `args` returns. See [`protect`].
pub(crate) fn funcall<A: ArgList, T: TryConvert>(
    receiver: impl ReprValue,
    name: impl IntoId,
    args: impl FnOnce() -> Result<A, Error>,
) -> Result<T, Error> {
    protect(|| receiver.funcall(name, args()?))
}

/// Removes a call from those that have not returned. Returns false if it is none of them.
fn end(frame: usize, number: u64) -> bool {
    let mut running = running();
    let is_running = running.get(&frame) == Some(&number);
    if is_running {
        running.remove(&frame);
    }
    is_running
}

/// Returns how many calls have not returned, for `spec/continuation_spec.rb`.
#[cfg(feature = "faults")]
pub(crate) fn count() -> usize {
    running().len()
}

fn running() -> MutexGuard<'static, BTreeMap<usize, u64>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn entered_again() -> Error {
    // SAFETY: this is a Ruby thread, since it has called Ruby.
    let ruby = unsafe { Ruby::get_unchecked() };
    gem_error(
        &ruby,
        "a continuation has entered a call of online_manager again that had returned: call a continuation only while \
         the callback, or the method of an id, that captured it runs",
    )
}
