//! The suspension of delivery while every callback fails, because the application's database is down for example.
//!
//! Perhaps only the callbacks of some users fail, and the events of others wait behind theirs. So one event that was not
//! tried yet is tried each second; one that has failed is tried after 1, 2, 4 … 60 s. The two do not wait for each other.

use online_manager_tracker::Nanos;

use super::back_off::{SECOND, backoff_after};

/// How many failures in a row, of any users, suspend delivery. Fewer could be one user's: an event fails five times.
const OUTAGE_THRESHOLD: u32 = 5;

/// What a call that failed tells of the other callbacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// Whether its events were tried for the first time.
    pub(super) is_first: bool,
    /// Whether its events have failed before while others succeeded: then it says nothing of the others.
    pub(super) is_own: bool,
}

/// When an event may be tried while delivery is suspended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// One that was not tried yet.
    pub(super) new: Nanos,
    /// One that has failed.
    pub(super) failed: Nanos,
}

/// Whether delivery is suspended because every callback fails.
#[derive(Debug, Default)]
pub(super) struct Suspension {
    failures_in_a_row: u32,
    /// `None` if delivery is not suspended.
    times: Option<Times>,
    /// How often an event that has failed before has failed again.
    count: u32,
}

impl Suspension {
    /// Returns when an event may be tried; `None` if delivery is not suspended.
    pub(super) fn times(&self) -> Option<Times> {
        self.times
    }

    /// Notes a success. Returns whether that has ended a suspension.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).times.is_some()
    }

    /// Notes a failure. Suspends delivery if too many came in a row.
    pub(super) fn failed(&mut self, now: Nanos, failure: Failure) {
        let next_new = now.saturating_add(SECOND);
        let next_failed = |count| now.saturating_add(backoff_after(count));
        match &mut self.times {
            Some(times) if failure.is_first => times.new = next_new,
            Some(times) => {
                self.count += 1;
                times.failed = next_failed(self.count);
            }
            None if failure.is_own => {}
            None => {
                self.failures_in_a_row += 1;
                if self.failures_in_a_row >= OUTAGE_THRESHOLD {
                    self.count = 1;
                    self.times = Some(Times { new: next_new, failed: next_failed(1) });
                }
            }
        }
    }
}
