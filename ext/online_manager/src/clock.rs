//! The coarse monotonic clock. Reading it costs a fraction of what the exact one costs, and each heartbeat reads it.

use online_manager_tracker::{Clock, Nanos};

/// Linux has a monotonic clock that advances with the timer tick, mostly every 4 ms. Other systems have only the exact
/// one.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK_ID: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK_ID: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Nanoseconds by which a timer tick may come late: 1 ms. Measured on a busy virtual machine: well under 0.1 ms.
const LATE_TICK: Nanos = 1_000_000;

/// The clock of heartbeats and expiry. Returns nanoseconds since boot.
pub(crate) struct CoarseClock;

impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> Nanos {
        #[cfg(feature = "faults")]
        crate::faults::strike();
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a local timespec, which the call fills.
        unsafe { libc::clock_gettime(CLOCK_ID, &mut time) };
        nanos(time)
    }

    fn jitter(&self) -> Nanos {
        let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: as above.
        unsafe { libc::clock_getres(CLOCK_ID, &mut resolution) };
        nanos(resolution).saturating_add(LATE_TICK)
    }
}

fn nanos(time: libc::timespec) -> Nanos {
    // A monotonic clock counts from boot, so neither part is negative. A u64 holds 584 years.
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}
