//! Time: nanoseconds on a monotonic clock with any zero, and the ticks that deadlines are counted in.

/// Nanoseconds: a duration, or a moment on a [`Clock`].
pub type Nanos = u64;

/// The length of a tick in nanoseconds: 1.05 ms. A power of two, so that a division is a shift.
///
/// Deadlines are rounded up to ticks: rounding adds less than a tick to a timeout.
pub const TICK: Nanos = 1 << TICK_BITS;

const TICK_BITS: u32 = 20;

/// Returns the tick that contains `moment`.
#[inline]
pub(crate) fn tick_of(moment: Nanos) -> u64 {
    moment >> TICK_BITS
}

/// Returns the first tick that begins at `moment` or later. Rounding down would set a user offline early.
#[inline]
pub(crate) fn tick_from(moment: Nanos) -> u64 {
    tick_of(moment.saturating_add(TICK - 1))
}

/// Returns the moment at which `tick` begins, saturating.
#[inline]
pub(crate) fn start_of(tick: u64) -> Nanos {
    tick.saturating_mul(TICK)
}

/// A monotonic clock. Heartbeats and expiry must read the same one: a clock with a constant lag is as good as an exact
/// one, but two clocks with different lags expire users early or late.
pub trait Clock: Send + Sync + 'static {
    /// Returns the present moment, never less than an earlier call returned.
    fn now(&self) -> Nanos;

    /// Returns by how many nanoseconds the clock's lag may differ between two readings. It is added to every deadline:
    /// otherwise a heartbeat whose reading lagged by it would expire early.
    fn jitter(&self) -> Nanos;
}
