//! Faults that specs cause. Only with the feature `faults`, which no gem is built with.
//!
//! The timer thread holds the tracker's lock until `spec/fork_spec.rb` releases it, or panics. It reads the clock at
//! each of its steps with the lock held, so that is where the fault is injected.
//!
//! Or there is no memory for one of the objects of a callback's call, see `spec/no_memory_spec.rb`. And one method counts
//! what no fault may leave behind.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use magnus::{Error, Ruby, function, prelude::*};

use crate::protect;

const NONE: u8 = 0;
/// The timer thread shall hold the lock from its next step on.
const HOLD: u8 = 1;
/// The thread holds the lock, and releases it after `LOCK_HOLD`: a Ruby thread may be waiting for it with the GVL held.
const HELD_BRIEFLY: u8 = 2;
/// The thread holds the lock until `release_lock`: no Ruby thread waits for it.
const HELD: u8 = 3;
/// The timer thread shall panic at its next step.
const PANIC: u8 = 4;

/// One of the above. Only the timer thread acts on `HELD_BRIEFLY` and `HELD`, so a forked child has no fault.
static FAULT: AtomicU8 = AtomicU8::new(NONE);

/// How many objects can still be made before there is no memory for one; negative if there always is.
static OBJECTS_LEFT: AtomicI64 = AtomicI64::new(-1);

/// How long the lock is held without a `confirm_hold`: a spec needs a few milliseconds to send it.
const LOCK_HOLD: Duration = Duration::from_secs(1);

/// Defines the module `OnlineManager::Faults`. None of its methods takes the tracker's lock.
///
/// `confirm_hold` and `release_lock` return whether the thread was in the state that they end.
pub(crate) fn init(ruby: &Ruby) -> Result<(), Error> {
    let manager = ruby.define_class("OnlineManager", ruby.class_object())?;
    let faults = manager.define_module("Faults")?;
    faults.define_singleton_method("hold_lock", function!(|| FAULT.store(HOLD, Ordering::SeqCst), 0))?;
    faults.define_singleton_method("confirm_hold", function!(|| change(HELD_BRIEFLY, HELD), 0))?;
    faults.define_singleton_method("release_lock", function!(|| change(HELD, NONE), 0))?;
    faults.define_singleton_method("panic", function!(|| FAULT.store(PANIC, Ordering::SeqCst), 0))?;
    faults.define_singleton_method("none?", function!(|| FAULT.load(Ordering::SeqCst) == NONE, 0))?;
    // `lack_memory(number)`: that many objects are made, and the next one is not. `lacks_memory?`: it was not asked for.
    faults
        .define_singleton_method("lack_memory", function!(|number| OBJECTS_LEFT.store(number, Ordering::SeqCst), 1))?;
    faults.define_singleton_method("lacks_memory?", function!(|| OBJECTS_LEFT.load(Ordering::SeqCst) >= 0, 0))?;
    // `calls`: how many calls of Ruby have not returned.
    faults.define_singleton_method("calls", function!(protect::count, 0))?;
    Ok(())
}

/// Raises a NoMemoryError if it was requested for this object: without a `Result`, as Ruby's allocations do.
pub(crate) fn allocate() {
    let one_less = |left: i64| if left < 0 { None } else { Some(left - 1) };
    if OBJECTS_LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) == Ok(0) {
        // SAFETY: called where Ruby's allocations are, which raise it too.
        unsafe { rb_sys::rb_memerror() }
    }
}

/// Injects the fault that was requested. Called for each reading of the clock, does nothing on other threads.
pub(crate) fn strike() {
    if thread::current().name() == Some("online_manager") {
        if change(HOLD, HELD_BRIEFLY) {
            hold_lock();
        } else if change(PANIC, NONE) {
            panic();
        }
    }
}

fn hold_lock() {
    let start = Instant::now();
    loop {
        match FAULT.load(Ordering::SeqCst) {
            HELD_BRIEFLY if start.elapsed() > LOCK_HOLD && change(HELD_BRIEFLY, NONE) => break,
            HELD_BRIEFLY | HELD => thread::sleep(Duration::from_millis(1)),
            _ => break,
        }
    }
}

#[expect(clippy::panic, reason = "that is the fault")]
fn panic() {
    panic!("the fault that was asked for");
}

/// Changes the fault. Returns false, and changes nothing, if it is not `from`.
fn change(from: u8, to: u8) -> bool {
    FAULT.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}
