//! What is written to the store when, and who is kept and forgotten.

use online_manager_tracker::TICK;

use super::*;
use crate::id::{Charset, Kind};
use crate::store::{Heartbeat, Write};

// Beside this file, since a folder of tests is no part of the gem.
#[path = "leaves.rs"]
mod leaves;
#[path = "long_timeouts.rs"]
mod long_timeouts;
#[path = "stalls.rs"]
mod stalls;

const SECOND: Nanos = 1_000_000_000;

fn string(bytes: &'static str) -> Id<'static> {
    Id::String(StringId { bytes: bytes.as_bytes(), class: 0, label: 1 })
}

fn user_id(name: &str) -> UserId {
    UserId::new(Kind::String(Charset::Ascii), name.as_bytes())
}

struct Process {
    coalescer: Coalescer,
    outbox: Mutex<Outbox>,
}

impl Process {
    fn new() -> Process {
        Process { coalescer: Coalescer::default(), outbox: Mutex::default() }
    }

    fn heartbeat(&self, now: Nanos, timeout: Nanos) -> Coalesced {
        let outcome = self.coalescer.heartbeat(string("ada"), now, timeout, &self.outbox);
        if outcome == Coalesced::Unknown {
            self.coalescer.add_user(string("ada"), user_id("ada"), now, timeout, &self.outbox);
        }
        outcome
    }

    fn leave(&self, name: &'static str, now: Nanos, after: Nanos) {
        self.coalescer.leave(string(name), user_id(name), (now, after), &self.outbox);
    }

    /// Another process has sent a leave.
    fn hear(&self, name: &'static str, now: Nanos, after: Nanos) {
        self.hear_of(&user_id(name), now, Some((now, after)), after);
    }

    fn hear_of(&self, id: &UserId, now: Nanos, left: Option<(Nanos, Nanos)>, due: Nanos) {
        self.coalescer.hear(&Heard { id: id.clone(), due_at: now + due, left }, now, &self.outbox);
    }

    /// Returns the ages of the heartbeats that are written at `now`.
    fn written(&self, now: Nanos) -> Vec<Nanos> {
        self.coalescer.scan((now, now), 3 * SECOND, &self.outbox);
        let writes = self.outbox.lock().take_batch(10).writes(now, 0);
        writes
            .into_iter()
            .map(|write| match write {
                Write::Heartbeat(Heartbeat { age, .. }) => age,
                Write::Leave(_) => panic!("nobody left"),
            })
            .collect()
    }
}

#[test]
fn the_first_heartbeat_is_written_at_once_and_the_last_one_always() {
    let process = Process::new();
    assert_eq!(process.heartbeat(0, 3 * SECOND), Coalesced::Unknown);
    assert_eq!(process.written(0), [0]);
    for now in [1, 2, 3] {
        assert_eq!(process.heartbeat(now, 3 * SECOND), Coalesced::Known);
    }
    assert_eq!(process.written(4), Vec::<Nanos>::new());
    assert_eq!(process.written(SECOND), [SECOND]);
    assert_eq!(process.written(2 * SECOND), Vec::<Nanos>::new());
}

#[test]
fn a_heartbeat_after_a_third_of_the_timeout_is_written_at_once() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    assert_eq!(process.heartbeat(SECOND, 3 * SECOND), Coalesced::WriteDue);
    assert_eq!(process.written(SECOND), [0]);
}

#[test]
fn two_timeouts_in_turn_are_written_as_often_as_the_shorter_one() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    let mut writes = 0;
    for tenth in 1..=60 {
        let now = tenth * SECOND / 10;
        process.heartbeat(now, if tenth % 2 == 0 { 3 * SECOND } else { 2 * SECOND });
        writes += process.written(now).len();
    }
    assert!((8..=9).contains(&writes), "three within two seconds, for six seconds: {writes}");
}

#[test]
fn a_shorter_timeout_is_written_as_soon_as_it_asks_for() {
    let process = Process::new();
    process.heartbeat(0, 60 * SECOND);
    process.written(0);
    assert_eq!(process.heartbeat(SECOND, 2 * SECOND), Coalesced::WriteDue);
    assert_eq!(process.written(SECOND), [0]);
}

