//! Time: nanoseconds on a monotonic clock whose zero does not matter, and the ticks that deadlines are kept in.

/// Nanoseconds, as a duration or as a moment of a [`Clock`].
pub type Nanos = u64;

/// The length of a tick in nanoseconds: 1.05 ms, a power of two so that a division is a shift.
///
/// Deadlines are rounded up to ticks, so a tick is what rounding may add to a timeout.
pub const TICK: Nanos = 1 << TICK_BITS;

const TICK_BITS: u32 = 20;

/// The tick that `moment` falls into.
#[inline]
pub(crate) fn tick_of(moment: Nanos) -> u64 {
    moment >> TICK_BITS
}

/// The first tick that begins at `moment` or later: rounding up is what keeps a user from leaving early.
#[inline]
pub(crate) fn tick_from(moment: Nanos) -> u64 {
    tick_of(moment.saturating_add(TICK - 1))
}

/// The moment at which `tick` begins; saturates.
#[inline]
pub(crate) fn start_of(tick: u64) -> Nanos {
    tick.saturating_mul(TICK)
}

/// A monotonic clock. HeartbeatBatch and expiry must be told the time by the same one: a clock that
/// lags behind true time by a constant is as good as an exact one, two clocks that lag differently are not.
pub trait Clock: Send + Sync + 'static {
    /// The present moment, never less than at an earlier call.
    fn now(&self) -> Nanos;

    /// By how much the lag of this clock may differ between two readings. It is added to every
    /// deadline, so that a user whose heartbeat was dated back by it does not leave early.
    fn jitter(&self) -> Nanos;
}
