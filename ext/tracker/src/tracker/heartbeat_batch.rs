//! Several heartbeats under one lock.

use super::{Shared, Signal};
use crate::id::Id;
use crate::invariant::violated;
use crate::presence::{HeartbeatOutcome, Presence};
use crate::sync::MutexGuard;
use crate::time::{Clock, Nanos};

/// The lock, held for several heartbeats of one moment and one timeout. See [`Tracker::heartbeat_batch`](super::Tracker::heartbeat_batch).
pub struct HeartbeatBatch<'a, C: Clock, S: Signal> {
    shared: &'a Shared<C, S>,
    /// `None` only while the batch is being dropped.
    presence: Option<MutexGuard<'a, Presence>>,
    now: Nanos,
    timeout: Nanos,
}

impl<'a, C: Clock, S: Signal> HeartbeatBatch<'a, C, S> {
    /// Takes the lock.
    pub(super) fn new(shared: &'a Shared<C, S>, now: Nanos, timeout: Nanos) -> HeartbeatBatch<'a, C, S> {
        HeartbeatBatch { shared, presence: Some(shared.lock()), now, timeout }
    }

    /// See [`Presence::prefetch`].
    #[inline]
    pub fn prefetch(&self, id: Id<'_>) {
        if let Some(presence) = &self.presence {
            presence.prefetch(id);
        }
    }

    /// See [`Presence::heartbeat`].
    #[inline]
    pub fn heartbeat(&mut self, id: Id<'_>) -> HeartbeatOutcome {
        match &mut self.presence {
            Some(presence) => presence.heartbeat(id, self.now, self.timeout),
            None => {
                violated("a batch takes no heartbeat while it is dropped");
                HeartbeatOutcome::Ignored
            }
        }
    }
}

impl<C: Clock, S: Signal> Drop for HeartbeatBatch<'_, C, S> {
    fn drop(&mut self) {
        if let Some(presence) = self.presence.take() {
            self.shared.release(presence);
        }
    }
}
