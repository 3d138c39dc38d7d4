//! The state machine of presence: who is online, who is due, what a callback's end means.
//!
//! ```text
//!            heartbeat                online returned
//! Offline ───────────────► Announcing ───────────────► Online ◄──┐ heartbeat: move the deadline
//!    ▲  ▲                      │ online raised                │  ─┘
//!    │  └──────────────────────┘                              │ deadline passed, and claimed;
//!    │ offline returned, no heartbeat meanwhile               ▼ or leave
//!    └──────────────────────────────────────────────────── Departing ──► (heartbeat meanwhile) Announcing
//! ```
//!
//! HeartbeatBatch, leaves and questions are in this file, the way from a deadline to the end of `offline` in [`claims`].
//! Nothing in here waits, calls back or knows what time it is: every method that needs the time is
//! told it. The numbered rules are those of `docs/state_machine.md`.

mod claims;
mod transition;

use std::collections::VecDeque;

pub use self::transition::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, LeaveOutcome, Next, Reason, Transition,
    User,
};
use crate::entry::{Entry, HORIZON, State, WHEEL_HORIZON};
use crate::id::{Id, OwnedId};
use crate::overflow::{Overflow, OverflowEntry};
use crate::table::{PARTS, PREFETCH_BATCH, Place, Table};
use crate::time::{Nanos, start_of, tick_from, tick_of};
use crate::timeouts::Timeouts;
use crate::wheel::{DrainedSlot, Wheel};

/// From this on (10 ms) an `online` took so long that the heartbeat before it is remembered by itself.
const SLOW_ONLINE: Nanos = 10_000_000;

/// Every user, and what is to happen to them.
#[derive(Clone, Debug)]
pub struct Presence {
    table: Table,
    timeouts: Timeouts,
    overflow: Overflow,
    wheel: Wheel,
    /// The slot that is being looked through.
    drained: Option<DrainedSlot>,
    /// The line of those whose deadline had passed when they were looked at, each once; their entries say so.
    due: VecDeque<u64>,
    /// Users who beat during their `offline`.
    rejoining: VecDeque<u64>,
    counts: Counts,
    /// Added to every deadline, see [`crate::Clock::jitter`].
    jitter: Nanos,
    /// The tick at which the timer will call, and whether it has to be told of an earlier one.
    timer_tick: u64,
    is_wake_requested: bool,
    is_stopping: bool,
    /// How far the search for the remaining users has come.
    stop_cursor: Place,
}

/// What [`Presence::set_online`] stores of a user.
struct Online {
    /// [`State::OVERFLOW`], or the state of the user's timeout.
    state: State,
    /// The tick from which the user is due.
    deadline: u64,
    /// When the last heartbeat came.
    last_seen: Nanos,
    /// Whether a leave has set the deadline.
    is_leave: bool,
}

impl Presence {
    /// Nobody, at `now` on a clock with that jitter.
    pub fn new(now: Nanos, jitter: Nanos) -> Presence {
        Presence {
            table: Table::new(),
            timeouts: Timeouts::new(),
            overflow: Overflow::new(),
            wheel: Wheel::new(tick_of(now)),
            drained: None,
            due: VecDeque::new(),
            rejoining: VecDeque::new(),
            counts: Counts::default(),
            jitter,
            timer_tick: u64::MAX,
            is_wake_requested: false,
            is_stopping: false,
            stop_cursor: Table::START,
        }
    }

    /// A heartbeat of the user `id` at `now`, good for `timeout` nanoseconds (at least one).
    #[inline(always)]
    pub fn heartbeat(&mut self, id: Id<'_>, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        let Id::Key(key) = id else { return self.heartbeat_slow(id, now, timeout) };
        let deadline = self.deadline_after(now, timeout);
        if !self.is_stopping
            && let Some(entry) = self.table.entry_mut(key)
            && self.timeouts.is_latest(timeout, entry.state())
        {
            entry.extend_deadline(deadline);
            return HeartbeatOutcome::Known;
        }
        self.heartbeat_slow_key(key, now, timeout)
    }

