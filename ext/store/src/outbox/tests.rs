//! Which writes come out, with which ages, and in which order.

use super::*;
use crate::id::Kind;

fn id(number: u8) -> UserId {
    UserId::new(Kind::Integer, &[b'0' + number])
}

fn take_writes(outbox: &mut Outbox, now: Nanos) -> Vec<Write> {
    outbox.take_batch(10).writes(now, 0)
}

#[test]
fn the_latest_time_and_the_last_timeout_count() {
    let mut outbox = Outbox::default();
    outbox.heartbeat(id(1), 10, 5, Purpose::Report);
    outbox.heartbeat(id(1), 20, 6, Purpose::Report);
    outbox.heartbeat(id(1), 15, 7, Purpose::Report);
    assert_eq!(outbox.lag(30), 20);
    assert_eq!(
        take_writes(&mut outbox, 30),
        [Write::Heartbeat(Heartbeat { id: id(1), age: 10, timeout: 7, purpose: Purpose::Report })]
    );
    assert!(outbox.is_empty());
    assert_eq!(outbox.lag(30), 0);
}

#[test]
fn a_heartbeat_undoes_an_earlier_leave() {
    let heartbeat = |age| Write::Heartbeat(Heartbeat { id: id(1), age, timeout: 6, purpose: Purpose::Report });
    let mut outbox = Outbox::default();
    for at in [20, 10] {
        outbox.leave(id(1), 10, 0);
        outbox.heartbeat(id(1), at, 6, Purpose::Report);
        assert_eq!(take_writes(&mut outbox, 20), [heartbeat(20 - at)]);
    }
    outbox.leave(id(1), 10, 0);
    outbox.heartbeat(id(1), 9, 6, Purpose::Report);
    let later = Leave { id: id(1), age: 10, after: 0 };
    assert_eq!(take_writes(&mut outbox, 20), [heartbeat(11), Write::Leave(later)]);
}

#[test]
fn an_outbox_is_empty_while_its_only_batch_is_being_written() {
    let mut outbox = Outbox::default();
    assert!(outbox.is_empty() && outbox.take_batch(10).is_empty());
    outbox.heartbeat(id(1), 10, 5, Purpose::Report);
    let (was_empty, batch) = (outbox.is_empty(), outbox.take_batch(10));
    assert_eq!((was_empty, outbox.is_empty(), batch.is_empty()), (false, true, false));
}

#[test]
fn a_leave_follows_its_users_heartbeat_and_the_soonest_leave_counts() {
    let mut outbox = Outbox::default();
    outbox.heartbeat(id(1), 10, 5, Purpose::Report);
    outbox.leave(id(1), 20, 9);
    outbox.leave(id(1), 21, 3);
    outbox.leave(id(1), 22, 7);
    assert_eq!(
        take_writes(&mut outbox, 30),
        [
            Write::Heartbeat(Heartbeat { id: id(1), age: 20, timeout: 5, purpose: Purpose::Report }),
            Write::Leave(Leave { id: id(1), age: 8, after: 2 })
        ]
    );
}