#[test]
fn an_expired_user_is_forgotten_after_the_last_heartbeat_is_written() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.heartbeat(1, 3 * SECOND);
    assert_eq!(process.coalescer.last_seen(string("ada"), 2), Some(0));
    assert_eq!(process.coalescer.last_seen(string("ada"), 3 * SECOND + TICK), None);
    assert_eq!(process.written(5 * SECOND), [5 * SECOND]);
    assert_eq!(process.heartbeat(6 * SECOND, 3 * SECOND), Coalesced::Unknown);
}

#[test]
fn a_pass_that_comes_late_does_not_put_the_next_heartbeat_off() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    assert_eq!(process.written(0), [0]);
    process.heartbeat(SECOND / 2, 3 * SECOND);
    // The heartbeat was due after a second, the next one is after two.
    assert_eq!(process.written(SECOND * 5 / 2).len(), 1);
    assert_eq!(process.heartbeat(SECOND * 13 / 5, 3 * SECOND), Coalesced::WriteDue);
}

#[test]
fn a_heartbeat_after_a_leave_is_written_at_once() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.heartbeat(1, 3 * SECOND);
    process.leave("ada", 2, 0);
    assert_eq!(process.coalescer.last_seen(string("ada"), 3), None);
    let writes = process.outbox.lock().take_batch(10).writes(3, 0);
    assert!(matches!(writes[..], [Write::Heartbeat(_), Write::Leave(_)]), "{writes:?}");
    assert_eq!(process.heartbeat(4, 3 * SECOND), Coalesced::WriteDue);
    assert_eq!(process.written(4), [0]);
    assert!(process.coalescer.last_seen(string("ada"), 5).is_some());
    process.leave("bob", 5, 0);
    let writes = process.outbox.lock().take_batch(10).writes(5, 0);
    assert!(matches!(writes[..], [Write::Leave(_)]), "somebody may know bob: {writes:?}");
}

#[test]
fn a_heartbeat_after_a_leave_elsewhere_is_written_at_once() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.hear("ada", TICK, 0);
    assert_eq!(process.written(TICK), Vec::<Nanos>::new(), "the last heartbeat is written already");
    assert_eq!(process.coalescer.last_seen(string("ada"), TICK), None);
    assert_eq!(process.heartbeat(2 * TICK, 3 * SECOND), Coalesced::WriteDue);
    assert_eq!(process.written(2 * TICK), [0]);
}

/// Returns one id of each kind, for this process and for the store.
fn one_of_each_kind() -> Vec<(Id<'static>, UserId)> {
    let tagged = |bytes: &'static str, class| Id::String(StringId { bytes: bytes.as_bytes(), class, label: 0 });
    vec![
        (Id::Key(3), UserId::new(Kind::Integer, b"1")),
        (Id::Key((-7_i64 << 1 | 1) as u64), UserId::new(Kind::Integer, b"-7")),
        (tagged("4611686018427387904", b'i'), UserId::new(Kind::Integer, b"4611686018427387904")),
        (string("1"), user_id("1")),
        (tagged("1", b'u'), UserId::new(Kind::String(Charset::Utf8), b"1")),
        (Id::Key(0x10c), UserId::new(Kind::Symbol(Charset::Ascii), b"1")),
        (tagged("ada", b'S'), UserId::new(Kind::Symbol(Charset::Ascii), b"ada")),
    ]
}

/// Returns which users a pass through all of them finds marked as having left.
fn left_users(coalescer: &Coalescer) -> Vec<UserId> {
    let left_of = |part: &Mutex<Part>| -> Vec<UserId> {
        part.lock().cold.iter().filter(|cold| cold.is_left.get()).map(|cold| cold.id.clone()).collect()
    };
    coalescer.parts.iter().flat_map(left_of).collect()
}

#[test]
fn a_leave_elsewhere_marks_the_user_of_that_id_and_no_other() {
    for (_, left) in one_of_each_kind() {
        let process = Process::new();
        for (id, user_id) in one_of_each_kind() {
            process.coalescer.add_user(id, user_id, 0, SECOND, &process.outbox);
        }
        for unknown in [UserId::new(Kind::Integer, b"01"), UserId::new(Kind::Integer, b"2"), user_id("ada")] {
            process.hear_of(&unknown, TICK, Some((TICK, 0)), 0);
        }
        assert_eq!(left_users(&process.coalescer), []);
        process.hear_of(&left, TICK, Some((TICK, 0)), 0);
        assert_eq!(left_users(&process.coalescer), [left]);
    }
}