    /// Announces that a heartbeat of `id` follows; changes nothing. Before the heartbeats of several strings it makes them
    /// faster: the processor waits for memory once, and not for one user after the other. Words come so fast one after the
    /// other that it does so anyway.
    #[inline]
    pub fn prefetch(&self, id: Id<'_>) {
        if let Id::String(string) = id {
            self.table.prefetch_string(string);
        }
    }

    /// Takes the key and not the id, which otherwise would have to lie in memory for every heartbeat.
    #[inline(never)]
    fn heartbeat_slow_key(&mut self, key: u64, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        self.heartbeat_slow(Id::Key(key), now, timeout)
    }

    /// A heartbeat of a string, or one that may be more than moving a deadline on. Not inlined, so that nearly every
    /// heartbeat keeps to the few registers that it needs.
    #[inline(never)]
    fn heartbeat_slow(&mut self, id: Id<'_>, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        if self.is_stopping {
            return HeartbeatOutcome::Ignored;
        }
        let Some(place) = self.table.find(id) else { return self.add_user(id, now) };
        let state = self.timeouts.state_for(timeout);
        let deadline = self.deadline_after(now, timeout);
        if let Some(entry) = self.table.get_mut(place)
            && self.timeouts.is_latest(timeout, entry.state())
        {
            entry.extend_deadline(deadline);
        } else {
            self.update(place, state, now, timeout);
        }
        HeartbeatOutcome::Known
    }

    /// A heartbeat of nobody known.
    #[cold]
    fn add_user(&mut self, id: Id<'_>, now: Nanos) -> HeartbeatOutcome {
        let Some(key) = self.table.key_for(id) else { return HeartbeatOutcome::Ignored };
        // The deadline is not needed before `online` has returned (rule 5): till then, when the user was seen.
        self.table.insert(Entry::new(key, State::ANNOUNCING, tick_of(now)));
        self.counts.present += 1;
        self.counts.announcing += 1;
        HeartbeatOutcome::Announce(User(key))
    }

    /// A heartbeat of somebody known that is more than moving a deadline on.
    #[cold]
    fn update(&mut self, place: Place, state: State, now: Nanos, timeout: Nanos) {
        let Some(entry) = self.table.get_mut(place) else { return };
        let key = entry.key;
        match entry.state() {
            State::ANNOUNCING => {
                entry.set_deadline(tick_of(now));
                // A leave before this heartbeat is forgotten (rule 9).
                self.overflow.insert(key, OverflowEntry::Announcing { timeout: Some(timeout), leave: None });
            }
            State::DEPARTING => {
                entry.set_deadline(tick_of(now));
                let has_returned =
                    matches!(self.overflow.get(key), Some(OverflowEntry::Departing { has_returned: true, .. }));
                self.overflow.insert(key, OverflowEntry::Departing { timeout, has_returned });
            }
            _ => {
                let deadline = self.deadline_after(now, timeout);
                self.set_online(place, Online { state, deadline, last_seen: now, is_leave: false }, now);
            }
        }
    }

    /// Makes the user at `place` Online, and schedules the deadline unless the user is scheduled early enough already.
    fn set_online(&mut self, place: Place, online: Online, now: Nanos) {
        let Online { state, deadline, last_seen, is_leave } = online;
        let Some(entry) = self.table.get_mut(place) else { return };
        let (key, old) = (entry.key, entry.state());
        let is_scheduled = old.is_online() && entry.is_scheduled_by(deadline, tick_of(now));
        entry.set_state(state);
        entry.set_deadline(deadline.min(tick_of(now) + HORIZON));
        self.timeouts.enter(state);
        self.timeouts.exit(old);
        if state == State::OVERFLOW {
            self.overflow.insert(key, OverflowEntry::Online { last_seen, deadline, is_leave });
        } else if old == State::OVERFLOW {
            self.overflow.remove(key);
        }
        if !is_scheduled {
            self.schedule(place, deadline, now);
        }
    }

    /// Has the user looked at by `deadline`: by the wheel, or at once by whoever claims.
    fn schedule(&mut self, place: Place, deadline: u64, now: Nanos) {
        let present = tick_of(now);
        let Some(entry) = self.table.get_mut(place) else { return };
        if self.is_stopping {
            // Everybody is due.
        } else if deadline <= present {
            self.due.push_back(entry.key);
            entry.queue_due();
        } else {
            if self.drained.is_none() {
                self.wheel.catch_up(present);
            }
            let tick = Entry::wheel_tick_from(self.wheel.within_reach(deadline.min(present + WHEEL_HORIZON)));
            self.wheel.insert(entry.key, tick);
            entry.set_wheel_tick(tick);
            self.is_wake_requested |= tick < self.timer_tick;
        }
    }

    /// `online` of `user` has ended. A `timeout` that came with a heartbeat meanwhile goes before this one.
    pub fn announced(&mut self, user: User, now: Nanos, timeout: Nanos, outcome: CallbackOutcome) -> Announced {
        let User(key) = user;
        let Some(place) = self.table.find_key(key) else { return Announced::Offline };
        let Some(entry) = self.table.get(place).filter(|entry| entry.state() == State::ANNOUNCING) else {
            return Announced::Offline;
        };
        let last_seen = start_of(entry.deadline(tick_of(now)));
        let overflow = self.overflow.remove(key);
        self.counts.announcing -= 1;
        if outcome == CallbackOutcome::Aborted {
            self.counts.present -= 1;
            self.table.remove(place);
            return Announced::Offline;
        }
        if self.is_stopping {
            self.depart(place, now);
            return Announced::Depart;
        }
        let (timeout, leave) = match overflow {
            Some(OverflowEntry::Announcing { timeout: newer_timeout, leave }) => {
                (newer_timeout.unwrap_or(timeout), leave)
            }
            _ => (timeout, None),
        };
        let deadline = self.deadline_after(now, timeout);
        let online = match leave {
            Some(leave) if leave < deadline => {
                Online { state: State::OVERFLOW, deadline: leave, last_seen, is_leave: true }
            }
            // The deadline would not tell when this user was last seen.
            _ if now.saturating_sub(last_seen) >= SLOW_ONLINE => {
                Online { state: State::OVERFLOW, deadline, last_seen, is_leave: false }
            }
            _ => Online { state: self.timeouts.state_for(timeout), deadline, last_seen: now, is_leave: false },
        };
        self.set_online(place, online, now);
        Announced::Online
    }

    /// Sets the deadline of `id` to `after` nanoseconds from `now` if that is sooner (rule 9).
    pub fn leave(&mut self, id: Id<'_>, now: Nanos, after: Nanos) -> LeaveOutcome {
        let stayed = |was_online| LeaveOutcome { was_online, forgotten: None };
        let Some(place) = self.table.find(id) else { return stayed(false) };
        let Some(entry) = self.table.get(place) else { return stayed(false) };
        let key = entry.key;
        let leave = if after == 0 { tick_of(now) } else { self.deadline_after(now, after) };
        match entry.state() {
            State::ANNOUNCING => {
                let (timeout, earlier) = match self.overflow.get(key) {
                    Some(OverflowEntry::Announcing { timeout, leave }) => (timeout, leave),
                    _ => (None, None),
                };
                let leave = Some(earlier.map_or(leave, |earlier| earlier.min(leave)));
                self.overflow.insert(key, OverflowEntry::Announcing { timeout, leave });
                stayed(true)
            }
            State::DEPARTING => {
                if let Some(OverflowEntry::Departing { has_returned, .. }) = self.overflow.get(key) {
                    self.overflow.remove(key);
                    if has_returned {
                        self.remove_departed(place);
                        return LeaveOutcome { was_online: false, forgotten: Some(User(key)) };
                    }
                }
                stayed(false)
            }
            _ => {
                if leave < self.deadline_of(place, now)
                    && let Some(last_seen) = self.last_seen_of(place, now)
                {
                    let online = Online { state: State::OVERFLOW, deadline: leave, last_seen, is_leave: true };
                    self.set_online(place, online, now);
                }
                stayed(true)
            }
        }
    }

    /// Whether [`Presence::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether the timer has to be told that its next call comes too late. It is to be told once.
    pub fn take_wake_request(&mut self) -> bool {
        if self.is_wake_requested {
            // It will ask again.
            self.timer_tick = 0;
        }
        std::mem::take(&mut self.is_wake_requested)
    }

    /// Whether the time has come for the timer's next call.
    #[cfg(feature = "shuttle")]
    pub(crate) fn is_timer_due(&self, now: Nanos) -> bool {
        // 0 while it is up already, or has been told.
        (1..=tick_of(now)).contains(&self.timer_tick)
    }

    /// Whether somebody can be claimed. Some of them may have been saved by a heartbeat meanwhile.
    pub fn is_claimable(&self) -> bool {
        if self.is_stopping {
            self.counts.present > self.counts.announcing
        } else {
            !self.due.is_empty() || !self.rejoining.is_empty()
        }
    }

    /// Whether `id` is online: from the call of `online` to the call of `offline`.
    pub fn is_online(&self, id: Id<'_>) -> bool {
        let entry = self.table.find(id).and_then(|place| self.table.get(place));
        entry.is_some_and(|entry| entry.state() != State::DEPARTING)
    }

    /// Whether `id` has an entry at all: it is online, or not quite offline yet.
    pub fn is_known(&self, id: Id<'_>) -> bool {
        self.table.find(id).is_some()
    }

    /// When `id` last beat, if it is online: exact to a tick and the clock's jitter. A first heartbeat counts
    /// from the return of `online`, unless that took long (10 ms).
    pub fn last_seen(&self, id: Id<'_>, now: Nanos) -> Option<Nanos> {
        self.last_seen_of(self.table.find(id)?, now)
    }

    fn last_seen_of(&self, place: Place, now: Nanos) -> Option<Nanos> {
        let entry = self.table.get(place)?;
        let last_seen = match entry.state() {
            State::DEPARTING => return None,
            State::ANNOUNCING => start_of(entry.deadline(tick_of(now))),
            State::OVERFLOW => match self.overflow.get(entry.key) {
                Some(OverflowEntry::Online { last_seen, .. }) => last_seen,
                _ => return None,
            },
            state => {
                let timeout = self.timeouts.timeout_of(state)?;
                start_of(entry.deadline(tick_of(now))).saturating_sub(timeout.saturating_add(self.jitter))
            }
        };
        Some(last_seen.min(now))
    }

    /// How many users are in which state.
    pub fn counts(&self) -> Counts {
        Counts { due: self.due.len(), ..self.counts }
    }

    /// Those of the users online who are in one part of the table, of which there are [`Presence::PARTS`].
    pub fn online_users(&self, part: usize) -> Vec<OwnedId> {
        let online = self.table.part(part).filter(|entry| entry.state() != State::DEPARTING);
        online.filter_map(|entry| self.owned_id(entry.key)).collect()
    }

    /// How many parts [`Presence::online_users`] takes.
    pub const PARTS: usize = PARTS;

    /// Of how many users a caller may [`prefetch`](Presence::prefetch) the heartbeats before it comes to the first of them.
    pub const PREFETCH_BATCH: usize = PREFETCH_BATCH;

    fn owned_id(&self, key: u64) -> Option<OwnedId> {
        if crate::id::is_valid_key(key) { Some(OwnedId::Key(key)) } else { self.table.owned_string(key) }
    }

    /// How many things are kept, of whatever kind: 0 when everybody has left and the wheel has come round.
    #[doc(hidden)]
    pub fn kept(&self) -> usize {
        let drained = self.drained.as_ref().map_or(0, |slot| slot.keys.len());
        self.table.len() + self.overflow.len() + self.wheel.len() + drained + self.due.len() + self.rejoining.len()
    }

    /// The tick from which on a user is due who beat at `now`: rounded up, so that it is never early, and
    /// never the present one, so that no heartbeat makes its user due.
    #[inline]
    fn deadline_after(&self, now: Nanos, timeout: Nanos) -> u64 {
        tick_from(now.saturating_add(self.jitter).saturating_add(timeout.max(1)))
    }

    fn deadline_of(&self, place: Place, now: Nanos) -> u64 {
        let Some(entry) = self.table.get(place) else { return u64::MAX };
        match entry.state() {
            State::OVERFLOW => match self.overflow.get(entry.key) {
                Some(OverflowEntry::Online { deadline, .. }) => deadline,
                _ => u64::MAX,
            },
            _ => entry.deadline(tick_of(now)),
        }
    }
}
