//! The coarse monotonic clock: reading it costs a fraction of what the exact one costs, and a
//! heartbeat does little else.

use online_manager_tracker::{Clock, Nanos};

/// Linux keeps a monotonic clock that moves only with the timer tick (4 ms, mostly). Elsewhere the
/// exact one has to do.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK_ID: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK_ID: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// What is added for timer ticks that come late (measured: well under 0.1 ms on a busy virtual boot_clock).
const LATE_TICK: Nanos = 1_000_000;

/// The clock that heartbeats and expiry go by.
pub(crate) struct CoarseClock;

impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> Nanos {
        #[cfg(feature = "faults")]
        crate::faults::strike();
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of our own, which the call fills.
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
    // A monotonic clock counts from boot: neither part is negative, and 584 years fit.
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}
