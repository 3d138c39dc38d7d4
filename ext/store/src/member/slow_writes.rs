//! By how much a store may date heartbeats later than this process does: it subtracts a heartbeat's age from its own clock when
//! the call arrives.

use std::collections::VecDeque;

use online_manager_tracker::{Nanos, TICK};

/// The writes whose users may not have gone yet: how long each took, and until when its users are due in the store at the
/// latest. The slowest comes first, and each is slower than all later ones.
#[derive(Debug, Default)]
pub(super) struct SlowWrites(VecDeque<(Nanos, Nanos)>);

impl SlowWrites {
    pub(super) fn add(&mut self, took: Nanos, mut due: Nanos) {
        // In ticks, so that there are few.
        let took = took.div_ceil(TICK) * TICK;
        while let Some((_, due_before)) = self.0.back().copied().filter(|(before, _)| *before <= took) {
            due = due.max(due_before);
            self.0.pop_back();
        }
        self.0.push_back((took, due));
    }

    /// Forgets the writes whose users had all gone by `settled_at`.
    pub(super) fn forget(&mut self, settled_at: Nanos) {
        while self.0.front().is_some_and(|(_, due)| *due < settled_at) {
            self.0.pop_front();
        }
    }

    /// Returns how long the slowest write took.
    pub(super) fn longest(&self) -> Nanos {
        self.0.front().map_or(0, |(took, _)| *took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_write_counts_until_its_users_have_gone() {
        let mut writes = SlowWrites::default();
        assert_eq!(writes.longest(), 0);
        writes.add(5 * TICK, 100);
        writes.add(8 * TICK - 1, 90);
        writes.add(3 * TICK, 200);
        writes.add(3 * TICK, 150);
        assert_eq!(writes.0, [(8 * TICK, 100), (3 * TICK, 200)]);
        writes.forget(100);
        assert_eq!(writes.longest(), 8 * TICK);
        writes.forget(101);
        assert_eq!(writes.longest(), 3 * TICK);
        writes.forget(201);
        assert_eq!(writes.longest(), 0);
    }
}
