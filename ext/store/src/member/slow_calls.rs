//! By how much the store's times may be later than this process has them. The store subtracts a heartbeat's age from its own
//! clock when the write arrives, and this process the age of a leave from the time at which it asked.

use std::collections::VecDeque;

use online_manager_tracker::{Nanos, TICK};

/// The writes, and the polls that replied leaves, whose users may not have gone yet: how long each took, and until when its users are due in the store at the
/// latest. The slowest comes first, and each is slower than all later ones.
#[derive(Debug, Default)]
pub(super) struct SlowCalls(VecDeque<(Nanos, Nanos)>);

impl SlowCalls {
    pub(super) fn add(&mut self, took: Nanos, mut due: Nanos) {
        // In ticks, so that there are few.
        let took = took.div_ceil(TICK) * TICK;
        while let Some((_, due_before)) = self.0.back().copied().filter(|(before, _)| *before <= took) {
            due = due.max(due_before);
            self.0.pop_back();
        }
        self.0.push_back((took, due));
    }

    /// Forgets the calls whose users had all gone by `settled_at`.
    pub(super) fn forget(&mut self, settled_at: Nanos) {
        while self.0.front().is_some_and(|(_, due)| *due < settled_at) {
            self.0.pop_front();
        }
    }

    /// Returns how long the slowest call took.
    pub(super) fn longest(&self) -> Nanos {
        self.0.front().map_or(0, |(took, _)| *took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_call_counts_until_its_users_have_gone() {
        let mut calls = SlowCalls::default();
        assert_eq!(calls.longest(), 0);
        calls.add(5 * TICK, 100);
        calls.add(8 * TICK - 1, 90);
        calls.add(3 * TICK, 200);
        calls.add(3 * TICK, 150);
        assert_eq!(calls.0, [(8 * TICK, 100), (3 * TICK, 200)]);
        calls.forget(100);
        assert_eq!(calls.longest(), 8 * TICK);
        calls.forget(101);
        assert_eq!(calls.longest(), 3 * TICK);
        calls.forget(201);
        assert_eq!(calls.longest(), 0);
    }
}
