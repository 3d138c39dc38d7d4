//! The two entries of a user: the small one, which each heartbeat changes, and the rest.

use std::cell::Cell;

use online_manager_tracker::{Nanos, Stall, TICK};
use parking_lot::Mutex;

use super::Coalesced;
use crate::id::UserId;
use crate::outbox::{Outbox, UNCERTAIN_ORDER, merge_leaves};
use crate::store::Purpose;

/// Stands for "no key": no [`Id::Key`](online_manager_tracker::Id::Key) ends in these bits.
pub(super) const NO_KEY: u64 = 0b10;

/// How often a user's heartbeats are written within a timeout. With three, one may come late without the user expiring.
const WRITES_PER_TIMEOUT: u64 = 3;

/// By how much a heartbeat is dated forward that undoes a leave that this process has sent or heard of, in nanoseconds: two
/// steps of the clock that may come late. Otherwise a store could take it for older than the leave. Less than
/// [`ORDER_TOLERANCE`](crate::store::ORDER_TOLERANCE), so that the next leave counts.
pub(crate) const RETURN_MARGIN: Nanos = 10_000_000;

/// Whether a leave that this process sent or heard of at `left_at` may still seem later than a heartbeat at `now`.
pub(super) fn is_recent(left_at: Nanos, now: Nanos) -> bool {
    now < left_at.saturating_add(RETURN_MARGIN)
}

/// Returns the time that a heartbeat at `now` is dated at, after a leave that this process sent or heard of at `left_at`.
pub(super) fn dated_after(left_at: Option<Nanos>, now: Nanos) -> Nanos {
    if left_at.is_some_and(|left_at| is_recent(left_at, now)) { now.saturating_add(RETURN_MARGIN) } else { now }
}

/// A time in ticks, in six bytes: they last for 9,000 years. With four, a timeout of more than 26 days would wrap
/// around.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(2))]
pub(super) struct Tick {
    low: u32,
    high: u16,
}

impl Tick {
    /// Returns the tick that a time is in.
    #[inline]
    pub(super) fn of(time: Nanos) -> Tick {
        Tick::new(time / TICK)
    }

    #[inline]
    fn new(ticks: u64) -> Tick {
        Tick { low: ticks as u32, high: (ticks >> 32) as u16 }
    }

    /// Returns the number of ticks since the clock's zero.
    #[inline]
    fn get(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    /// Returns the beginning of the tick.
    fn start(self) -> Nanos {
        self.get() * TICK
    }
}

/// What this process hears of a user whose deadline was moved forward, in any process. Times are those of its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) id: UserId,
    /// When the user is due.
    pub(crate) due_at: Nanos,
    /// When the user left, and how long after that the user is due; `None` if a heartbeat with a shorter timeout moved the
    /// deadline, or one has undone the leave.
    pub(crate) left: Option<(Nanos, Nanos)>,
}

/// The entry that a heartbeat changes. 24 bytes with a key of eight.
#[derive(Debug)]
pub(super) struct HotEntry<K> {
    pub(super) key: K,
    /// The tick of the last heartbeat.
    pub(super) seen: Tick,
    /// The tick before which no heartbeat is due.
    pub(super) quiet_until: Tick,
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
    /// When the user left, and after how long the soonest such leave makes the user due: kept to be written again.
    pub(super) leave: Cell<Option<(Nanos, Nanos)>>,
    /// Whether the user left in another process, which has written the leave: it is written again only if data were lost.
    pub(super) is_leave_heard: Cell<bool>,
    /// Whether the store knows that leave, and as one after the last heartbeat here: this process has heard of it, and it was not
    /// at nearly the same moment in another process.
    pub(super) is_leave_certain: Cell<bool>,
    /// The latest deadline that a stall has set.
    pub(super) prolonged_until: Cell<Nanos>,
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
            is_leave_heard: Cell::new(false),
            is_leave_certain: Cell::new(false),
            prolonged_until: Cell::new(0),
        }
    }

    /// Whether the user left in this process, which writes the leave.
    pub(super) fn has_own_leave(&self) -> bool {
        self.leave.get().is_some() && !self.is_leave_heard.get()
    }
}

/// How many ticks a user is not written again after a write for a timeout.
fn quiet_ticks(timeout: Nanos) -> u64 {
    timeout / WRITES_PER_TIMEOUT / TICK
}

