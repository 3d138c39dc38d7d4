//! Whose deadline is put off when what reads the heartbeats stood still.

use online_manager_tracker::Stall;

use super::*;

/// Returns the timeouts that are written, after a stall.
fn prolonged(process: &Process, (start, end): (Nanos, Nanos), is_lasting: bool) -> Vec<Nanos> {
    process.coalescer.prolong(Stall { start, end }, is_lasting, &process.outbox);
    let writes = process.outbox.lock().take_batch(10).writes(end, 0);
    writes
        .into_iter()
        .map(|write| match write {
            Write::Heartbeat(Heartbeat { timeout, .. }) => timeout,
            Write::Leave(_) => panic!("nobody left"),
        })
        .collect()
}

#[test]
fn a_user_who_was_due_in_a_stall_is_written_again_with_a_later_deadline() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    assert_eq!(prolonged(&process, (SECOND, 2 * SECOND), false), Vec::<Nanos>::new(), "not due for another second");
    assert_eq!(prolonged(&process, (SECOND, 4 * SECOND), false), [7 * SECOND], "for the three seconds of the stall");
    process.written(6 * SECOND);
    assert_eq!(prolonged(&process, (SECOND, 6 * SECOND), false), [9 * SECOND], "is not forgotten meanwhile");
    assert_eq!(prolonged(&process, (SECOND, 6 * SECOND), false), Vec::<Nanos>::new(), "is written already");
    for is_lasting in [false, true] {
        let later = prolonged(&process, (4 * SECOND, 10 * SECOND), is_lasting);
        assert_eq!(later, Vec::<Nanos>::new(), "was due before the stall");
    }
}

#[test]
fn a_user_whose_deadline_was_put_off_is_written_again_after_a_loss_until_that_is_over() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    assert_eq!(prolonged(&process, (SECOND, 4 * SECOND), false), [7 * SECOND]);
    let resent = |settled_at: Nanos| {
        process.coalescer.resend(8 * SECOND, |_| Some(settled_at), true, &process.outbox);
        process.outbox.lock().take_batch(10).writes(8 * SECOND, 0).len()
    };
    assert_eq!(resent(6 * SECOND), 1, "the offline may be lost with the data");
    assert_eq!(resent(7 * SECOND), 0);
}

#[test]
fn while_a_stall_lasts_a_user_is_not_written_again_before_the_deadline_has_to_be_later() {
    let process = Process::new();
    process.heartbeat(0, 2 * SECOND);
    process.written(0);
    let ends = (20..200).map(|tenths| tenths * SECOND / 10);
    let writes = ends.filter(|end| !prolonged(&process, (SECOND, *end), true).is_empty()).count();
    assert!(writes <= 16, "{writes} writes in 18 seconds");
}

#[test]
fn a_user_who_left_is_not_written_again_after_a_stall() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.leave("ada", SECOND, 0);
    process.outbox.lock().take_batch(10);
    assert_eq!(prolonged(&process, (2 * SECOND, 9 * SECOND), false), Vec::<Nanos>::new());
}
