//! Users whose callback failed: how long each waits, and the events that wait with it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::quality::RandomState;
use online_manager_tracker::Nanos;

use super::leases::Leases;
use super::queue::Pending;
use crate::id::UserId;
use crate::store::Partition;

pub(super) const SECOND: Nanos = 1_000_000_000;
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
    partition: Partition,
    /// When the first event is tried again; `None` while it is being tried.
    until: Option<Nanos>,
    /// The event that failed and all later ones of the user, in order. While the first is being tried, only the later
    /// ones.
    events: VecDeque<Pending>,
}

impl BackingOff {
    /// Returns the partition and the place in its line, unless the first event is being tried.
    fn place(&self) -> Option<(Partition, Place)> {
        Some((self.partition, (self.until?, self.events.front()?.event.number)))
    }
}

/// When a user's first event is tried again, and its number.
type Place = (Nanos, u64);

/// All users who are backing off.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    users: HashMap<UserId, BackingOff, RandomState>,
    /// By partition, those whose event is not being tried, in the order in which they are tried again. Thousands of users may
    /// be backing off, so none of them is searched for.
    lines: BTreeMap<Partition, BTreeMap<Place, UserId>>,
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

    /// Makes the event and the `later` ones of its user wait, for a time that depends on how often the event was tried.
    pub(super) fn start(&mut self, pending: Pending, later: VecDeque<Pending>, now: Nanos) {
        let until = now.saturating_add(backoff_after(pending.tries));
        let (id, partition) = (pending.event.id.clone(), pending.partition);
        self.leave_line(&id);
        let user =
            self.users.entry(id).or_insert_with(|| BackingOff { partition, until: None, events: VecDeque::new() });
        user.until = Some(until);
        user.events.push_front(pending);
        user.events.extend(later);
        join_line(&mut self.lines, user);
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
        self.leave_line(&pending.event.id);
        match self.users.get_mut(&pending.event.id) {
            Some(user) => {
                user.until = Some(now);
                user.events.push_front(pending);
                join_line(&mut self.lines, user);
                None
            }
            None => Some(pending),
        }
    }

    /// Takes the event that has been due for the longest time at `now`, of a partition whose lease is valid. While delivery
    /// is suspended, no event waits for its own time.
    pub(super) fn claim(&mut self, leases: &Leases, now: Nanos, is_suspended: bool) -> Option<Pending> {
        let lines = self.lines.iter_mut().filter(|(partition, _)| leases.is_valid(**partition, now));
        let first = lines.filter_map(|(_, line)| line.first_entry()).min_by_key(|first| *first.key())?;
        let (until, _) = *first.key();
        if until > now && !is_suspended {
            return None;
        }
        // The user stays here while the event is tried, so that its later events queue up behind it.
        let user = self.users.get_mut(&first.remove())?;
        user.until = None;
        user.events.pop_front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.users.values().flat_map(|user| &user.events)
    }

    /// Ends the user's back-off. Returns the events that waited, in order.
    pub(super) fn end(&mut self, id: &UserId) -> VecDeque<Pending> {
        self.leave_line(id);
        self.users.remove(id).map(|user| user.events).unwrap_or_default()
    }

    /// Lets all users be tried at once.
    pub(super) fn end_all_waits(&mut self, now: Nanos) {
        self.lines.clear();
        for user in self.users.values_mut().filter(|user| user.until.is_some()) {
            user.until = Some(now);
            join_line(&mut self.lines, user);
        }
    }

    /// Returns how long after `now` the first user may be tried again, 0 if one may be tried now; `None` if none waits whose
    /// partition's lease is valid.
    pub(super) fn next(&self, leases: &Leases, now: Nanos) -> Option<Nanos> {
        let lines = self.lines.iter().filter(|(partition, _)| leases.is_valid(**partition, now));
        let first = lines.filter_map(|(_, line)| line.first_key_value()).map(|((until, _), _)| *until).min();
        first.map(|until| until.saturating_sub(now))
    }

    /// Drops all users of a partition, with their events.
    pub(super) fn drop_partition(&mut self, partition: Partition) {
        self.lines.remove(&partition);
        self.users.retain(|_, user| user.partition != partition);
    }

    /// Takes the user out of the line of its partition.
    fn leave_line(&mut self, id: &UserId) {
        let Some((partition, place)) = self.users.get(id).and_then(BackingOff::place) else { return };
        if let Some(line) = self.lines.get_mut(&partition) {
            line.remove(&place);
        }
    }
}

/// Puts a user into the line of its partition.
fn join_line(lines: &mut BTreeMap<Partition, BTreeMap<Place, UserId>>, user: &BackingOff) {
    if let (Some((partition, place)), Some(first)) = (user.place(), user.events.front()) {
        lines.entry(partition).or_default().insert(place, first.event.id.clone());
    }
}
