//! The leases that this process holds, as far as it knows.

use std::collections::HashMap;

use online_manager_tracker::Nanos;

use crate::store::Partition;

/// A lease that this process holds.
#[derive(Debug, Default)]
struct Lease {
    /// When the lease ends, unless it is renewed. No event is claimed from then on: another member may hold the lease.
    until: Nanos,
    /// The number of the last event that was fetched from the partition's log.
    last_fetched: u64,
    /// Whether the lease is about to be released: no further event is delivered.
    is_releasing: bool,
}

/// The leases by partition.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<Partition, Lease>);

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns how many leases have not run out at `now`.
    pub(super) fn count_unexpired(&self, now: Nanos) -> usize {
        self.0.values().filter(|lease| lease.until > now).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that the lease was acquired, or renewed, and when it ends.
    pub(super) fn set(&mut self, partition: Partition, until: Nanos) {
        self.0.entry(partition).or_default().until = until;
    }

    pub(super) fn set_releasing(&mut self, partition: Partition, is_releasing: bool) {
        if let Some(lease) = self.0.get_mut(&partition) {
            lease.is_releasing = is_releasing;
        }
    }

    pub(super) fn remove(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// Whether the lease has not been lost or released. It may have run out: see [`Leases::is_valid`].
    pub(super) fn is_held(&self, partition: Partition) -> bool {
        self.0.contains_key(&partition)
    }

    /// Whether the lease is held and has not run out at `now`.
    pub(super) fn is_valid(&self, partition: Partition, now: Nanos) -> bool {
        self.0.get(&partition).is_some_and(|lease| lease.until > now && !lease.is_releasing)
    }

    /// Returns when the lease ends unless it is renewed; 0 if it is not held.
    pub(super) fn until(&self, partition: Partition) -> Nanos {
        self.0.get(&partition).map_or(0, |lease| lease.until)
    }

    /// Returns the number of the last event that was fetched from the partition's log, or 0.
    pub(super) fn last_fetched(&self, partition: Partition) -> u64 {
        self.0.get(&partition).map_or(0, |lease| lease.last_fetched)
    }

    /// Notes the number of the last event that was fetched, if the lease is held.
    pub(super) fn set_last_fetched(&mut self, partition: Partition, number: u64) {
        if let Some(lease) = self.0.get_mut(&partition) {
            lease.last_fetched = number;
        }
    }
}
