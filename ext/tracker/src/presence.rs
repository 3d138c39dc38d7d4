//! The state machine of presence: which users are online and which are due, and what the end of a callback means.
//!
//! ```text
//!            heartbeat                online returned
//! Offline ───────────────► Announcing ───────────────► Online ◄──┐ heartbeat: moves the deadline
//!    ▲  ▲                      │ online raised                │  ─┘
//!    │  └──────────────────────┘                              │ due (deadline, leave or stop),
//!    │ offline returned, no heartbeat meanwhile               ▼ and claimed
//!    └──────────────────────────────────────────────────── Departing ──► (heartbeat meanwhile) Announcing
//! ```
//!
//! This file has heartbeats and leaves; [`queries`] has who is online, [`claims`] the way from a deadline to the end of
//! `offline`, and [`memory`] what keeps memory bounded. Users with named sessions are in [`sessions`] and
//! [`session_ends`].
//! Nothing here waits, calls a callback or reads a clock: the methods that need the time take it as an argument. The
//! numbered rules are those of `docs/state_machine.md`.

mod claims;
mod memory;
mod queries;
mod session_ends;
mod sessions;
mod transition;

use std::collections::VecDeque;

pub use self::transition::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, LeaveOutcome, Next, Reason,
    SessionLeaveOutcome, Transition, User,
};
use crate::entry::{Entry, HORIZON, State};
use crate::id::Id;
use crate::overflow::{Overflow, OverflowEntry};
use crate::sessions::{SessionKeys, Sessions};
use crate::stalls::Stalls;
use crate::table::{Place, Table};
use crate::time::{Nanos, start_of, tick_from, tick_of};
use crate::timeouts::Timeouts;
use crate::wheel::{DrainedSlot, Wheel};

/// An `online` of this length (10 ms) or more is slow: the time of its heartbeat gets a field of its own. Otherwise that time
/// is derived from the deadline, which counts from the return of `online`.
const SLOW_ONLINE: Nanos = 10_000_000;

/// How many sessions a user may have if the caller sets no limit (rule S16).
const MAX_SESSIONS: usize = 100;

/// The state of every user.
#[derive(Clone, Debug)]
pub struct Presence {
    table: Table,
    timeouts: Timeouts,
    overflow: Overflow,
    sessions: Sessions,
    session_keys: SessionKeys,
    max_sessions: usize,
    wheel: Wheel,
    /// The wheel slot whose users are being checked, without those already checked.
    drained: Option<DrainedSlot>,
    /// The due queue: users whose deadline had passed when they were checked, each once. Their entries are marked
    /// queued.
    due: VecDeque<u64>,
    /// Users with a heartbeat during their `offline`, which has returned: `online` is to be called.
    rejoining: VecDeque<u64>,
    counts: Counts,
    stalls: Stalls,
    /// See [`Presence::set_running_until`].
    running_until: Nanos,
    /// Nanoseconds that are added to every deadline, see [`crate::Clock::jitter`].
    jitter: Nanos,
    /// The tick of the timer's next [`Presence::advance`]: 0 while the timer is awake or has been woken, `u64::MAX` if
    /// it waits for a wakeup only.
    timer_tick: u64,
    /// Whether a user was scheduled for an earlier tick than that.
    is_wake_requested: bool,
    is_stopping: bool,
    /// After a stop: where the search for users who are still online goes on.
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
    /// When a leave has set the deadline, if one has.
    left_at: Option<Nanos>,
}

impl Presence {
    /// Returns a presence without users. `now` is the clock's present moment, `jitter` its [`crate::Clock::jitter`].
    pub fn new(now: Nanos, jitter: Nanos) -> Presence {
        Presence {
            table: Table::new(),
            timeouts: Timeouts::new(),
            overflow: Overflow::new(),
            sessions: Sessions::new(),
            session_keys: SessionKeys::new(),
            max_sessions: MAX_SESSIONS,
            wheel: Wheel::new(tick_of(now)),
            drained: None,
            due: VecDeque::new(),
            rejoining: VecDeque::new(),
            counts: Counts::default(),
            stalls: Stalls::default(),
            running_until: Nanos::MAX,
            jitter,
            timer_tick: u64::MAX,
            is_wake_requested: false,
            is_stopping: false,
            stop_cursor: Table::START,
        }
    }

    /// Takes a heartbeat of the user `id` at `now`, good for `timeout` nanoseconds; 0 counts as 1.
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

    /// Prefetches what a heartbeat of `id` will read; changes nothing. Before the heartbeats of several strings the
    /// processor then waits for memory once, and not once for each. Heartbeats of keys are so short that it overlaps
    /// them anyway.
    #[inline]
    pub fn prefetch(&self, id: Id<'_>) {
        if let Id::String(string) = id {
            self.table.prefetch_string(string);
        }
    }

    /// Takes the key and not the id: an id would be written to memory at every heartbeat.
    #[inline(never)]
    fn heartbeat_slow_key(&mut self, key: u64, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        self.heartbeat_slow(Id::Key(key), now, timeout)
    }

