//! Passes through all users of this process that put some of them into the outbox: after the store lost data, and when what
//! reads the heartbeats stood still.

use online_manager_tracker::{Nanos, Stall};
use parking_lot::Mutex;

use super::entry::{ColdEntry, HotEntry};
use super::{Coalescer, Part};
use crate::id::UserId;
use crate::outbox::Outbox;
use crate::store::Purpose;

/// What is done with each user.
trait Pass {
    fn visit<K>(&self, hot: &mut HotEntry<K>, cold: &ColdEntry, outbox: &mut Outbox);
}

/// Has those written again whose timeout was not over at a moment. `F` returns that of a user's partition.
struct Resend<F> {
    now: Nanos,
    settled_at: F,
    is_resend: bool,
}

impl<F: Fn(&UserId) -> Option<Nanos>> Pass for Resend<F> {
    fn visit<K>(&self, hot: &mut HotEntry<K>, cold: &ColdEntry, outbox: &mut Outbox) {
        // This process has heard of the leave from the store, which says so if it has lost data since.
        let is_leave_known = cold.is_left.get() && !cold.has_own_leave() && !hot.is_unwritten;
        if is_leave_known && !self.is_resend {
            return;
        }
        if (self.settled_at)(&cold.id).is_some_and(|settled_at| !hot.is_over(cold, settled_at)) {
            let purpose = if self.is_resend { Purpose::Resend } else { Purpose::Report };
            // The next heartbeat is due as if this one had been written when it came: nearer to its deadline, or after it, that is
            // at once.
            let due_at = if cold.is_left.get() { self.now } else { hot.seen_at() };
            hot.enqueue_write(cold, (hot.seen_at(), due_at), purpose, outbox);
            outbox.mark_repeated(&cold.id);
        }
    }
}

/// Puts off the deadlines of those who were due in a stall.
struct Prolong {
    stall: Stall,
    is_lasting: bool,
}

impl Pass for Prolong {
    fn visit<K>(&self, hot: &mut HotEntry<K>, cold: &ColdEntry, outbox: &mut Outbox) {
        hot.prolong(cold, self.stall, self.is_lasting, outbox);
    }
}

impl Coalescer {
    /// Puts everyone into the outbox whose timeout was not over at `settled_at`, until when the store has surely delivered the
    /// user's events: it may have lost what it knew. Also who is not known here, and has just left here.
    ///
    /// # Arguments
    ///
    /// * `settled_at` - that time of a user's partition; `None` for users of partitions that lost nothing
    /// * `is_resend` - whether the store has lost data, see [`Purpose::Resend`]
    pub(crate) fn resend(
        &self,
        now: Nanos,
        settled_at: impl Fn(&UserId) -> Option<Nanos>,
        is_resend: bool,
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) {
        let mut leaves = self.partings.own_leaves();
        leaves.retain(|(id, _)| settled_at(id).is_some());
        self.pass(&Resend { now, settled_at, is_resend }, outbox);
        let mut outbox = outbox.lock();
        for (id, (at, after)) in leaves {
            outbox.as_mut().leave(id, at, after);
        }
    }

    /// Puts everyone into the outbox whose deadline a stall puts off, with the later deadline: heartbeats may wait to be read.
    /// With `is_lasting` the stall is not over, and its end is a moment until which nobody is to expire.
    pub(crate) fn prolong(&self, stall: Stall, is_lasting: bool, outbox: &Mutex<impl AsMut<Outbox>>) {
        self.pass(&Prolong { stall, is_lasting }, outbox);
    }

    /// Visits every user. Locks one part at a time, before the outbox.
    fn pass(&self, pass: &impl Pass, outbox: &Mutex<impl AsMut<Outbox>>) {
        for part in &self.parts {
            let mut part = part.lock();
            let mut outbox = outbox.lock();
            let Part { keys, strings, cold, .. } = &mut *part;
            for cold in cold.iter() {
                let hash = self.hash_of(cold.key, &cold.id);
                if let Some(hot) = keys.find_mut(hash, |hot| hot.key == cold.key) {
                    pass.visit(hot, cold, outbox.as_mut());
                } else if let Some(hot) = strings.find_mut(hash, |hot| hot.key == cold.id) {
                    pass.visit(hot, cold, outbox.as_mut());
                }
            }
        }
    }
}
