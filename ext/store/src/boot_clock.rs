//! The machine's monotonic clock, which all processes of one boot share, and the id of the boot.
#![allow(unsafe_code, reason = "the operating system's clock")]

use online_manager_tracker::Nanos;

/// The clock of heartbeats in all processes, and of the SQLite file: a heartbeat in one process and a leave in another
/// can be ordered. The coarse one has a resolution of a few milliseconds and costs no system call.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SOURCE: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SOURCE: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Returns nanoseconds since an unspecified moment of this boot. Steps of the wall clock do not change it.
pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local timespec, which the call fills.
    unsafe { libc::clock_gettime(SOURCE, &mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// Returns microseconds since 1970 by the wall clock, or 0 before 1970.
pub fn wall_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Returns an id that differs between two boots of a machine and between two machines, or "" if the system has none.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns an id that differs between two boots of a machine and between two machines, or "" if the system has none.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn boot_id() -> String {
    let output = std::process::Command::new("sysctl").args(["-n", "kern.bootsessionuuid"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
