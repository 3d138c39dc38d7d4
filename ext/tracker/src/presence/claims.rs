//! The way from a deadline to the end of `offline`: the timer checks the users who may be due, and the reactor claims
//! them and reports how their callbacks ended. A stop makes everyone due.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::{Claimed, Departed, Next, Presence, Reason, Transition, User};
use crate::entry::{Entry, HORIZON, State, WHEEL_HORIZON};
use crate::invariant::violated;
use crate::overflow::OverflowEntry;
use crate::stalls::Stall;
use crate::table::{Place, Table};
use crate::time::{Nanos, TICK, start_of, tick_of};

/// How many users one claim checks before it returns, so that the lock is released even if a heartbeat has come for
/// each of them.
const MAX_CHECKS_PER_CLAIM: usize = 1024;

impl Presence {
    /// Schedules the check of the user's deadline: on the wheel, or in the due queue if `deadline` is not in the
    /// future. The wheel entry may be for an earlier tick than `deadline`, as far as the wheel reaches.
    pub(super) fn schedule(&mut self, place: Place, deadline: u64, now: Nanos) {
        let present = tick_of(now);
        let Some(entry) = self.table.get_mut(place) else { return };
        if self.is_stopping {
            // After a stop everyone is due; nothing is scheduled.
        } else if deadline <= present {
            self.due.push_back(entry.key);
            entry.queue_due();
        } else {
            if self.drained.is_none() {
                self.wheel.catch_up(present);
            }
            self.put_on_wheel(place, deadline.min(present + WHEEL_HORIZON));
            self.sweep_wheel();
        }
    }

    /// Puts the user at `place` onto the wheel, for `tick` or the nearest one that the wheel has entries for.
    pub(super) fn put_on_wheel(&mut self, place: Place, tick: u64) {
        let Some(entry) = self.table.get_mut(place) else { return };
        let tick = Entry::wheel_tick_from(self.wheel.within_reach(tick));
        let tick = self.wheel.insert(entry.key, tick);
        entry.set_wheel_tick(tick);
        self.is_wake_requested |= tick < self.timer_tick;
    }

    /// Checks up to `budget` users whose wheel tick has come. Those who are due go into the due queue. Returns when to
    /// call this again.
    pub fn advance(&mut self, now: Nanos, budget: usize) -> Next {
        let tick = tick_of(now);
        let mut checks = 0;
        // No wake request while the timer is awake.
        self.timer_tick = 0;
        loop {
            let Some(drained) = &mut self.drained else {
                self.drained = self.wheel.drain_next(tick);
                if self.drained.is_none() {
                    break;
                }
                continue;
            };
            let ticks = drained.ticks.clone();
            self.table.prefetch(checks, drained.keys.as_slice());
            let Some(key) = drained.keys.next() else {
                self.drained = None;
                continue;
            };
            self.check_deadline(key, &ticks, now);
            checks += 1;
            if checks >= budget {
                return Next::Now;
            }
        }
        let next = self.wheel.next_tick();
        self.timer_tick = next.unwrap_or(u64::MAX);
        next.map_or(Next::Never, |next| Next::At(start_of(next)))
    }

    /// Checks a user who came up in a wheel slot for `ticks`: puts the user into the due queue, or back onto the wheel.
    fn check_deadline(&mut self, key: u64, ticks: &RangeInclusive<u64>, now: Nanos) {
        let Some(place) = self.table.find_key(key) else { return };
        let Some(entry) = self.table.get(place) else { return };
        // Rule 13: of a user's wheel entries, only the recorded one counts. In a slot of many ticks an older one may be
        // mistaken for it. Then both are put in again for the same tick; there the first of them is checked, which
        // records another tick, and the second is dropped.
        if entry.state().is_online() && entry.is_on_wheel_in(ticks) {
            let next = self.next_check(place, now);
            self.schedule(place, next, now);
        }
    }

