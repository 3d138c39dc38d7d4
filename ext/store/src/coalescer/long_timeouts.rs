//! Timeouts that are longer than 32 bits of ticks last.

use super::*;

const DAY: Nanos = 86_400 * SECOND;

/// Timeouts beyond the 26 and the 52 days after which 32 bits of ticks wrap around.
const LONG_TIMEOUTS: [Nanos; 3] = [40 * DAY, 60 * DAY, 200 * 365 * DAY];

/// Returns a process with one user who has been silent from 0 to `now`, with passes through all users meanwhile.
fn silent_until(now: Nanos, timeout: Nanos) -> Process {
    let process = Process::new();
    process.heartbeat(0, timeout);
    assert_eq!(process.written(0), [0]);
    for pass in 1..20 {
        assert_eq!(process.written(now / 20 * pass), Vec::<Nanos>::new());
    }
    process
}

#[test]
fn a_heartbeat_late_in_a_long_timeout_is_written_at_once() {
    for timeout in LONG_TIMEOUTS {
        for percent in [34, 42, 47, 55, 66, 67, 73, 81, 90, 99] {
            let now = timeout / 100 * percent;
            let process = silent_until(now, timeout);
            assert_eq!(process.heartbeat(now, timeout), Coalesced::WriteDue, "{percent} % of {timeout}");
            assert_eq!(process.written(now), [0], "{percent} % of {timeout}");
        }
    }
}

#[test]
fn an_early_heartbeat_of_a_long_timeout_is_written_after_a_third_of_it() {
    for timeout in LONG_TIMEOUTS {
        let process = silent_until(DAY, timeout);
        assert_eq!(process.heartbeat(DAY, timeout), Coalesced::Known);
        assert_eq!(process.written(timeout / 3 - DAY), Vec::<Nanos>::new());
        let ages = process.written(timeout / 3 + TICK);
        assert!(ages.len() == 1 && ages[0].abs_diff(timeout / 3 - DAY) <= 2 * TICK, "{ages:?}");
    }
}

#[test]
fn a_user_with_a_long_timeout_is_kept_as_long_and_no_longer() {
    for timeout in LONG_TIMEOUTS {
        for percent in [34, 42, 47, 55, 66, 67, 73, 81, 90, 99, 100] {
            let now = timeout / 100 * percent;
            let process = silent_until(now, timeout);
            assert_eq!(process.coalescer.last_seen(string("ada"), now), Some(0), "{percent} % of {timeout}");
            process.coalescer.resend(now, |_| Some(now), false, &process.outbox);
            assert_eq!(process.written(now), [now], "{percent} % of {timeout}");
        }
        for after in [2 * TICK, DAY, 3 * DAY, 15 * DAY, 50 * DAY] {
            let process = silent_until(timeout, timeout);
            assert_eq!(process.coalescer.last_seen(string("ada"), timeout + after), None, "{after} after {timeout}");
            assert_eq!(process.written(timeout + after), Vec::<Nanos>::new());
            assert_eq!(process.heartbeat(timeout + after, timeout), Coalesced::Unknown, "{after} after {timeout}");
        }
    }
}
