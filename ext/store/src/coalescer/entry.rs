//! What is kept of a user: a small part that a heartbeat touches, and the rest.

use std::cell::Cell;

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
    /// The timeout of the last heartbeat, in nanoseconds.
    pub(super) timeout: Nanos,
    /// The shortest timeout since the last write: it decides how soon the next write may follow.
    pub(super) shortest_timeout: Cell<Nanos>,
    /// Whether the user left, in any process, and has sent no heartbeat here since this process heard of it.
    pub(super) is_left: Cell<bool>,
    /// When the user left in this process, and after how long that makes the user due: kept to be written again.
    pub(super) leave: Cell<Option<(Nanos, Nanos)>>,
}

impl ColdEntry {
    pub(super) fn new(key: u64, id: UserId, timeout: Nanos) -> ColdEntry {
        ColdEntry {
            key,
            id,
            timeout,
            shortest_timeout: Cell::new(timeout),
            is_left: Cell::new(false),
            leave: Cell::new(None),
        }
    }
}

#[inline]
pub(super) fn tick_of(moment: Nanos) -> u32 {
    (moment / TICK) as u32
}

/// How many ticks a duration has at the least; as many as can be told from what has passed, if it is longer.
fn ticks_in(duration: Nanos) -> u32 {
    (duration / TICK).min(i32::MAX as u64 - 1) as u32
}

/// How many ticks a user is not written again after a write for a timeout.
fn quiet_ticks(timeout: Nanos) -> u32 {
    ticks_in(timeout / WRITES_PER_TIMEOUT)
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
        hot.enqueue_write(cold, (now, now), false, outbox);
        hot
    }

    /// Has the store told of the heartbeat at `at`.
    pub(super) fn enqueue_write(
        &mut self,
        cold: &ColdEntry,
        (at, now): (Nanos, Nanos),
        is_resend: bool,
        outbox: &mut Outbox,
    ) {
        self.is_unwritten = false;
        self.quiet_until = tick_of(now).wrapping_add(quiet_ticks(cold.timeout));
        cold.shortest_timeout.set(cold.timeout);
        outbox.heartbeat(cold.id.clone(), at, cold.timeout, is_resend);
        if let Some((at, after)) = cold.leave.get() {
            outbox.leave(cold.id.clone(), at, after);
        }
    }

    /// The user leaves in this process. The last heartbeat goes before the leave: should the store have lost its data, it
    /// would not know who leaves.
    pub(super) fn leave(&mut self, cold: &ColdEntry, (now, after): (Nanos, Nanos), outbox: &mut Outbox) {
        cold.is_left.set(true);
        cold.leave.set(Some((now, after)));
        self.enqueue_write(cold, (self.seen_at(now), now), false, outbox);
        self.has_common_timeout = false;
        self.quiet_until = tick_of(now);
    }

    /// The user left in some process: the last heartbeat is written at once unless it has been, and so is the next one.
    pub(super) fn mark_left(&mut self, cold: &ColdEntry, now: Nanos, outbox: &mut Outbox) {
        cold.is_left.set(true);
        if self.is_unwritten {
            self.enqueue_write(cold, (self.seen_at(now), now), false, outbox);
        }
        self.has_common_timeout = false;
        self.quiet_until = tick_of(now);
    }

    /// As if its rest were over, and its last heartbeat not told.
    pub(super) fn mark_unwritten(&mut self, tick: u32) {
        self.is_unwritten = true;
        self.quiet_until = tick;
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
        if timeout < cold.shortest_timeout.get() {
            // As if the last write had been for this timeout: whatever the timeouts, the store is written to at most three
            // times within the shortest of them.
            let before = quiet_ticks(cold.shortest_timeout.get());
            self.quiet_until = self.quiet_until.wrapping_sub(before).wrapping_add(quiet_ticks(timeout));
            cold.shortest_timeout.set(timeout);
        }
        cold.timeout = timeout;
        self.has_common_timeout = timeout == common_timeout;
        cold.is_left.set(false);
        cold.leave.set(None);
        if self.is_quiet(tick_of(now)) {
            return Coalesced::Known;
        }
        self.enqueue_write(cold, (now, now), false, outbox.lock().as_mut());
        Coalesced::WriteDue
    }

    /// Answers whether the user is still to be kept.
    pub(super) fn scan(&mut self, cold: &ColdEntry, (now, last_ok): (Nanos, Nanos), outbox: &mut Outbox) -> bool {
        if self.is_unwritten && !self.is_quiet(tick_of(now)) {
            self.enqueue_write(cold, (self.seen_at(now), now), false, outbox);
        }
        self.is_unwritten || !self.is_expired(tick_of(last_ok), cold.timeout)
    }
}
