//! What this process knows to be delivered of a partition, for a store whose data went back.

use std::collections::{BTreeSet, HashMap};

use crate::store::Partition;

/// Every event up to `through` is delivered, by this process or by another one, except the `open` ones and those in memory.
///
/// That stays true when the lease is lost, since the next lease holder gets every event that this one did not commit.
#[derive(Debug, Default)]
struct Handled {
    /// Of which data: see [`Known::epoch`](crate::store::Known::epoch).
    epoch: u64,
    through: u64,
    /// The numbers of events that were in memory when the lease was lost, and have not been fetched or delivered since.
    open: BTreeSet<u64>,
}

/// The same of all partitions.
#[derive(Debug, Default)]
pub(super) struct HandledPartitions(HashMap<Partition, Handled>);

impl HandledPartitions {
    /// The store says that every event up to a number is delivered. Nothing of other data counts any more: after a clock was
    /// set back, these may give out the same numbers again.
    pub(super) fn polled(&mut self, partition: Partition, epoch: u64, delivered_through: u64) {
        let handled = self.0.entry(partition).or_default();
        if handled.epoch != epoch {
            *handled = Handled { epoch, ..Handled::default() };
        }
        handled.open = handled.open.split_off(&delivered_through.saturating_add(1));
        handled.through = handled.through.max(delivered_through);
    }

    /// Events with these numbers were fetched, in order.
    pub(super) fn fetched(&mut self, partition: Partition, numbers: impl Iterator<Item = u64>) {
        let handled = self.0.entry(partition).or_default();
        for number in numbers {
            // What the store no longer has up to here is delivered.
            handled.open = handled.open.split_off(&(number + 1));
            handled.through = handled.through.max(number);
        }
    }

    /// The lease is lost, with these events in memory.
    pub(super) fn lost(&mut self, partition: Partition, numbers: impl Iterator<Item = u64>) {
        let handled = self.0.entry(partition).or_default();
        handled.open.extend(numbers);
    }

    /// The callback of an event has returned after the lease was lost.
    pub(super) fn delivered(&mut self, partition: Partition, number: u64) {
        if let Some(handled) = self.0.get_mut(&partition) {
            handled.open.remove(&number);
        }
    }

    /// Returns the epoch, the number up to which everything is delivered, and the exceptions that are not in memory.
    pub(super) fn get(&self, partition: Partition) -> Option<(u64, u64, Vec<u64>)> {
        let handled = self.0.get(&partition).filter(|handled| handled.through > 0)?;
        Some((handled.epoch, handled.through, handled.open.iter().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_in_memory_when_the_lease_was_lost_is_open_until_it_is_fetched_again() {
        let mut partitions = HandledPartitions::default();
        partitions.polled(3, 7, 4);
        partitions.lost(3, [5, 6, 8].into_iter());
        assert_eq!(partitions.get(3), Some((7, 4, vec![5, 6, 8])));
        // The store no longer has 5.
        partitions.fetched(3, [6].into_iter());
        assert_eq!(partitions.get(3), Some((7, 6, vec![8])));
    }

    #[test]
    fn nothing_is_said_of_a_partition_in_which_nothing_is_known_to_be_delivered() {
        let mut partitions = HandledPartitions::default();
        assert_eq!(partitions.get(3), None);
        partitions.polled(3, 7, 0);
        assert_eq!(partitions.get(3), None);
    }
}