#[test]
fn a_leave_elsewhere_is_looked_up_in_the_parts_of_its_id_only() {
    let process = Process::new();
    let coalescer = &process.coalescer;
    for (id, user_id) in one_of_each_kind() {
        coalescer.add_user(id, user_id, 0, SECOND, &process.outbox);
    }
    for (id, left) in one_of_each_kind() {
        let own = [coalescer.part(coalescer.hash(id)), coalescer.part(coalescer.hash_of(NO_KEY, &left))];
        std::thread::scope(|scope| {
            let is_other = |part: &&Mutex<Part>| !own.iter().any(|own| std::ptr::eq(*own, *part));
            let others: Vec<_> = coalescer.parts.iter().filter(is_other).map(|part| part.lock()).collect();
            let (done, is_done) = std::sync::mpsc::channel();
            let (process, left) = (&process, &left);
            scope.spawn(move || {
                process.hear_of(left, TICK, Some((TICK, 0)), 0);
                // Nobody listens any more if it took too long.
                done.send(()).ok();
            });
            let outcome = is_done.recv_timeout(std::time::Duration::from_secs(10));
            drop(others);
            assert!(outcome.is_ok(), "{left:?}: waits for another part's lock");
        });
    }
}

#[test]
fn the_key_of_a_symbol_is_forgotten_with_the_user() {
    let process = Process::new();
    for (id, user_id) in one_of_each_kind() {
        process.coalescer.add_user(id, user_id, 0, SECOND, &process.outbox);
    }
    assert_eq!(process.coalescer.named_keys.lock().len(), 1, "integers need no memory for it");
    process.written(0);
    process.written(3 * SECOND);
    assert_eq!(process.coalescer.named_keys.lock().len(), 0);
}

#[test]
fn resend_writes_everyone_and_enqueue_unwritten_only_what_is_new() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.coalescer.resend(7, |_| Some(7), false, &process.outbox);
    assert_eq!(process.written(7), [7]);
    process.coalescer.enqueue_unwritten(8, &process.outbox);
    assert_eq!(process.written(8), Vec::<Nanos>::new());
    process.heartbeat(9, 3 * SECOND);
    process.coalescer.enqueue_unwritten(10, &process.outbox);
    assert_eq!(process.written(10), [10]);
}

/// It is written again late: from then on, a third of the timeout may be too long.
#[test]
fn the_heartbeat_after_one_that_is_written_again_is_due_as_if_that_had_been_written_when_it_came() {
    for (seen, outcome) in [(25 * SECOND, Coalesced::WriteDue), (SECOND, Coalesced::Known)] {
        let process = Process::new();
        process.heartbeat(0, 30 * SECOND);
        process.written(0);
        process.coalescer.resend(seen, |_| Some(0), false, &process.outbox);
        assert_eq!(process.written(seen), [seen]);
        assert_eq!(process.heartbeat(seen + SECOND, 30 * SECOND), outcome, "{seen}");
    }
}

#[test]
fn nobody_is_forgotten_during_an_outage() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    // An outage since the first second: if the data is lost, no other process knows this user.
    process.coalescer.scan((9 * SECOND, SECOND), 3 * SECOND, &process.outbox);
    process.coalescer.resend(9 * SECOND, |_| Some(SECOND), false, &process.outbox);
    assert_eq!(process.written(9 * SECOND), [9 * SECOND]);
}

#[test]
fn resend_skips_users_who_expired_before_the_outage() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.coalescer.resend(4 * SECOND, |_| Some(4 * SECOND), false, &process.outbox);
    assert_eq!(process.written(4 * SECOND), Vec::<Nanos>::new());
    process.heartbeat(5 * SECOND, 3 * SECOND);
    process.written(5 * SECOND);
    process.coalescer.resend(6 * SECOND, |_| None, false, &process.outbox);
    assert_eq!(process.written(6 * SECOND), Vec::<Nanos>::new(), "this partition has lost nothing");
}

