//! What can go wrong with the timer thread, at a spec's command (`spec/fork_spec.rb`): it keeps the tracker's lock for as
//! long as the spec likes, or panics. Behind the feature `faults`, and in no gem.
//!
//! The thread reads the clock at each of its state, with the lock held, so that is where a fault strikes.

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use magnus::{Error, Ruby, function, prelude::*};

const NONE: u8 = 0;
/// At its next turn the timer thread shall keep the lock.
const HOLD: u8 = 1;
/// It has the lock, and gives it up soon: somebody may be waiting for it with the GVL held.
const HELD_BRIEFLY: u8 = 2;
/// It has the lock until it is notified to let go: nobody waits.
const HELD: u8 = 3;
/// At its next turn the timer thread shall panic.
const PANIC: u8 = 4;

/// Only the thread that has got the lock requests at `HELD_BRIEFLY` and `HELD`, so a child inherits no fault.
static FAULT: AtomicU8 = AtomicU8::new(NONE);

/// How long the lock is held for nothing.
const LOCK_HOLD: Duration = Duration::from_secs(1);

/// Defines `OnlineManager::Faults`. None of its methods takes the lock.
pub(crate) fn init(ruby: &Ruby) -> Result<(), Error> {
    let manager = ruby.define_class("OnlineManager", ruby.class_object())?;
    let faults = manager.define_module("Faults")?;
    faults.define_singleton_method("hold_lock", function!(|| FAULT.store(HOLD, Ordering::SeqCst), 0))?;
    faults.define_singleton_method("confirm_hold", function!(|| change(HELD_BRIEFLY, HELD), 0))?;
    faults.define_singleton_method("release_lock", function!(|| change(HELD, NONE), 0))?;
    faults.define_singleton_method("panic", function!(|| FAULT.store(PANIC, Ordering::SeqCst), 0))?;
    faults.define_singleton_method("none?", function!(|| FAULT.load(Ordering::SeqCst) == NONE, 0))?;
    Ok(())
}

/// Called when somebody reads the clock.
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

fn change(from: u8, to: u8) -> bool {
    FAULT.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}
