//! How often the store is called, for an operator.

use online_manager_tracker::Nanos;

use super::SECOND;

/// The rate of calls to the store in an interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CallRate {
    /// When the present interval began, in nanoseconds, and the number of calls by then.
    since: Nanos,
    calls: u64,
    /// The calls per second in the interval before.
    per_second: f64,
}

impl CallRate {
    pub(super) fn new(now: Nanos) -> CallRate {
        CallRate { since: now, ..CallRate::default() }
    }

    /// Returns the rate; begins a new interval if the present one has lasted for a second.
    pub(super) fn update(&mut self, now: Nanos, calls: u64) -> f64 {
        let length = now.saturating_sub(self.since);
        if length >= SECOND {
            let per_second = calls.saturating_sub(self.calls) as f64 * SECOND as f64 / length as f64;
            *self = CallRate { since: now, calls, per_second };
        }
        self.per_second
    }
}
