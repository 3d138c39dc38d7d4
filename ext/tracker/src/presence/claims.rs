//! The way from a deadline to the end of `offline`: the timer looks at who may be due, the reactor claims them and reports
//! how their callbacks ended. A stop makes everybody due.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::{Claimed, Departed, Next, Presence, Reason, Transition, User};
use crate::entry::{Entry, HORIZON, State};
use crate::overflow::OverflowEntry;
use crate::table::{Place, Table};
use crate::time::{Nanos, TICK, start_of, tick_of};

/// How many users who turned out not to be due one claim looks at before it lets go of the lock.
const MAX_CHECKS_PER_CLAIM: usize = 1024;

impl Presence {
    /// Looks at no more than `budget` users whose turn it is. Those who are due become claimable.
    pub fn advance(&mut self, now: Nanos, budget: usize) -> Next {
        let tick = tick_of(now);
        let mut checks = 0;
        // Nobody need rouse the timer while it is up.
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

    /// Looks at a user whom the wheel brought up out of a slot for `ticks`.
    fn check_deadline(&mut self, key: u64, ticks: &RangeInclusive<u64>, now: Nanos) {
        let Some(place) = self.table.find_key(key) else { return };
        let Some(entry) = self.table.get(place) else { return };
        // Rule 13: of the wheel's entries for a user, the one that the user knows of counts. In a slot of
        // many ticks another one may pass for it; both are then put in for the same tick, and when that
        // tick comes by itself, the first of them leaves it, and the other one is dropped.
        if entry.state().is_online() && entry.is_on_wheel_in(ticks) {
            self.schedule(place, self.deadline_of(place, now), now);
        }
    }

    /// Claims up to `max` users for `offline`, or one for the `online` that follows its `offline`, and
    /// adds them to `claimed`, which must be empty. Answers which of the two, or `None` when nobody is
    /// left who could be claimed now.
    ///
    /// Fewer than `max`, or even none, may be added although more are waiting: so no claim takes long.
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
                // The memory goes with the last user: a crowd that left at once is not paid for for ever.
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

    fn claim_rejoining(&mut self, key: u64, now: Nanos, claimed: &mut Vec<Claimed>) {
        let Some(id) = self.owned_id(key) else { return };
        // A leave may have come before the claim, and since then anything else.
        let Some(OverflowEntry::Departing { timeout, has_returned: true }) = self.overflow.get(key) else { return };
        let Some(entry) = self.table.entry_mut(key) else { return };
        let lateness = now.saturating_sub(start_of(entry.deadline(tick_of(now))));
        entry.set_state(State::ANNOUNCING);
        self.overflow.insert(key, OverflowEntry::Announcing { timeout: Some(timeout), leave: None });
        self.counts.departing -= 1;
        self.counts.announcing += 1;
        self.counts.present += 1;
        claimed.push(Claimed { user: User(key), id, reason: Reason::Heartbeat, lateness });
    }

    fn claim_due(&mut self, key: u64, now: Nanos, claimed: &mut Vec<Claimed>) {
        let Some(place) = self.table.find_key(key) else { return };
        let deadline = self.deadline_of(place, now);
        if deadline > tick_of(now) {
            // Rule 2: a heartbeat came before the claim.
            self.schedule(place, deadline, now);
        } else if let Some(id) = self.owned_id(key) {
            let reason = if self.is_due_by_leave(place) { Reason::Leave } else { Reason::Timeout };
            self.depart(place, now);
            claimed.push(Claimed { user: User(key), id, reason, lateness: now.saturating_sub(start_of(deadline)) });
        }
    }

    /// Whether the deadline of somebody online is the work of a leave.
    fn is_due_by_leave(&self, place: Place) -> bool {
        let overflow = self.table.get(place).filter(|entry| entry.state() == State::OVERFLOW);
        overflow.is_some_and(|entry| {
            matches!(self.overflow.get(entry.key), Some(OverflowEntry::Online { is_leave: true, .. }))
        })
    }

    /// After a stop everybody is due; who is inside `online` is left to whoever called it.
    fn claim_remaining(&mut self, now: Nanos, max: usize, claimed: &mut Vec<Claimed>) -> Option<Transition> {
        while claimed.len() < max && self.counts.present > self.counts.announcing {
            let is_online = |entry: &Entry| entry.state().is_online();
            let found = self.table.search(self.stop_cursor, is_online);
            // Removals move entries up, perhaps to where the search has been.
            let Some(place) = found.or_else(|| self.table.search(Table::START, is_online)) else { break };
            self.stop_cursor = place;
            let Some(key) = self.table.get(place).map(|entry| entry.key) else { break };
            let Some(id) = self.owned_id(key) else { break };
            self.depart(place, now);
            claimed.push(Claimed { user: User(key), id, reason: Reason::Stop, lateness: 0 });
        }
        (!claimed.is_empty()).then_some(Transition::Offline)
    }

    /// Online or Announcing becomes Departing.
    pub(super) fn depart(&mut self, place: Place, now: Nanos) {
        let last_seen = self.last_seen_of(place, now).unwrap_or(now);
        let Some(entry) = self.table.get_mut(place) else { return };
        let (key, old) = (entry.key, entry.state());
        // What is noted of who is online stays until `offline` has returned: the claim may be taken back.
        entry.set_state(State::DEPARTING);
        entry.set_deadline(tick_of(last_seen));
        self.timeouts.exit(old);
        if old != State::OVERFLOW && tick_of(now) - tick_of(last_seen) > HORIZON {
            // Nobody came for so long that the entry may soon be too small to tell when that was.
            self.overflow.insert(key, OverflowEntry::Online { last_seen, deadline: tick_of(now), is_leave: false });
        }
        self.counts.present -= 1;
        self.counts.departing += 1;
    }

    /// Takes a claim back: the callback was not called. The user is the next to be claimed again, or
    /// [`Departed::Offline`] if there is nothing left to be announced.
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
                match self.overflow.remove(key) {
                    Some(OverflowEntry::Announcing { timeout: Some(timeout), leave: None }) if !self.is_stopping => {
                        self.overflow.insert(key, OverflowEntry::Departing { timeout, has_returned: true });
                        self.rejoining.push_front(key);
                    }
                    // A leave (rule 9) or a stop (rule 12) came meanwhile.
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
                let (last_seen, deadline, is_leave) = match self.overflow.get(key) {
                    // A heartbeat meanwhile came before the claim after all. Its tick is all that is known of it.
                    Some(OverflowEntry::Departing { timeout, .. }) => {
                        (last_seen, self.deadline_after(last_seen + TICK, timeout), false)
                    }
                    Some(OverflowEntry::Online { last_seen, is_leave, .. }) => (last_seen, tick_of(now), is_leave),
                    _ => (last_seen, tick_of(now), false),
                };
                self.overflow.insert(key, OverflowEntry::Online { last_seen, deadline, is_leave });
                if !self.is_stopping {
                    self.due.push_front(key);
                }
            }
            _ => {}
        }
        Departed::Rejoining
    }

    /// `offline` of `user` has ended, in whatever way (rule 7).
    pub fn departed(&mut self, user: User) -> Departed {
        let User(key) = user;
        let Some(place) = self.table.find_key(key) else { return Departed::Offline };
        if self.table.get(place).is_none_or(|entry| entry.state() != State::DEPARTING) {
            return Departed::Offline;
        }
        match self.overflow.remove(key) {
            Some(OverflowEntry::Departing { timeout, .. }) if !self.is_stopping => {
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

    pub(super) fn remove_departed(&mut self, place: Place) {
        self.counts.departing -= 1;
        self.table.remove(place);
    }

    /// Bars new users, drops remembered heartbeats and makes everybody due (rule 12). Answers whom it
    /// dropped: users whose `offline` had returned and whose `online` had not been claimed.
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