    /// Claims up to `max` users for `offline`, or one rejoining user for `online`, and adds them to `claimed`, which
    /// must be empty. Returns the transition, or `None` if nobody can be claimed now.
    ///
    /// It may add fewer than `max` users, or none, although more are waiting: so no claim takes long.
    pub fn claim(&mut self, now: Nanos, max: usize, claimed: &mut Vec<Claimed>) -> Option<Transition> {
        debug_assert!(max > 0 && claimed.is_empty());
        while let Some(key) = self.rejoining.pop_front() {
            self.claim_rejoining(key, now, claimed);
            if !claimed.is_empty() {
                return Some(Transition::Online);
            }
        }
        if self.is_stopping {
            return self.claim_remaining(now, max, claimed);
        }
        for checks in 0..MAX_CHECKS_PER_CLAIM {
            self.table.prefetch(checks, self.due.iter().take(max));
            let Some(key) = self.due.pop_front() else {
                // Otherwise the queues would keep the memory of their largest crowd.
                self.due = VecDeque::new();
                self.rejoining = VecDeque::new();
                return (!claimed.is_empty()).then_some(Transition::Offline);
            };
            self.claim_due(key, now, claimed);
            if claimed.len() >= max {
                break;
            }
        }
        Some(Transition::Offline)
    }

    /// Claims the user for `online` if it still waits for one.
    fn claim_rejoining(&mut self, key: u64, now: Nanos, claimed: &mut Vec<Claimed>) {
        // A leave may have come since, and after it anything else: the key in the queue may be stale.
        let Some(OverflowEntry::Departing { timeout, has_returned: true }) = self.overflow.get(key) else { return };
        let Some(entry) = self.table.entry_mut(key) else { return };
        let lateness = now.saturating_sub(start_of(entry.deadline(tick_of(now))));
        entry.set_state(State::ANNOUNCING);
        if self.rejoin_with_sessions(key) {
            self.overflow.remove(key);
        } else {
            self.overflow.insert(key, OverflowEntry::Announcing { timeout: Some(timeout), leave: None });
        }
        self.counts.departing -= 1;
        self.counts.announcing += 1;
        self.counts.present += 1;
        let id = self.owned_id(key);
        let reason = Reason::Heartbeat;
        claimed.push(Claimed { user: User(key), id, reason, lateness, seen_ago: lateness });
    }

    /// Claims the user for `offline` if the deadline has still passed.
    fn claim_due(&mut self, key: u64, now: Nanos, claimed: &mut Vec<Claimed>) {
        let Some(place) = self.table.find_key(key) else { return };
        let deadline = self.deadline_of(place, now);
        if deadline > tick_of(now) {
            // Rule 2: a heartbeat came before the claim, so the user goes back onto the wheel.
            let next = self.next_check(place, now);
            return self.schedule(place, next, now);
        }
        let put_off = self.put_off(place, now);
        if put_off > tick_of(now) {
            self.schedule(place, put_off, now);
        } else {
            let id = self.owned_id(key);
            let reason = if self.left_at(place).is_some() { Reason::Leave } else { Reason::Timeout };
            let seen_ago = now.saturating_sub(self.depart(place, now));
            let lateness = now.saturating_sub(start_of(deadline));
            claimed.push(Claimed { user: User(key), id, reason, lateness, seen_ago });
        }
    }

    /// This process, or what reads its heartbeats, stood still until now: puts off the claims of those who could not be heard
    /// (rule 14).
    pub fn add_stall(&mut self, stall: Stall) {
        self.stalls.add(stall);
    }

    /// Returns the shortest timeout of a user online that has a number, `Nanos::MAX` if none has; `None` if nobody is online.
    pub fn shortest_timeout(&self) -> Option<Nanos> {
        (self.counts.present > 0).then(|| self.timeouts.shortest().unwrap_or(Nanos::MAX))
    }

    /// Returns the tick until which stalls put off the claim of a user who is Online (rule 14); 0 if they do not.
    pub(super) fn put_off(&self, place: Place, now: Nanos) -> u64 {
        if self.has_sessions(place) {
            return self.latest_end(place);
        }
        let heard_at = self.left_at(place).or_else(|| self.last_seen_of(place, now)).unwrap_or(now);
        // Rounded down: a leave that is due at once is not put off to the next tick.
        tick_of(self.stalls.put_off(heard_at, start_of(self.deadline_of(place, now))))
    }

