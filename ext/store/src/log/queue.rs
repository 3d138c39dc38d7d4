//! Events that no failure holds up, in the order in which they were fetched.

use std::collections::VecDeque;

use online_manager_tracker::Nanos;

use super::leases::Leases;
use crate::id::UserId;
use crate::store::{Event, Partition};

/// An event that was fetched, and what is known of its failures.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) partition: Partition,
    pub(super) event: Event,
    /// When the event was fetched.
    pub(super) read_at: Nanos,
    /// How often this process has tried the event.
    pub(super) tries: u32,
    /// How many deliveries had succeeded when the event was tried last.
    pub(super) successes: u64,
    /// Whether the event has failed here before any callback succeeded: the failure does not count yet.
    pub(super) is_uncounted: bool,
}

impl Pending {
    /// Returns the event with its lateness, and the age of the last heartbeat, as of `now`.
    pub(super) fn as_of(&self, now: Nanos) -> Event {
        let since = now.saturating_sub(self.read_at);
        let (lateness, seen_ago) =
            (self.event.lateness.saturating_add(since), self.event.seen_ago.saturating_add(since));
        Event { lateness, seen_ago, ..self.event.clone() }
    }
}

/// The events that can be claimed as soon as the lease of their partition is valid.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue(VecDeque<Pending>);

impl ReadyQueue {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.0.iter()
    }

    pub(super) fn push_back(&mut self, pending: Pending) {
        self.0.push_back(pending);
    }

    pub(super) fn push_front(&mut self, pending: Pending) {
        self.0.push_front(pending);
    }

    /// Returns the first event whose partition's lease is valid at `now`.
    pub(super) fn first(&self, leases: &Leases, now: Nanos) -> Option<&Pending> {
        self.0.iter().find(|pending| leases.is_valid(pending.partition, now))
    }

    /// Takes the event that [`ReadyQueue::first`] returns.
    pub(super) fn pop_first(&mut self, leases: &Leases, now: Nanos) -> Option<Pending> {
        let place = self.0.iter().position(|pending| leases.is_valid(pending.partition, now))?;
        self.0.remove(place)
    }

    /// Takes all events of a user, in order.
    pub(super) fn take_user(&mut self, id: &UserId) -> VecDeque<Pending> {
        let (taken, others) = std::mem::take(&mut self.0).into_iter().partition(|pending| pending.event.id == *id);
        self.0 = others;
        taken
    }

    /// Drops all events of a partition.
    pub(super) fn drop_partition(&mut self, partition: Partition) {
        self.0.retain(|pending| pending.partition != partition);
    }
}
