//! The boot_clock's monotonic clock, which all processes of one boot share, and which boot that is.
#![allow(unsafe_code, reason = "the operating system's clock")]

use online_manager_tracker::Nanos;

/// The clock that heartbeats are dated by, in all processes: so that of a beat in one and a leave in another the later one
/// is known, the file goes by the same.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SOURCE: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SOURCE: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Nanoseconds since some moment of this boot. No step of the wall clock moves it.
pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own, which the call fills.
    unsafe { libc::clock_gettime(SOURCE, &mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// Microseconds since 1970, as the boot_clock believes.
pub fn wall_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What differs between two boots of a boot_clock, and between two machines.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What differs between two boots of a boot_clock, and between two machines.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn boot_id() -> String {
    let output = std::process::Command::new("sysctl").args(["-n", "kern.bootsessionuuid"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