    /// Returns the tick of the deadline of a user who is Online.
    pub(super) fn deadline_of(&self, place: Place, now: Nanos) -> u64 {
        let Some(entry) = self.table.get(place) else { return u64::MAX };
        match entry.state() {
            State::OVERFLOW => match self.overflow.get(entry.key) {
                Some(OverflowEntry::Online { deadline, .. }) => deadline,
                _ => {
                    violated("a user whose deadline is in an overflow entry has one");
                    // The entry has the deadline too, unless it is beyond the horizon.
                    entry.deadline(tick_of(now))
                }
            },
            State::SESSIONS => self.latest_deadline(place).unwrap_or_else(|| {
                violated("a user whose state is that of named sessions has some");
                tick_of(now)
            }),
            _ => entry.deadline(tick_of(now)),
        }
    }

    /// Returns when a leave has set the deadline of a user who is Online, if one has.
    pub(super) fn left_at(&self, place: Place) -> Option<Nanos> {
        if self.has_sessions(place) {
            return self.latest_left_at(place);
        }
        let entry = self.table.get(place).filter(|entry| entry.state() == State::OVERFLOW)?;
        let Some(OverflowEntry::Online { left_at, .. }) = self.overflow.get(entry.key) else { return None };
        left_at
    }

    /// Claims users after a stop, which makes everyone due. Users inside `online` are left to the thread that called
    /// it.
    fn claim_remaining(&mut self, now: Nanos, max: usize, claimed: &mut Vec<Claimed>) -> Option<Transition> {
        while claimed.len() < max && self.counts.present > self.counts.announcing {
            let is_online = |entry: &Entry| entry.state().is_online();
            let found = self.table.search(self.stop_cursor, is_online);
            // A removal may have moved an entry to before the cursor.
            let place = found.or_else(|| self.table.search(Table::START, is_online));
            let Some((place, key)) = place.and_then(|place| Some((place, self.table.get(place)?.key))) else {
                violated("as many users are in the table as are counted");
                break;
            };
            self.stop_cursor = place;
            let id = self.owned_id(key);
            let seen_ago = now.saturating_sub(self.depart(place, now));
            claimed.push(Claimed { user: User(key), id, reason: Reason::Stop, lateness: 0, seen_ago });
        }
        (!claimed.is_empty()).then_some(Transition::Offline)
    }

    /// Makes a user who is Online or Announcing Departing. Returns the time of the last heartbeat.
    pub(super) fn depart(&mut self, place: Place, now: Nanos) -> Nanos {
        let last_seen = self.last_seen_of(place, now).unwrap_or(now);
        let Some(entry) = self.table.get_mut(place) else { return last_seen };
        let (key, old) = (entry.key, entry.state());
        // The overflow entry of a user who is Online stays until `offline` has returned: the claim may be taken back.
        entry.set_state(State::DEPARTING);
        entry.set_deadline(tick_of(last_seen));
        self.timeouts.exit(old);
        if old != State::OVERFLOW && tick_of(now) - tick_of(last_seen) > HORIZON {
            // The last heartbeat is so long ago that the entry's bits may soon not distinguish it.
            self.overflow.insert(key, OverflowEntry::Online { last_seen, deadline: tick_of(now), left_at: None });
        }
        self.depart_sessions(key, now);
        self.counts.present -= 1;
        self.counts.departing += 1;
        last_seen
    }

    /// Returns when the last heartbeat came of a user whose callback is running. A heartbeat during `offline` counts.
    pub fn last_seen_in_callback(&self, user: User, now: Nanos) -> Option<Nanos> {
        let entry = self.table.find_key(user.key()).and_then(|place| self.table.get(place))?;
        if !matches!(entry.state(), State::ANNOUNCING | State::DEPARTING) {
            return None;
        }
        let last_seen = match self.overflow.get(entry.key) {
            Some(OverflowEntry::Online { last_seen, .. }) => last_seen,
            _ => start_of(entry.deadline(tick_of(now))),
        };
        Some(last_seen.min(now))
    }