#[test]
fn batches_are_in_key_order_and_no_user_starves() {
    let mut outbox = Outbox::default();
    let mut batches = Vec::new();
    for _ in 0..4 {
        // The first users send heartbeats again at once.
        [1, 2, 3, 4]
            .iter()
            .filter(|user| batches.len() < 3 || **user < 3)
            .for_each(|user| outbox.heartbeat(id(*user), 10, 5, Purpose::Report));
        batches.push(outbox.take_batch(2).0.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    }
    let (first, last) = (vec![id(1), id(2)], vec![id(3), id(4)]);
    assert_eq!(batches, [first.clone(), last.clone(), first, last]);
}

#[test]
fn put_back_keeps_newer_writes() {
    let mut outbox = Outbox::default();
    outbox.heartbeat(id(1), 10, 5, Purpose::Report);
    outbox.leave(id(1), 11, 0);
    outbox.heartbeat(id(2), 12, 5, Purpose::Report);
    let unwritten = outbox.take_batch(10);
    outbox.heartbeat(id(1), 30, 6, Purpose::Report);
    outbox.put_back(unwritten);
    assert_eq!(outbox.len(), 2);
    assert_eq!(outbox.lag(30), 20);
    let mut writes = take_writes(&mut outbox, 30);
    writes.sort_by_key(|write| write.id().clone());
    assert_eq!(
        writes,
        [
            Write::Heartbeat(Heartbeat { id: id(1), age: 0, timeout: 6, purpose: Purpose::Report }),
            Write::Heartbeat(Heartbeat { id: id(2), age: 18, timeout: 5, purpose: Purpose::Report })
        ]
    );
}

/// The heartbeat may have arrived, and may seem later than the leave now.
#[test]
fn a_repeated_leave_goes_before_its_users_heartbeat() {
    let heartbeat = |age| Write::Heartbeat(Heartbeat { id: id(1), age, timeout: 5, purpose: Purpose::Report });
    let leave = |age| Write::Leave(Leave { id: id(1), age, after: 0 });
    let mut outbox = Outbox::default();
    outbox.heartbeat(id(1), 10, 5, Purpose::Report);
    let unwritten = outbox.take_batch(10);
    outbox.leave(id(1), 11, 0);
    outbox.put_back(unwritten);
    let unwritten = outbox.take_batch(10);
    assert_eq!(unwritten.writes(30, 0), [leave(19), heartbeat(20)]);
    // A later heartbeat has not arrived before.
    outbox.heartbeat(id(1), 12, 5, Purpose::Report);
    outbox.leave(id(1), 13, 0);
    outbox.put_back(unwritten);
    assert_eq!(take_writes(&mut outbox, 30), [heartbeat(18), leave(17)]);
    outbox.heartbeat(id(1), 14, 5, Purpose::Report);
    outbox.leave(id(1), 15, 0);
    outbox.mark_repeated(&id(1));
    assert_eq!(take_writes(&mut outbox, 30), [leave(15), heartbeat(16)]);
    // What is newer may have arrived before, too.
    outbox.heartbeat(id(1), 15, 5, Purpose::Report);
    let unwritten = outbox.take_batch(10);
    outbox.heartbeat(id(1), 16, 5, Purpose::Report);
    outbox.leave(id(1), 17, 0);
    outbox.mark_repeated(&id(1));
    outbox.put_back(unwritten);
    assert_eq!(take_writes(&mut outbox, 30), [leave(13), heartbeat(14)]);
    // Only the leave has perhaps arrived before.
    outbox.leave(id(1), 16, 0);
    let unwritten = outbox.take_batch(10);
    outbox.put_back(unwritten);
    outbox.heartbeat(id(1), 17, 5, Purpose::Report);
    outbox.leave(id(1), 18, 0);
    assert_eq!(take_writes(&mut outbox, 30), [heartbeat(13), leave(12)]);
}

#[test]
fn nobody_is_due_before_the_first_whose_heartbeat_or_leave_waits() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.first_due(), None);
    outbox.heartbeat(id(1), 10, 50, Purpose::Report);
    outbox.heartbeat(id(2), 20, 5, Purpose::Report);
    outbox.heartbeat(id(2), 40, 5, Purpose::Report);
    assert_eq!(outbox.first_due(), Some(25));
    outbox.update_first_due();
    assert_eq!(outbox.first_due(), Some(45));
    let batch = outbox.take_batch(10);
    assert_eq!(outbox.first_due(), None);
    outbox.put_back(batch);
    assert_eq!(outbox.first_due(), Some(45));
    outbox.leave(id(1), 12, 4);
    assert_eq!(outbox.first_due(), Some(16));
    outbox.update_first_due();
    assert_eq!(outbox.first_due(), Some(16));
    outbox.heartbeat(id(1), 13, 50, Purpose::Report);
    outbox.update_first_due();
    assert_eq!(outbox.first_due(), Some(45), "it has undone the leave");
}

#[test]
fn what_puts_a_deadline_off_lengthens_no_timeout_of_a_heartbeat_that_waits() {
    let mut outbox = Outbox::default();
    let write = |age, timeout, purpose| Write::Heartbeat(Heartbeat { id: id(1), age, timeout, purpose });
    outbox.heartbeat(id(1), 11, 5, Purpose::Report);
    outbox.prolong(id(1), 10, 90);
    outbox.prolong(id(1), 11, 99);
    let unwritten = outbox.take_batch(10);
    let both = [write(19, 5, Purpose::Report), write(19, 99, Purpose::Prolong)];
    assert_eq!(unwritten.writes(30, 0), both);
    outbox.put_back(unwritten);
    outbox.leave(id(1), 12, 0);
    let leave = Write::Leave(Leave { id: id(1), age: 18, after: 0 });
    let unwritten = outbox.take_batch(10);
    assert_eq!(unwritten.writes(30, 0), [vec![leave], both.to_vec()].concat());
    outbox.put_back(unwritten);
    outbox.heartbeat(id(1), 13, 5, Purpose::Report);
    assert_eq!(take_writes(&mut outbox, 30), [write(17, 5, Purpose::Report)], "the user is there");
}

/// Both are written again after a loss: the user's last heartbeat here, and that of an `offline` that was not delivered.
#[test]
fn the_timeout_of_a_clearly_later_heartbeat_is_kept() {
    const SECOND: Nanos = 1_000_000_000;
    for (before, timeout) in [(SECOND, 1), (20_000_000, 5 * SECOND)] {
        let mut outbox = Outbox::default();
        outbox.heartbeat(id(1), before, 1, Purpose::Resend);
        outbox.heartbeat(id(1), 0, 5 * SECOND, Purpose::Resend);
        let writes = take_writes(&mut outbox, SECOND);
        let [Write::Heartbeat(heartbeat)] = &writes[..] else { panic!("{writes:?}") };
        assert_eq!((heartbeat.age, heartbeat.timeout), (SECOND - before, timeout));
    }
}

#[test]
fn the_clocks_jitter_is_added_to_the_timeout_of_a_heartbeat() {
    let mut outbox = Outbox::default();
    outbox.heartbeat(id(1), 10, 5, Purpose::Report);
    assert_eq!(
        outbox.take_batch(10).writes(30, 3),
        [Write::Heartbeat(Heartbeat { id: id(1), age: 20, timeout: 8, purpose: Purpose::Report })]
    );
}
