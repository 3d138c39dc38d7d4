//! Leaves, and heartbeats that follow one at once.

use super::entry::is_recent;
use super::*;
use crate::store::{Leave, Purpose};

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
    let hear = |process: &Process| process.hear("ada", SECOND, 0);
    assert_eq!(of_unknown(hear), [3 * step - SECOND / 100], "heard of");
    assert_eq!(of_unknown(|_| {}), [3 * step], "nobody left");

    let process = Process::new();
    process.heartbeat(0, SECOND / 2);
    process.written(0);
    process.hear("ada", SECOND, 0);
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
    assert_eq!(process.coalescer.partings.len(), 1);
    process.written(2 * SECOND);
    assert_eq!(process.coalescer.partings.len(), 0);
}

/// The user's process may not have heard of it when the data are lost.
#[test]
fn a_leave_of_an_unknown_user_is_written_again_for_a_second_and_until_its_event_is_delivered() {
    let resent = |left: (Nanos, Nanos), now: Nanos, settled_at: Nanos| {
        let process = Process::new();
        process.leave("ada", left.0, left.1);
        process.outbox.lock().take_batch(10);
        process.coalescer.scan((now, settled_at), 30 * SECOND, &process.outbox);
        process.coalescer.resend(now, |_| Some(settled_at), true, &process.outbox);
        let writes = process.outbox.lock().take_batch(10).writes(now, 0);
        writes
            .into_iter()
            .map(|write| match write {
                Write::Leave(Leave { age, after, .. }) => (age, after),
                Write::Heartbeat(_) => panic!("nobody sent one"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(resent((SECOND, 0), 2 * SECOND - 1, 2 * SECOND - 1), [(SECOND - 1, 0)]);
    assert_eq!(resent((SECOND, 0), 2 * SECOND, 2 * SECOND), []);
    assert_eq!(resent((SECOND, 5 * SECOND), 6 * SECOND, 6 * SECOND), [(5 * SECOND, 5 * SECOND)]);
    assert_eq!(resent((SECOND, 5 * SECOND), 7 * SECOND, 6 * SECOND + 1), []);
    assert_eq!(resent((SECOND, 0), 60 * SECOND, 0), [(59 * SECOND, 0)], "the store is away");
}

#[test]
fn who_comes_after_a_leave_of_an_unknown_user_has_undone_it() {
    let process = Process::new();
    process.leave("ada", SECOND, 0);
    process.outbox.lock().take_batch(10);
    process.heartbeat(SECOND + TICK, 30 * SECOND);
    process.outbox.lock().take_batch(10);
    process.coalescer.resend(SECOND + TICK, |_| Some(0), true, &process.outbox);
    let writes = process.outbox.lock().take_batch(10).writes(2 * SECOND, 0);
    assert!(matches!(writes[..], [Write::Heartbeat(_)]), "{writes:?}");
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
    process.hear("ada", SECOND, 0);
    process.coalescer.resend(2 * SECOND, |_| Some(0), false, &process.outbox);
    assert_eq!(process.outbox.lock().len(), 0);
    process.coalescer.resend(2 * SECOND, |_| Some(0), true, &process.outbox);
    let writes = process.outbox.lock().take_batch(10).writes(2 * SECOND, 0);
    let [Write::Leave(Leave { age, after: 0, .. }), Write::Heartbeat(heartbeat)] = &writes[..] else {
        panic!("without the leave it would bring its user online: {writes:?}")
    };
    assert_eq!((*age, heartbeat.age, heartbeat.purpose), (SECOND, 2 * SECOND, Purpose::Resend));
    process.coalescer.resend(2 * SECOND, |_| Some(SECOND), true, &process.outbox);
    assert_eq!(process.outbox.lock().len(), 1, "the event may not be delivered");
    process.outbox.lock().take_batch(10);
    process.hear("ada", SECOND, 0);
    process.coalescer.resend(2 * SECOND, |_| Some(SECOND + 1), true, &process.outbox);
    assert_eq!(process.outbox.lock().len(), 0, "it is delivered");
    process.heartbeat(3 * SECOND, 30 * SECOND);
    process.written(3 * SECOND);
    process.coalescer.resend(4 * SECOND, |_| Some(0), false, &process.outbox);
    assert_eq!(process.written(4 * SECOND).len(), 1, "back since");
}

/// Such a leave is due later, or came before the last heartbeat here, or after a leave that this process has sent.
#[test]
fn a_leave_elsewhere_is_kept_as_it_was_and_of_it_and_one_of_this_process_the_soonest_deadline_counts() {
    let resent = |process: &Process| {
        process.coalescer.resend(4 * SECOND, |_| Some(0), true, &process.outbox);
        let writes = process.outbox.lock().take_batch(10).writes(4 * SECOND, 0);
        writes.into_iter().find_map(|write| match write {
            Write::Leave(leave) => Some((leave.age, leave.after)),
            Write::Heartbeat(_) => None,
        })
    };
    let process = Process::new();
    process.heartbeat(2 * SECOND, 30 * SECOND);
    process.hear("ada", 3 * SECOND, 9 * SECOND);
    assert_eq!(resent(&process), Some((SECOND, 9 * SECOND)));
    process.heartbeat(4 * SECOND, 30 * SECOND);
    process.hear_of(&user_id("ada"), 4 * SECOND, Some((3 * SECOND, 0)), 0);
    assert_eq!(resent(&process), None, "the heartbeat that waits has undone it");
    process.hear_of(&user_id("ada"), 4 * SECOND, Some((3 * SECOND, 0)), 0);
    let (age, after) = resent(&process).expect("it is written, and the store says that the leave was after it");
    assert!(age <= TICK && after == 0, "not before the heartbeat");
    process.heartbeat(4 * SECOND, 30 * SECOND);
    process.leave("ada", 5 * SECOND, 9 * SECOND);
    process.hear("ada", 5 * SECOND, SECOND);
    let due = |(age, after): (Nanos, Nanos)| 4 * SECOND + after - age;
    let is_near = |leave: Option<(Nanos, Nanos)>, at: Nanos| due(leave.unwrap()).abs_diff(at) < 2 * SECOND;
    assert!(is_near(resent(&process), 6 * SECOND));
    process.hear("ada", 5 * SECOND, 8 * SECOND);
    assert!(is_near(resent(&process), 6 * SECOND));
}

#[test]
fn who_left_elsewhere_at_the_moment_of_a_heartbeat_here_is_written_again_until_the_timeout_is_over() {
    let (far, near) = (200 * TICK, 10 * TICK);
    for (before, is_certain) in [(far, true), (near, false)] {
        let process = Process::new();
        process.heartbeat(0, 30 * SECOND);
        process.written(0);
        process.heartbeat(SECOND, 30 * SECOND);
        process.hear_of(&user_id("ada"), 2 * SECOND, Some((SECOND + before, 0)), 0);
        process.outbox.lock().take_batch(10);
        process.coalescer.resend(3 * SECOND, |_| Some(2 * SECOND), true, &process.outbox);
        assert_eq!(process.outbox.lock().len(), usize::from(!is_certain));
    }
}

/// The store may not get the leave before the user is due, or may ignore it as older than a heartbeat that was slow. If it takes
/// it, this process hears of that.
#[test]
fn who_left_here_is_kept_until_the_store_has_surely_delivered_what_was_due_when_it_said_so() {
    let process = Process::new();
    process.heartbeat(0, 30 * SECOND);
    process.written(0);
    process.leave("ada", SECOND, 0);
    process.outbox.lock().take_batch(10);
    let is_kept = |settled_at| {
        process.coalescer.scan((20 * SECOND, settled_at), 30 * SECOND, &process.outbox);
        process.coalescer.knows_leave(string("ada"), 20 * SECOND).is_some()
    };
    assert!(is_kept(9 * SECOND));
    process.hear_of(&user_id("ada"), 10 * SECOND, Some((SECOND, 0)), 0);
    assert!(is_kept(9 * SECOND));
    assert!(!is_kept(11 * SECOND));
}

/// The user came back in another process, whose heartbeat the log of this one knows: its `offline` is not delivered.
#[test]
fn a_leave_is_not_written_again_after_a_later_heartbeat_that_waits() {
    for (came_back, is_written) in [(SECOND, false), (0, true)] {
        let process = Process::new();
        process.heartbeat(0, 30 * SECOND);
        process.written(0);
        process.hear("ada", SECOND / 2, 0);
        process.outbox.lock().heartbeat(user_id("ada"), came_back, 1, Purpose::Resend);
        process.coalescer.resend(2 * SECOND, |_| Some(0), true, &process.outbox);
        let writes = process.outbox.lock().take_batch(10).writes(2 * SECOND, 0);
        assert_eq!(writes.iter().any(|write| matches!(write, Write::Leave(_))), is_written, "{writes:?}");
    }
}

#[test]
fn a_leave_that_was_heard_of_is_written_only_after_a_loss() {
    let process = Process::new();
    process.heartbeat(0, 30 * SECOND);
    process.written(0);
    process.heartbeat(SECOND, 30 * SECOND);
    process.hear("ada", 2 * SECOND, 0);
    let writes = process.outbox.lock().take_batch(10).writes(2 * SECOND, 0);
    assert!(matches!(writes[..], [Write::Heartbeat(_)]), "the store knows of the leave: {writes:?}");
}

#[test]
fn a_shorter_timeout_elsewhere_has_the_next_heartbeat_written_at_once_if_it_would_be_late() {
    let process = Process::new();
    let ada = user_id("ada");
    process.heartbeat(0, 30 * SECOND);
    process.written(0);
    process.heartbeat(SECOND, 30 * SECOND);
    process.hear_of(&ada, 2 * SECOND, None, 20 * SECOND);
    assert_eq!(process.written(2 * SECOND), Vec::<Nanos>::new(), "two are written until then anyway");
    process.hear_of(&ada, 2 * SECOND, None, 19 * SECOND);
    assert_eq!(process.written(2 * SECOND).len(), 1, "the last one");
    assert_eq!(process.heartbeat(3 * SECOND, 30 * SECOND), Coalesced::WriteDue, "and the next one");
    process.written(3 * SECOND);
    assert_eq!(process.heartbeat(4 * SECOND, 30 * SECOND), Coalesced::Known);
    assert!(process.coalescer.last_seen(string("ada"), 4 * SECOND).is_some(), "nobody left");
    process.hear_of(&user_id("bob"), 4 * SECOND, None, SECOND);
    assert_eq!(process.coalescer.partings.len(), 0);
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
