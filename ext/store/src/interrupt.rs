//! A way to have a store stop waiting: a process that is about to fork cannot wait for a server that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Shared by who waits and who interrupts. From [`Interrupt::raise`] to [`Interrupt::clear`] nothing is waited for.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_raised: AtomicBool,
    wakeup: Notify,
}

impl Interrupt {
    /// Ends all waits, and those to come. May be called on any thread.
    pub fn raise(&self) {
        self.0.is_raised.store(true, Ordering::Release);
        self.0.wakeup.notify_waiters();
    }

    /// Lets waits be as long as they are.
    pub fn clear(&self) {
        self.0.is_raised.store(false, Ordering::Release);
    }

    /// Ends when it is raised.
    pub(crate) async fn raised(&self) {
        let notified = self.0.wakeup.notified();
        // It counts from when it was made, so nothing is missed between this look and the wait.
        if !self.0.is_raised.load(Ordering::Acquire) {
            notified.await;
        }
    }
}