    /// Takes a claim back whose callback was not entered. Returns [`Departed::Rejoining`] if the user is the next to be
    /// claimed again, or [`Departed::Offline`] if the claim was for `online` and a leave or a stop has come since.
    pub fn unclaim(&mut self, user: User, transition: Transition, now: Nanos) -> Departed {
        let User(key) = user;
        let Some(place) = self.table.find_key(key) else { return Departed::Offline };
        let Some(entry) = self.table.get_mut(place) else { return Departed::Offline };
        match transition {
            Transition::Online if entry.state() == State::ANNOUNCING => {
                entry.set_state(State::DEPARTING);
                self.counts.announcing -= 1;
                self.counts.present -= 1;
                self.counts.departing += 1;
                let timeout = match self.overflow.remove(key) {
                    Some(OverflowEntry::Announcing { timeout, leave: None }) => timeout,
                    _ => self.unclaim_online_of_sessions(key),
                };
                match timeout {
                    Some(timeout) if !self.is_stopping => {
                        self.overflow.insert(key, OverflowEntry::Departing { timeout, has_returned: true });
                        self.rejoining.push_front(key);
                    }
                    // A leave (rule 9) or a stop (rule 12) came after the claim.
                    _ => {
                        self.remove_departed(place);
                        return Departed::Offline;
                    }
                }
            }
            Transition::Offline if entry.state() == State::DEPARTING => {
                let last_seen = start_of(entry.deadline(tick_of(now)));
                entry.set_state(State::OVERFLOW);
                entry.queue_due();
                self.counts.departing -= 1;
                self.counts.present += 1;
                if !self.is_stopping {
                    self.due.push_front(key);
                }
                if self.sessions.has(key) {
                    self.unclaim_offline_of_sessions(place, now);
                    return Departed::Rejoining;
                }
                let (last_seen, deadline, left_at) = match self.overflow.get(key) {
                    // With the claim taken back, a heartbeat after it counts as one before it (rule 2). Only its tick
                    // is known.
                    Some(OverflowEntry::Departing { timeout, .. }) => {
                        (last_seen, self.deadline_after(last_seen + TICK, timeout), None)
                    }
                    Some(OverflowEntry::Online { last_seen, deadline, left_at }) => {
                        (last_seen, deadline.min(tick_of(now)), left_at)
                    }
                    _ => (last_seen, tick_of(now), None),
                };
                self.overflow.insert(key, OverflowEntry::Online { last_seen, deadline, left_at });
            }
            _ => {}
        }
        Departed::Rejoining
    }

    /// Reports that `offline` of `user` has ended; how it ended makes no difference (rule 7).
    pub fn departed(&mut self, user: User) -> Departed {
        let User(key) = user;
        let Some(place) = self.table.find_key(key) else { return Departed::Offline };
        if self.table.get(place).is_none_or(|entry| entry.state() != State::DEPARTING) {
            return Departed::Offline;
        }
        match self.overflow.remove(key) {
            Some(OverflowEntry::Departing { timeout, .. }) if !self.is_stopping => {
                self.keep_remembered(key);
                self.overflow.insert(key, OverflowEntry::Departing { timeout, has_returned: true });
                self.rejoining.push_back(key);
                Departed::Rejoining
            }
            _ => {
                self.remove_departed(place);
                Departed::Offline
            }
        }
    }

    /// Removes a user who is Departing.
    pub(super) fn remove_departed(&mut self, place: Place) {
        self.counts.departing -= 1;
        self.forget(place);
    }

    /// Bars new users, drops remembered heartbeats and makes everyone due (rule 12). Returns the users it dropped:
    /// those whose `offline` had returned and whose `online` was not claimed.
    pub fn stop(&mut self) -> Vec<User> {
        self.is_stopping = true;
        let mut dropped = Vec::new();
        for key in std::mem::take(&mut self.rejoining) {
            if matches!(self.overflow.get(key), Some(OverflowEntry::Departing { has_returned: true, .. }))
                && let Some(place) = self.table.find_key(key)
            {
                self.overflow.remove(key);
                self.remove_departed(place);
                dropped.push(User(key));
            }
        }
        self.due = VecDeque::new();
        self.wheel.clear();
        self.drained = None;
        dropped
    }
}