impl<K> HotEntry<K> {
    /// Whether no heartbeat is due at a tick.
    #[inline]
    pub(super) fn is_quiet(&self, tick: Tick) -> bool {
        tick.get() < self.quiet_until.get()
    }

    /// Whether the timeout had passed at a tick, which may be before the last heartbeat.
    pub(super) fn is_expired(&self, tick: Tick, timeout: Nanos) -> bool {
        // A tick more than the timeout, since the heartbeat may have been at the end of its tick.
        tick.get().saturating_sub(self.seen.get()) > timeout / TICK
    }

    /// Whether the user was due before `settled_at`, until when the store has surely delivered the user's events.
    pub(super) fn is_over(&self, cold: &ColdEntry, settled_at: Nanos) -> bool {
        let leave = cold.leave.get().filter(|_| cold.is_leave_certain.get());
        // A leave may reach the store late, when the user is due or offline there. This process hears of it only after that.
        let due = leave.map(|(at, after)| at.saturating_add(after).max(self.quiet_until.start()));
        let is_gone = due.is_some_and(|due| due < settled_at);
        is_gone || (self.is_expired(Tick::of(settled_at), cold.timeout) && settled_at >= cold.prolonged_until.get())
    }

    /// Returns the time of the last heartbeat, exact to a tick. A caller's `now` may be a little older than a heartbeat
    /// of another thread.
    pub(super) fn seen_at(&self) -> Nanos {
        self.seen.start()
    }

    /// Returns the time of the last heartbeat, unless it is longer ago than `timeout`.
    pub(super) fn seen_within(&self, timeout: Nanos, now: Nanos) -> Option<Nanos> {
        (!self.is_expired(Tick::of(now), timeout)).then(|| self.seen_at())
    }

    /// Creates the entry of a new user, and puts its heartbeat into the outbox, dated at `at`.
    pub(super) fn new(
        key: K,
        cold: &ColdEntry,
        (at, now): (Nanos, Nanos),
        has_common_timeout: bool,
        outbox: &mut Outbox,
    ) -> HotEntry<K> {
        let mut hot =
            HotEntry { key, seen: Tick::of(now), quiet_until: Tick::of(0), is_unwritten: false, has_common_timeout };
        hot.enqueue_write(cold, (at, now), Purpose::Report, outbox);
        hot
    }

    /// Puts the heartbeat at `at` into the outbox, which was due at `due_at`. The next one is due a third of the timeout
    /// later, or at once if the user has left: it undoes the leave.
    pub(super) fn enqueue_write(
        &mut self,
        cold: &ColdEntry,
        (at, due_at): (Nanos, Nanos),
        purpose: Purpose,
        outbox: &mut Outbox,
    ) {
        self.is_unwritten = false;
        let quiet_ticks = if cold.is_left.get() { 0 } else { quiet_ticks(cold.timeout) };
        self.quiet_until = Tick::new(due_at / TICK + quiet_ticks);
        cold.shortest_timeout.set(cold.timeout);
        outbox.heartbeat(cold.id.clone(), at, cold.timeout, purpose);
        if let Some((left, after)) = cold.leave.get()
            && (!cold.is_leave_heard.get() || purpose == Purpose::Resend)
        {
            let due = left.saturating_add(after);
            let latest = outbox.heartbeat_at(&cold.id).unwrap_or(at);
            // It was after this process' heartbeat, however both were dated by other clocks. A clearly later one that waits is that of
            // an `offline` that was not delivered: the user came back elsewhere. It is over, and brings nobody online.
            if left >= latest || latest <= at.saturating_add(UNCERTAIN_ORDER) {
                outbox.leave(cold.id.clone(), left.max(latest), due.saturating_sub(left.max(latest)));
            }
        }
    }

    /// The user leaves in this process. The last heartbeat goes before the leave: should the store have lost its data, it
    /// would not know who leaves. A heartbeat that came after `now` has undone the leave.
    pub(super) fn leave(&mut self, cold: &ColdEntry, (now, after): (Nanos, Nanos), outbox: &mut Outbox) {
        if self.seen.get() > Tick::of(now).get() {
            return;
        }
        cold.is_left.set(true);
        cold.leave.set(Some(merge_leaves(cold.leave.get(), (now, after))));
        cold.is_leave_heard.set(false);
        cold.is_leave_certain.set(false);
        let was_sent = !self.is_unwritten && !outbox.has_heartbeat(&cold.id);
        self.enqueue_write(cold, (self.seen_at(), now), Purpose::Report, outbox);
        if was_sent {
            outbox.mark_repeated(&cold.id);
        }
        self.has_common_timeout = false;
        self.quiet_until = Tick::of(now);
    }