    /// Takes a heartbeat of a string, or one that may do more than move a deadline on. Not inlined, so that the fast
    /// path uses few registers.
    #[inline(never)]
    fn heartbeat_slow(&mut self, id: Id<'_>, now: Nanos, timeout: Nanos) -> HeartbeatOutcome {
        if self.is_stopping {
            return HeartbeatOutcome::Ignored;
        }
        let Some(place) = self.table.find_inlined(id) else { return self.add_user(id, now) };
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

    /// Takes the first heartbeat of a user.
    #[cold]
    fn add_user(&mut self, id: Id<'_>, now: Nanos) -> HeartbeatOutcome {
        let Some(key) = self.table.key_for(id) else { return HeartbeatOutcome::Ignored };
        // No deadline before `online` has returned (rule 5). Until then its bits hold when the user was last seen.
        self.table.insert(Entry::new(key, State::ANNOUNCING, tick_of(now)));
        self.counts.present += 1;
        self.counts.announcing += 1;
        HeartbeatOutcome::Announce(User(key))
    }

    /// Takes a heartbeat of a known user that does more than move the deadline on.
    #[cold]
    fn update(&mut self, place: Place, state: State, now: Nanos, timeout: Nanos) {
        let Some(entry) = self.table.get_mut(place) else { return };
        let key = entry.key;
        if self.sessions.has(key) {
            return self.heartbeat_of_session(place, None, now, timeout);
        }
        match entry.state() {
            State::ANNOUNCING => {
                entry.set_deadline(tick_of(now));
                // Clears a leave that came before this heartbeat (rule 9).
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
                self.set_online(place, Online { state, deadline, last_seen: now, left_at: None }, now);
            }
        }
    }

    /// Makes the user at `place` Online, and schedules the deadline unless the user is scheduled early enough already.
    fn set_online(&mut self, place: Place, online: Online, now: Nanos) {
        let Online { state, deadline, last_seen, left_at } = online;
        let Some(entry) = self.table.get_mut(place) else { return };
        let (key, old) = (entry.key, entry.state());
        let is_scheduled = old.is_online() && entry.is_scheduled_by(deadline, tick_of(now));
        entry.set_state(state);
        entry.set_deadline(deadline.min(tick_of(now) + HORIZON));
        self.timeouts.enter(state);
        self.timeouts.exit(old);
        if state == State::OVERFLOW {
            self.overflow.insert(key, OverflowEntry::Online { last_seen, deadline, left_at });
        } else if old == State::OVERFLOW {
            self.overflow.remove(key);
        }
        if !is_scheduled {
            self.schedule(place, deadline, now);
        }
    }

    /// Reports that `online` of `user` has ended. The timeout of a heartbeat during `online` takes precedence over
    /// `timeout`. The end of a callback that is not running changes nothing.
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
            self.forget(place);
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
            _ if self.sessions.has(key) => {
                self.begin_deadlines(place, now, timeout);
                return Announced::Online;
            }
            _ => (timeout, None),
        };
        let deadline = self.deadline_after(now, timeout);
        let online = match leave {
            Some(leave) if leave < deadline => {
                Online { state: State::OVERFLOW, deadline: leave, last_seen, left_at: Some(now) }
            }
            // Derived from the deadline, the last heartbeat would be too late by the length of `online`.
            _ if now.saturating_sub(last_seen) >= SLOW_ONLINE => {
                Online { state: State::OVERFLOW, deadline, last_seen, left_at: None }
            }
            _ => Online { state: self.timeouts.state_for(timeout), deadline, last_seen: now, left_at: None },
        };
        self.set_online(place, online, now);
        Announced::Online
    }

    /// Sets the deadline of `id` to `after` nanoseconds from `now` unless it is earlier already (rule 9): that of all
    /// sessions (rule S2). During `offline` it clears the heartbeats that are remembered.
    pub fn leave(&mut self, id: Id<'_>, now: Nanos, after: Nanos) -> LeaveOutcome {
        let stayed = |was_online| LeaveOutcome { was_online, forgotten: None };
        let Some(place) = self.table.find(id) else { return stayed(false) };
        let Some(entry) = self.table.get(place) else { return stayed(false) };
        let key = entry.key;
        let leave = self.leave_tick(now, after);
        if self.sessions.has(key) {
            return self.leave_all_sessions(place, now, leave);
        }
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
                if leave < self.deadline_of(place, now).max(self.put_off(place, now))
                    && let Some(last_seen) = self.last_seen_of(place, now)
                {
                    let online = Online { state: State::OVERFLOW, deadline: leave, last_seen, left_at: Some(now) };
                    self.set_online(place, online, now);
                }
                stayed(true)
            }
        }
    }

    /// Returns the tick from which a user is due who leaves at `now`, `after` nanoseconds later.
    fn leave_tick(&self, now: Nanos, after: Nanos) -> u64 {
        if after == 0 { tick_of(now) } else { self.deadline_after(now, after) }
    }

    /// Whether [`Presence::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether the timer has to be woken, since it would come too late. Takes the request: it is returned once.
    pub fn take_wake_request(&mut self) -> bool {
        if !self.is_wake_requested {
            return false;
        }
        self.is_wake_requested = false;
        // The timer is about to call `advance`, which sets its next tick.
        self.timer_tick = 0;
        true
    }

    /// Whether the timer's next tick has begun.
    #[cfg(feature = "shuttle")]
    pub(crate) fn is_timer_due(&self, now: Nanos) -> bool {
        // 0 while the timer is awake or has been woken.
        (1..=tick_of(now)).contains(&self.timer_tick)
    }

    /// Whether a claim may find a user. It may also find none: a heartbeat takes nobody out of the due queue.
    pub fn is_claimable(&self) -> bool {
        if self.is_stopping {
            self.counts.present > self.counts.announcing
        } else {
            !self.due.is_empty() || !self.rejoining.is_empty()
        }
    }

    /// Returns the tick from which a user with a heartbeat at `now` is due. It is rounded up, so that it is never
    /// early, and later than the present tick, so that no heartbeat makes its user due.
    #[inline]
    fn deadline_after(&self, now: Nanos, timeout: Nanos) -> u64 {
        tick_from(now.saturating_add(self.jitter).saturating_add(timeout.max(1)))
    }
}
