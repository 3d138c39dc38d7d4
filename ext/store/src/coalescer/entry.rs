//! The two entries of a user: the small one, which each heartbeat changes, and the rest.

use online_manager_tracker::{Nanos, TICK};
use parking_lot::Mutex;

use super::Coalesced;
use crate::id::UserId;
use crate::outbox::Outbox;

/// Stands for "no key": no [`Id::Key`](online_manager_tracker::Id::Key) ends in these bits.
pub(super) const NO_KEY: u64 = 0b10;

/// How often a user's heartbeats are written within a timeout. With three, one may come late without the user expiring.
const WRITES_PER_TIMEOUT: u64 = 3;

/// The entry that a heartbeat changes. 24 bytes with a key of eight.
#[derive(Debug)]
pub(super) struct HotEntry<K> {
    pub(super) key: K,
    /// The tick of the last heartbeat, truncated to 32 bits, which last for 52 days.
    pub(super) seen: u32,
    /// The tick before which no heartbeat is due.
    pub(super) quiet_until: u32,
    /// Whether the last heartbeat has not been put into the outbox.
    pub(super) is_unwritten: bool,
    /// Whether the user's timeout is the common one of its part.
    pub(super) has_common_timeout: bool,
}

/// The entry that is needed when a heartbeat is written.
#[derive(Debug)]
pub(super) struct ColdEntry {
    /// The caller's key for the id, or [`NO_KEY`] if it has none.
    pub(super) key: u64,
    pub(super) id: UserId,
    /// The timeout of the last heartbeat.
    pub(super) timeout: Nanos,
}

/// Returns the tick of a time, truncated to 32 bits.
#[inline]
pub(super) fn tick_of(moment: Nanos) -> u32 {
    (moment / TICK) as u32
}

/// Returns the number of whole ticks in a duration, at most the largest difference that truncated ticks can have.
fn ticks_in(duration: Nanos) -> u32 {
    (duration / TICK).min(i32::MAX as u64 - 1) as u32
}

impl<K> HotEntry<K> {
    /// Whether no heartbeat is due at a tick.
    #[inline]
    pub(super) fn is_quiet(&self, tick: u32) -> bool {
        (tick.wrapping_sub(self.quiet_until) as i32) < 0
    }

    /// Whether the timeout had passed at a tick, which may be before the last heartbeat.
    pub(super) fn is_expired(&self, tick: u32, timeout: Nanos) -> bool {
        let since = tick.wrapping_sub(self.seen) as i32;
        // A tick more than the timeout, since the heartbeat may have been at the end of its tick.
        since >= 0 && since as u32 > ticks_in(timeout)
    }

    /// Returns the time of the last heartbeat, exact to a tick.
    pub(super) fn seen_at(&self, now: Nanos) -> Nanos {
        let ago = Nanos::from(tick_of(now).wrapping_sub(self.seen)) * TICK;
        (now / TICK * TICK).saturating_sub(ago)
    }

    /// Returns the time of the last heartbeat, unless it is longer ago than `timeout`.
    pub(super) fn seen_within(&self, timeout: Nanos, now: Nanos) -> Option<Nanos> {
        (!self.is_expired(tick_of(now), timeout)).then(|| self.seen_at(now))
    }

    /// Creates the entry of a new user, and puts its heartbeat into the outbox.
    pub(super) fn new(
        key: K,
        cold: &ColdEntry,
        now: Nanos,
        has_common_timeout: bool,
        outbox: &mut Outbox,
    ) -> HotEntry<K> {
        let mut hot = HotEntry { key, seen: tick_of(now), quiet_until: 0, is_unwritten: false, has_common_timeout };
        hot.enqueue_write(cold, now, now, outbox);
        hot
    }

    /// Puts the heartbeat at `at` into the outbox. The next one is due after a third of the timeout.
    fn enqueue_write(&mut self, cold: &ColdEntry, at: Nanos, now: Nanos, outbox: &mut Outbox) {
        self.is_unwritten = false;
        self.quiet_until = tick_of(now).wrapping_add(ticks_in(cold.timeout / WRITES_PER_TIMEOUT));
        outbox.heartbeat(cold.id.clone(), at, cold.timeout);
    }

    /// Makes the last heartbeat due and unwritten.
    pub(super) fn mark_unwritten(&mut self, tick: u32) {
        self.is_unwritten = true;
        self.quiet_until = tick;
    }

    /// Does so unless the timeout had passed at the tick `last_ok`.
    pub(super) fn mark_unwritten_unless_expired(&mut self, tick: u32, last_ok: u32, timeout: Nanos) {
        if !self.is_expired(last_ok, timeout) {
            self.mark_unwritten(tick);
        }
    }

    /// Handles a heartbeat that is due, or has another timeout than the common one, after its time was recorded.
    #[cold]
    pub(super) fn update(
        &mut self,
        cold: &mut ColdEntry,
        common_timeout: Nanos,
        (now, timeout): (Nanos, Nanos),
        outbox: &Mutex<Outbox>,
    ) -> Coalesced {
        if cold.timeout == timeout && self.is_quiet(tick_of(now)) {
            return Coalesced::Known;
        }
        cold.timeout = timeout;
        self.has_common_timeout = timeout == common_timeout;
        self.enqueue_write(cold, now, now, &mut outbox.lock());
        Coalesced::WriteDue
    }

    /// Puts the heartbeat into the outbox if it is unwritten and due. Returns whether the user is kept.
    pub(super) fn scan(&mut self, cold: &ColdEntry, (now, last_ok): (Nanos, Nanos), outbox: &mut Outbox) -> bool {
        if self.is_unwritten && !self.is_quiet(tick_of(now)) {
            self.enqueue_write(cold, self.seen_at(now), now, outbox);
        }
        self.is_unwritten || !self.is_expired(tick_of(last_ok), cold.timeout)
    }
}