    /// The user's deadline was moved forward, in some process: the last heartbeat is written at once unless it has been, and so
    /// is the next one. If the user did not leave, only if the next one could be written too late: the next write may be of a
    /// heartbeat from before that moment, and the one after it comes as much later.
    pub(super) fn hear(&mut self, cold: &ColdEntry, heard: &Heard, now: Nanos, outbox: &mut Outbox) {
        match heard.left {
            Some(leave) => self.hear_of_leave(cold, leave, outbox),
            None if heard.due_at >= now.saturating_add(2 * (cold.timeout / WRITES_PER_TIMEOUT)) => return,
            None => {}
        }
        if self.is_unwritten {
            self.enqueue_write(cold, (self.seen_at(), now), Purpose::Report, outbox);
        }
        self.has_common_timeout = false;
        self.quiet_until = Tick::of(now);
    }

    fn hear_of_leave(&self, cold: &ColdEntry, leave: (Nanos, Nanos), outbox: &Outbox) {
        cold.is_left.set(true);
        let is_own = cold.has_own_leave();
        // The leave may seem earlier than it was, by the time that the poll took. But of what is written, it was the last.
        let is_written = !self.is_unwritten && !outbox.has_heartbeat(&cold.id);
        if is_written || self.seen_at() <= leave.0 {
            cold.leave.set(Some(merge_leaves(cold.leave.get(), leave)));
            cold.is_leave_heard.set(!is_own);
            cold.is_leave_certain.set(is_own || is_written || self.seen_at().saturating_add(UNCERTAIN_ORDER) < leave.0);
        }
    }

    /// Puts the last heartbeat into the outbox with a later deadline, if a stall puts that off, and the user has not left.
    pub(super) fn prolong(&mut self, cold: &ColdEntry, stall: Stall, is_lasting: bool, outbox: &mut Outbox) {
        let seen = self.seen_at();
        let due = seen.saturating_add(cold.timeout);
        let until = stall.put_off(seen, due);
        // While the stall lasts this is called again: a user who is not due by then needs none now.
        let needed = if is_lasting { stall.end } else { until };
        if needed > due.max(cold.prolonged_until.get()) && until > due && !cold.is_left.get() {
            cold.prolonged_until.set(until);
            outbox.prolong(cold.id.clone(), seen, until.saturating_sub(seen));
        }
    }

    /// Makes the last heartbeat due and unwritten.
    pub(super) fn mark_unwritten(&mut self, tick: Tick) {
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
            self.quiet_until = Tick::new(self.quiet_until.get().saturating_sub(before) + quiet_ticks(timeout));
            cold.shortest_timeout.set(timeout);
        }
        cold.timeout = timeout;
        self.has_common_timeout = timeout == common_timeout;
        cold.leave.set(None);
        let left_at = cold.is_left.take().then(|| self.quiet_until.start());
        let at = dated_after(left_at, now);
        if self.is_quiet(Tick::of(now)) {
            return Coalesced::Known;
        }
        self.enqueue_write(cold, (at, now), Purpose::Report, outbox.lock().as_mut());
        Coalesced::WriteDue
    }

    /// Puts the heartbeat into the outbox if it is unwritten and due. Returns whether the user is kept.
    pub(super) fn scan(&mut self, cold: &ColdEntry, (now, last_ok): (Nanos, Nanos), outbox: &mut Outbox) -> bool {
        if self.is_unwritten && !self.is_quiet(Tick::of(now)) {
            // However late the pass comes, the next heartbeat waits as if this one had been written when it was due.
            let due_at = self.quiet_until.start().max(self.seen_at());
            self.enqueue_write(cold, (self.seen_at(), due_at), Purpose::Report, outbox);
        }
        let is_leave_recent = cold.is_left.get() && is_recent(self.quiet_until.start(), now);
        self.is_unwritten || is_leave_recent || !self.is_over(cold, last_ok)
    }
}
