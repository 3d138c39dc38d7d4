//! What this process knows to be delivered of a partition, for a store whose data went back.

use std::collections::{BTreeSet, HashMap};

use crate::store::Partition;

/// Every event up to `through` is delivered, by this process or by another one, except the `open` ones and those in memory.
///
/// That stays true when the lease is lost, since the next lease holder gets every event that this one did not commit.
#[derive(Debug, Default)]
struct Handled {
    through: u64,
    /// The numbers of events that were in memory when the lease was lost, and have not been fetched since.
    open: BTreeSet<u64>,
}

/// The same of all partitions.
#[derive(Debug, Default)]
pub(super) struct HandledPartitions(HashMap<Partition, Handled>);

impl HandledPartitions {
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

    /// Returns the number up to which everything is delivered, and the exceptions that are not in memory.
    pub(super) fn get(&self, partition: Partition) -> Option<(u64, Vec<u64>)> {
        let handled = self.0.get(&partition).filter(|handled| handled.through > 0)?;
        Some((handled.through, handled.open.iter().copied().collect()))
    }
}