#[test]
fn a_new_timeout_that_most_users_have_becomes_the_common_one() {
    let process = Process::new();
    process.heartbeat(0, 2 * SECOND);
    // The pass through all users takes 3 s for the common timeout.
    assert_eq!(process.written(0), [0]);
    for now in 1..5 {
        assert_eq!(process.heartbeat(now, 3 * SECOND), Coalesced::Known);
    }
    // Another timeout beside it is just as good.
    assert_eq!(process.heartbeat(5, SECOND), Coalesced::Known);
    assert_eq!(process.written(SECOND), [SECOND]);
    assert_eq!(process.written(SECOND + 2 * TICK), Vec::<Nanos>::new());
    assert_eq!(process.heartbeat(SECOND + 3 * TICK, SECOND), Coalesced::Unknown);
}

#[test]
fn a_heartbeat_with_the_common_timeout_takes_the_place_of_a_shorter_one() {
    let process = Process::new();
    process.heartbeat(0, 3 * SECOND);
    process.written(0);
    process.heartbeat(1, SECOND);
    assert_eq!(process.coalescer.last_seen(string("ada"), 2 * SECOND), None);
    process.heartbeat(2, 3 * SECOND);
    assert_eq!(process.coalescer.last_seen(string("ada"), 2 * SECOND), Some(0));
}

/// Only who left is kept for a moment.
#[test]
fn a_user_with_a_timeout_of_a_tick_is_forgotten_right_after_it() {
    let process = Process::new();
    process.heartbeat(0, TICK);
    process.written(2 * TICK);
    assert_eq!(process.heartbeat(2 * TICK, TICK), Coalesced::Unknown);
}

#[test]
fn an_entry_has_24_bytes() {
    assert_eq!(size_of::<HotEntry<u64>>(), 24);
}

#[test]
fn ticks_have_more_than_32_bits() {
    let process = Process::new();
    let start = (1 << 32) * TICK - SECOND / 2;
    process.heartbeat(start, 3 * SECOND);
    assert_eq!(process.written(start), [0]);
    assert_eq!(process.heartbeat(start + SECOND / 2, 3 * SECOND), Coalesced::Known);
    assert_eq!(process.written(start + SECOND / 2), Vec::<Nanos>::new());
    let ages = process.written(start + 2 * SECOND);
    assert!(ages.len() == 1 && ages[0].abs_diff(3 * SECOND / 2) <= 2 * TICK, "{ages:?}");
    let seen = process.coalescer.last_seen(string("ada"), start + 2 * SECOND).unwrap();
    assert!(seen.abs_diff(start + SECOND / 2) <= TICK);
}

#[test]
fn ids_of_different_kinds_are_different_users() {
    let process = Process::new();
    let ids = [
        (Id::Key(3), UserId::new(Kind::Integer, b"1")),
        (string("1"), user_id("1")),
        (Id::String(StringId { bytes: b"1", class: b'S', label: 0 }), UserId::new(Kind::Symbol(Charset::Ascii), b"1")),
    ];
    for (id, user_id) in &ids {
        assert_eq!(process.coalescer.heartbeat(*id, 0, SECOND, &process.outbox), Coalesced::Unknown);
        process.coalescer.add_user(*id, user_id.clone(), 0, SECOND, &process.outbox);
        assert_eq!(process.coalescer.heartbeat(*id, 0, SECOND, &process.outbox), Coalesced::Known);
    }
    assert_eq!(process.written(0).len(), 3);
}

#[test]
fn a_heartbeat_after_the_time_of_a_leave_undoes_it_though_the_leave_is_recorded_later() {
    let process = Process::new();
    process.heartbeat(0, 30 * SECOND);
    assert_eq!(process.written(0), [0]);
    assert_eq!(process.heartbeat(2_000 * TICK, 30 * SECOND), Coalesced::Known);
    process.leave("ada", 1_000 * TICK, 0);
    assert!(process.coalescer.last_seen(string("ada"), 3_000 * TICK).is_some(), "the user stays");
    assert_eq!(process.written(12_000 * TICK), [10_000 * TICK]);
}

#[test]
fn a_heartbeat_that_is_newer_than_a_pass_is_written_with_its_own_time() {
    let process = Process::new();
    process.heartbeat(0, 30 * SECOND);
    assert_eq!(process.written(0), [0]);
    process.heartbeat(2_000 * TICK, 30 * SECOND);
    process.coalescer.enqueue_unwritten(1_000 * TICK, &process.outbox);
    assert_eq!(process.written(12_000 * TICK), [10_000 * TICK]);
    process.coalescer.resend(1_000 * TICK, |_| Some(0), true, &process.outbox);
    assert_eq!(process.written(12_000 * TICK), [10_000 * TICK]);
}
