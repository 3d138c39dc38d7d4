//! The suspension of delivery while every callback fails, because the application's database is down for example.

use online_manager_tracker::Nanos;

use super::back_off::backoff_after;

/// How many failures in a row, of any users, suspend delivery. Fewer could be one user's: an event fails five times.
const OUTAGE_THRESHOLD: u32 = 5;

/// Whether delivery is suspended because every callback fails.
#[derive(Debug, Default)]
pub(super) struct Suspension {
    failures_in_a_row: u32,
    /// When the next event is tried; `None` if delivery is not suspended.
    until: Option<Nanos>,
    /// How often delivery was suspended in a row.
    count: u32,
}

impl Suspension {
    pub(super) fn is_active(&self) -> bool {
        self.until.is_some()
    }

    /// Returns how long after `now` an event may be tried; `None` if delivery is not suspended.
    pub(super) fn remaining(&self, now: Nanos) -> Option<Nanos> {
        self.until.map(|until| until.saturating_sub(now))
    }

    /// Notes a success. Returns whether that has ended a suspension.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).is_active()
    }

    /// Notes a failure. Suspends delivery if too many came in a row, and for longer if it is suspended.
    pub(super) fn failed(&mut self, now: Nanos) {
        self.failures_in_a_row += 1;
        if self.is_active() || self.failures_in_a_row >= OUTAGE_THRESHOLD {
            self.count += 1;
            self.until = Some(now.saturating_add(backoff_after(self.count)));
        }
    }
}
