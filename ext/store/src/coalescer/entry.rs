//! The two entries of a user: the small one, which each heartbeat changes, and the rest.

use std::cell::Cell;

use online_manager_tracker::{Nanos, TICK};
use parking_lot::Mutex;

use super::Coalesced;
use crate::id::UserId;
use crate::outbox::Outbox;

/// Stands for "no key": no [`Id::Key`](online_manager_tracker::Id::Key) ends in these bits.
pub(super) const NO_KEY: u64 = 0b10;

/// How often a user's heartbeats are written within a timeout. With three, one may come late without the user expiring.
const WRITES_PER_TIMEOUT: u64 = 3;

/// How many ticks the last heartbeat may be after a caller's `now`: an hour, far more than any caller waits.
const MAX_TICKS_AHEAD: u32 = (3_600_000_000_000 / TICK) as u32;

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

/// Returns the tick of a time, truncated to 32 bits.
#[inline]
pub(super) fn tick_of(moment: Nanos) -> u32 {
    (moment / TICK) as u32
}

/// Returns the number of whole ticks in a duration, at most the largest difference that truncated ticks can have.
fn ticks_in(duration: Nanos) -> u32 {
    (duration / TICK).min(i32::MAX as u64 - 1) as u32
}

/// How many ticks a user is not written again after a write for a timeout.
fn quiet_ticks(timeout: Nanos) -> u32 {
    ticks_in(timeout / WRITES_PER_TIMEOUT)
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

    /// Returns how many ticks after `now` the last heartbeat was; 0 if it was before. A caller's `now` may be a little older
    /// than a heartbeat of another thread.
    fn ticks_ahead(&self, now: Nanos) -> u32 {
        let ahead = self.seen.wrapping_sub(tick_of(now));
        if ahead < MAX_TICKS_AHEAD { ahead } else { 0 }
    }

    /// Returns the time of the last heartbeat, exact to a tick.
    pub(super) fn seen_at(&self, now: Nanos) -> Nanos {
        let now_floor = now / TICK * TICK;
        match self.ticks_ahead(now) {
            0 => now_floor.saturating_sub(Nanos::from(tick_of(now).wrapping_sub(self.seen)) * TICK),
            ahead => now_floor + Nanos::from(ahead) * TICK,
        }
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
        hot.enqueue_write(cold, (now, now), false, outbox);
        hot
    }

    /// Puts the heartbeat at `at` into the outbox. The next one is due after a third of the timeout.
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
    /// would not know who leaves. A heartbeat that came after `now` has undone the leave.
    pub(super) fn leave(&mut self, cold: &ColdEntry, (now, after): (Nanos, Nanos), outbox: &mut Outbox) {
        if self.ticks_ahead(now) > 0 {
            return;
        }
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

    /// Makes the last heartbeat due and unwritten.
    pub(super) fn mark_unwritten(&mut self, tick: u32) {
        self.is_unwritten = true;
        self.quiet_until = tick;
    }

    /// Handles a heartbeat that is due, or has another timeout than the common one, after its time was recorded.
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

    /// Puts the heartbeat into the outbox if it is unwritten and due. Returns whether the user is kept.
    pub(super) fn scan(&mut self, cold: &ColdEntry, (now, last_ok): (Nanos, Nanos), outbox: &mut Outbox) -> bool {
        if self.is_unwritten && !self.is_quiet(tick_of(now)) {
            self.enqueue_write(cold, (self.seen_at(now), now), false, outbox);
        }
        self.is_unwritten || !self.is_expired(tick_of(last_ok), cold.timeout)
    }
}
