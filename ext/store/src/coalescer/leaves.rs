//! Leaves, and heartbeats that follow one at once.

use super::*;

#[test]
fn a_leave_is_recent_for_less_than_the_margin() {
    assert_eq!([RETURN_MARGIN - 1, RETURN_MARGIN].map(|now| is_recent(0, now)), [true, false]);
}

#[test]
fn a_heartbeat_that_undoes_a_leave_in_this_process_is_dated_forward() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.leave("ada", SECOND, 0);
    process.outbox.lock().take_batch(10);
    assert_eq!(process.heartbeat(SECOND, 3 * SECOND), Coalesced::WriteDue);
    // A shorter timeout at the same time is written all the same.
    process.heartbeat(SECOND, TICK);
    let writes = process.outbox.lock().take_batch(10).writes(SECOND + SECOND / 50, 0);
    let [Write::Heartbeat(Heartbeat { age, timeout, .. })] = writes[..] else { panic!("{writes:?}") };
    assert_eq!((age, timeout), (SECOND / 100, TICK));
    process.heartbeat(SECOND + SECOND / 10, TICK);
    assert_eq!(process.written(SECOND + SECOND / 10), [0], "only that one");
}

#[test]
fn a_heartbeat_after_a_leave_that_this_process_sent_or_heard_of_is_dated_forward_for_known_and_unknown_users() {
    let step = 4_000_000;
    let of_unknown = |leave: fn(&Process)| {
        let process = Process::new();
        leave(&process);
        process.outbox.lock().take_batch(10);
        process.heartbeat(SECOND, 3 * SECOND);
        process.written(SECOND + 3 * step)
    };
    assert_eq!(of_unknown(|process| process.leave("ada", SECOND, 0)), [3 * step - SECOND / 100], "sent");
    let hear = |process: &Process| process.coalescer.mark_left(&user_id("ada"), SECOND, &process.outbox);
    assert_eq!(of_unknown(hear), [3 * step - SECOND / 100], "heard of");
    assert_eq!(of_unknown(|_| {}), [3 * step], "nobody left");

    let process = Process::new();
    process.heartbeat(0, SECOND / 2);
    process.written(0);
    process.coalescer.mark_left(&user_id("ada"), SECOND, &process.outbox);
    // A pass forgets who has expired, but not at once who has left.
    assert_eq!(process.written(SECOND), Vec::<Nanos>::new());
    process.heartbeat(SECOND, 3 * SECOND);
    assert_eq!(process.written(SECOND + 3 * step), [3 * step - SECOND / 100], "heard of, of a user who had expired");
}

#[test]
fn a_leave_of_an_unknown_user_is_remembered_for_a_moment() {
    let process = Process::new();
    process.leave("ada", SECOND, 0);
    process.outbox.lock().take_batch(10);
    assert_eq!(process.coalescer.recently_left.lock().len(), 1);
    process.written(2 * SECOND);
    assert_eq!(process.coalescer.recently_left.lock().len(), 0);
}

#[test]
fn of_several_leaves_in_this_process_the_soonest_deadline_is_written_again() {
    let process = Process::new();
    process.heartbeat(0, 30 * SECOND);
    process.written(0);
    process.leave("ada", SECOND, 2 * SECOND);
    process.leave("ada", 2 * SECOND, 9 * SECOND);
    process.outbox.lock().take_batch(10);
    process.coalescer.resend(4 * SECOND, |_| Some(0), true, &process.outbox);
    let writes = process.outbox.lock().take_batch(10).writes(4 * SECOND, 0);
    let Some(Write::Leave(leave)) = writes.first() else { panic!("no leave: {writes:?}") };
    assert_eq!((leave.age, leave.after), (2 * SECOND, SECOND), "the later leave, and the deadline of the earlier one");
    process.heartbeat(5 * SECOND, 30 * SECOND);
    assert_eq!(process.written(5 * SECOND), [0], "no leave: the heartbeat has undone both");
}

/// The store knows of a leave that this process has heard of, unless it has lost data.
#[test]
fn who_has_left_elsewhere_is_written_again_only_if_data_were_lost() {
    let process = Process::new();
    process.heartbeat(0, 30 * SECOND);
    process.written(0);
    process.coalescer.mark_left(&user_id("ada"), SECOND, &process.outbox);
    process.coalescer.resend(2 * SECOND, |_| Some(0), false, &process.outbox);
    assert_eq!(process.written(2 * SECOND), Vec::<Nanos>::new());
    process.coalescer.resend(2 * SECOND, |_| Some(0), true, &process.outbox);
    assert_eq!(process.written(2 * SECOND), [2 * SECOND]);
    process.heartbeat(3 * SECOND, 30 * SECOND);
    process.written(3 * SECOND);
    process.coalescer.resend(4 * SECOND, |_| Some(0), false, &process.outbox);
    assert_eq!(process.written(4 * SECOND).len(), 1, "back since");
}

/// The heartbeat may have arrived, and may seem later than the leave when it is written again.
#[test]
fn a_leave_that_is_written_again_goes_before_its_heartbeat() {
    let process = Process::new();
    process.heartbeat(0, 30 * SECOND);
    process.leave("ada", SECOND, 0);
    let is_leave = |writes: Vec<Write>| writes.iter().map(|write| matches!(write, Write::Leave(_))).collect::<Vec<_>>();
    let written = || is_leave(process.outbox.lock().take_batch(10).writes(2 * SECOND, 0));
    assert_eq!(written(), [false, true]);
    process.leave("ada", 2 * SECOND, 0);
    assert_eq!(written(), [true, false], "the heartbeat has been sent before");
    process.heartbeat(3 * SECOND, 30 * SECOND);
    process.leave("ada", 3 * SECOND, 0);
    assert_eq!(written(), [false, true], "it has not");
    process.coalescer.resend(2 * SECOND, |_| Some(0), false, &process.outbox);
    assert_eq!(written(), [true, false]);
}
