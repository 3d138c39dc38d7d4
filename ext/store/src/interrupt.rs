//! Makes a store stop waiting: a process that is about to fork cannot wait for a server that does not reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A flag that ends all waits of a store from [`Interrupt::raise`] to [`Interrupt::clear`]. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_raised: AtomicBool,
    wakeup: Notify,
}

impl Interrupt {
    /// Ends the waits of now, and all to come. May be called on any thread.
    pub fn raise(&self) {
        self.0.is_raised.store(true, Ordering::Release);
        self.0.wakeup.notify_waiters();
    }

    /// Allows waits again.
    pub fn clear(&self) {
        self.0.is_raised.store(false, Ordering::Release);
    }

    /// Completes when the flag is raised, at once if it is.
    pub(crate) async fn raised(&self) {
        let notified = self.0.wakeup.notified();
        // Created before the flag is read: a raise between the two would be missed otherwise.
        if !self.0.is_raised.load(Ordering::Acquire) {
            notified.await;
        }
    }
}
