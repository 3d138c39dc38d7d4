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
const KEEP: u8 = 1;
/// It has the lock, and gives it up soon: somebody may be waiting for it with the GVL held.
const HAS: u8 = 2;
/// It has the lock until it is notified to let go: nobody waits.
const KEEPS: u8 = 3;
/// At its next turn the timer thread shall panic.
const PANIC: u8 = 4;

/// Only the thread that has got the lock requests at `HAS` and `KEEPS`, so a child inherits no fault.
static FAULT: AtomicU8 = AtomicU8::new(NONE);

/// How long the lock is held for nothing.
const LOCK_HOLD: Duration = Duration::from_secs(1);

/// Defines `OnlineManager::Faults`. None of its methods takes the lock.
pub(crate) fn init(ruby: &Ruby) -> Result<(), Error> {
    let manager = ruby.define_class("OnlineManager", ruby.class_object())?;
    let faults = manager.define_module("Faults")?;
    faults.define_singleton_method("keep_lock", function!(|| FAULT.store(KEEP, Ordering::SeqCst), 0))?;
    faults.define_singleton_method("keeps_lock?", function!(|| change(HAS, KEEPS), 0))?;
    faults.define_singleton_method("release_lock", function!(|| change(KEEPS, NONE), 0))?;
    faults.define_singleton_method("panic", function!(|| FAULT.store(PANIC, Ordering::SeqCst), 0))?;
    faults.define_singleton_method("none?", function!(|| FAULT.load(Ordering::SeqCst) == NONE, 0))?;
    Ok(())
}

/// Called when somebody reads the clock.
pub(crate) fn strike() {
    if thread::current().name() == Some("online_manager") {
        if change(KEEP, HAS) {
            keep_lock();
        } else if change(PANIC, NONE) {
            panic();
        }
    }
}

fn keep_lock() {
    let start = Instant::now();
    loop {
        match FAULT.load(Ordering::SeqCst) {
            HAS if start.elapsed() > LOCK_HOLD && change(HAS, NONE) => break,
            HAS | KEEPS => thread::sleep(Duration::from_millis(1)),
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
