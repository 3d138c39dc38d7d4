//! Users whose callback failed: how long each waits, and the events that wait with it.

use std::collections::{HashMap, VecDeque};

use foldhash::quality::RandomState;
use online_manager_tracker::Nanos;

use super::leases::Leases;
use super::queue::Pending;
use crate::id::UserId;
use crate::store::Partition;

const SECOND: Nanos = 1_000_000_000;
/// The longest back-off: a callback that works again is tried within a minute.
const MAX_BACKOFF: Nanos = 60 * SECOND;

/// Returns `first` after the first failure, twice as long after each further one, and at most `longest`.
pub(crate) fn backoff(first: Nanos, longest: Nanos, failures: u32) -> Nanos {
    let doublings = failures.saturating_sub(1).min(Nanos::BITS - 1);
    first.saturating_mul(1 << doublings).min(longest)
}

/// Returns how long a callback is not tried after it has failed `tries` times in a row: 1, 2, 4 … 60 s.
pub(super) fn backoff_after(tries: u32) -> Nanos {
    backoff(SECOND, MAX_BACKOFF, tries)
}

/// A user whose callback failed.
#[derive(Debug)]
struct BackingOff {
    /// When the first event is tried again; `Nanos::MAX` while it is being tried.
    until: Nanos,
    /// The event that failed and all later ones of the user, in order. While the first is being tried, only the later
    /// ones.
    events: VecDeque<Pending>,
}

/// All users who are backing off.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    users: HashMap<UserId, BackingOff, RandomState>,
}

impl BackOff {
    /// Returns how many users are backing off.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    #[cfg(test)]
    pub(super) fn has(&self, id: &UserId) -> bool {
        self.users.contains_key(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Makes the event and the `later` ones of its user wait, for a time that depends on how often the event was tried.
    pub(super) fn start(&mut self, pending: Pending, later: VecDeque<Pending>, now: Nanos) {
        let until = now.saturating_add(backoff_after(pending.tries));
        let id = pending.event.id.clone();
        let user = self.users.entry(id).or_insert_with(|| BackingOff { until, events: VecDeque::new() });
        user.until = until;
        user.events.push_front(pending);
        user.events.extend(later);
    }

    /// Adds the event behind the earlier ones of its user. Returns it if its user is not backing off.
    pub(super) fn push_back(&mut self, pending: Pending) -> Option<Pending> {
        match self.users.get_mut(&pending.event.id) {
            Some(user) => {
                user.events.push_back(pending);
                None
            }
            None => Some(pending),
        }
    }

    /// Puts the event back in front of the later ones of its user, to be tried at once. Returns it if its user is not
    /// backing off.
    pub(super) fn push_front(&mut self, pending: Pending, now: Nanos) -> Option<Pending> {
        match self.users.get_mut(&pending.event.id) {
            Some(user) => {
                user.until = now;
                user.events.push_front(pending);
                None
            }
            None => Some(pending),
        }
    }

    /// Takes the oldest event that may be tried again at `now`, of a partition whose lease is valid. While every
    /// callback fails (`is_suspended`), no event waits for its own time.
    pub(super) fn claim(&mut self, leases: &Leases, now: Nanos, is_suspended: bool) -> Option<Pending> {
        let due = self.users.values_mut().filter(|user| {
            let is_held = user.events.front().is_some_and(|pending| leases.is_valid(pending.partition, now));
            is_held && (is_suspended || user.until <= now)
        });
        let user = due.min_by_key(|user| user.events.front().map(|pending| pending.event.number))?;
        // The user stays here while the event is tried, so that its later events queue up behind it.
        user.until = Nanos::MAX;
        user.events.pop_front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.users.values().flat_map(|user| &user.events)
    }

    /// Ends the user's back-off. Returns the events that waited, in order.
    pub(super) fn end(&mut self, id: &UserId) -> VecDeque<Pending> {
        self.users.remove(id).map(|user| user.events).unwrap_or_default()
    }

    /// Lets all users be tried at once.
    pub(super) fn end_all_waits(&mut self, now: Nanos) {
        self.users.values_mut().filter(|user| user.until != Nanos::MAX).for_each(|user| user.until = now);
    }

    /// Returns how long after `now` the first user may be tried again, 0 if one may be tried now.
    pub(super) fn next(&self, now: Nanos) -> Option<Nanos> {
        self.users.values().map(|user| user.until.saturating_sub(now)).min()
    }

    /// Drops all events of a partition.
    pub(super) fn drop_partition(&mut self, partition: Partition) {
        self.users.retain(|_, user| {
            user.events.retain(|pending| pending.partition != partition);
            !user.events.is_empty()
        });
    }
}
