//! What is kept of a user: a small part that a heartbeat touches, and the rest.

use online_manager_tracker::{Nanos, TICK};
use parking_lot::Mutex;

use super::Coalesced;
use crate::id::UserId;
use crate::outbox::Outbox;

/// No [`Id::Key`](online_manager_tracker::Id::Key) ends in these bits.
pub(super) const NO_KEY: u64 = 0b10;

/// How often within a timeout the store may be told of one user.
const WRITES_PER_TIMEOUT: u64 = 3;

/// What a heartbeat touches.
#[derive(Debug)]
pub(super) struct HotEntry<K> {
    pub(super) key: K,
    /// The tick of the last heartbeat. Ticks are cut to 32 bits, which tell 52 days apart.
    pub(super) seen: u32,
    /// Before that tick the store need not be told again.
    pub(super) quiet_until: u32,
    /// Whether the store has not been told of the last heartbeat.
    pub(super) is_unwritten: bool,
    /// Whether the timeout is the part's common_timeout one.
    pub(super) has_common_timeout: bool,
}

/// What is needed when the store is told.
#[derive(Debug)]
pub(super) struct ColdEntry {
    /// The caller's key for the id, or [`NO_KEY`] if it has none.
    pub(super) key: u64,
    pub(super) id: UserId,
    pub(super) timeout: Nanos,
}

#[inline]
pub(super) fn tick_of(moment: Nanos) -> u32 {
    (moment / TICK) as u32
}

/// How many ticks a duration has at the least; as many as can be told from what has passed, if it is longer.
fn ticks_in(duration: Nanos) -> u32 {
    (duration / TICK).min(i32::MAX as u64 - 1) as u32
}

impl<K> HotEntry<K> {
    #[inline]
    pub(super) fn is_quiet(&self, tick: u32) -> bool {
        (tick.wrapping_sub(self.quiet_until) as i32) < 0
    }

    /// Whether the timeout was over at a tick, which may lie before the last heartbeat.
    pub(super) fn is_expired(&self, tick: u32, timeout: Nanos) -> bool {
        let since = tick.wrapping_sub(self.seen) as i32;
        // Not before the last moment of the tick that it was seen in is so long ago.
        since >= 0 && since as u32 > ticks_in(timeout)
    }

    /// When the last heartbeat was, at `now`.
    pub(super) fn seen_at(&self, now: Nanos) -> Nanos {
        let ago = Nanos::from(tick_of(now).wrapping_sub(self.seen)) * TICK;
        (now / TICK * TICK).saturating_sub(ago)
    }

    /// When the last heartbeat was, unless that is longer ago than `timeout`.
    pub(super) fn seen_within(&self, timeout: Nanos, now: Nanos) -> Option<Nanos> {
        (!self.is_expired(tick_of(now), timeout)).then(|| self.seen_at(now))
    }

    /// Somebody new, of whom the store is told.
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

    /// Has the store told of the heartbeat at `at`.
    fn enqueue_write(&mut self, cold: &ColdEntry, at: Nanos, now: Nanos, outbox: &mut Outbox) {
        self.is_unwritten = false;
        self.quiet_until = tick_of(now).wrapping_add(ticks_in(cold.timeout / WRITES_PER_TIMEOUT));
        outbox.heartbeat(cold.id.clone(), at, cold.timeout);
    }

    /// As if its rest were over, and its last heartbeat not told.
    pub(super) fn mark_unwritten(&mut self, tick: u32) {
        self.is_unwritten = true;
        self.quiet_until = tick;
    }

    pub(super) fn mark_unwritten_unless_expired(&mut self, tick: u32, last_ok: u32, timeout: Nanos) {
        if !self.is_expired(last_ok, timeout) {
            self.mark_unwritten(tick);
        }
    }

    /// A known heartbeat that is more than leaving its time.
    #[cold]
    pub(super) fn update(
        &mut self,
        cold: &mut ColdEntry,
        common_timeout: Nanos,
        (now, timeout): (Nanos, Nanos),
        outbox: &Mutex<impl AsMut<Outbox>>,
    ) -> Coalesced {
        if cold.timeout == timeout && self.is_quiet(tick_of(now)) {
            return Coalesced::Known;
        }
        cold.timeout = timeout;
        self.has_common_timeout = timeout == common_timeout;
        self.enqueue_write(cold, now, now, outbox.lock().as_mut());
        Coalesced::WriteDue
    }

    /// Answers whether the user is still to be kept.
    pub(super) fn scan(&mut self, cold: &ColdEntry, (now, last_ok): (Nanos, Nanos), outbox: &mut Outbox) -> bool {
        if self.is_unwritten && !self.is_quiet(tick_of(now)) {
            self.enqueue_write(cold, self.seen_at(now), now, outbox);
        }
        self.is_unwritten || !self.is_expired(tick_of(last_ok), cold.timeout)
    }
}
