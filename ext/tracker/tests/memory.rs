//! Rule 16 of `docs/state_machine.md`: memory is bounded by who is here now, whatever came before. Each test counts
//! what is kept after users came and went in the worst way known.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use online_manager_tracker::presence::Presence;
use online_manager_tracker::{Announced, CallbackOutcome, HeartbeatOutcome, Id, Nanos, StringId, User};

const SECOND: Nanos = 1_000_000_000;
const DAY: Nanos = 86_400 * SECOND;

/// What is kept for users who are gone, at most: a few wheel slots, and two chunks of strings.
const SPARE_WHEEL_WORDS: usize = 8;
const SPARE_STRING_BYTES: usize = 200_000;

/// The bytes of a string in the arena: a header of eight, and the string, rounded up to eight.
fn stored_bytes(length: usize) -> usize {
    (8 + length).next_multiple_of(8)
}

/// A presence whose clock the tests move, and how many users they keep.
struct Users {
    presence: Presence,
    now: Nanos,
    count: usize,
}

impl Users {
    fn new() -> Users {
        Users { presence: Presence::new(77 * SECOND, 5_000_000), now: 77 * SECOND, count: 0 }
    }

    fn come_online(&mut self, id: Id<'_>, timeout: Nanos) {
        let HeartbeatOutcome::Announce(user) = self.presence.heartbeat(id, self.now, timeout) else {
            panic!("{id:?} is known")
        };
        assert_eq!(self.presence.announced(user, self.now, timeout, CallbackOutcome::Returned), Announced::Online);
        self.count += 1;
        self.check();
    }

    /// Sends a heartbeat of a user who is online.
    fn heartbeat(&mut self, id: Id<'_>, timeout: Nanos) {
        assert_eq!(self.presence.heartbeat(id, self.now, timeout), HeartbeatOutcome::Known);
        self.check();
    }

    fn leave(&mut self, id: Id<'_>) {
        assert!(self.presence.leave(id, self.now, 0).was_online);
        self.claim();
        self.check();
    }

    /// Claims and calls `offline` until nobody is due. Returns who was set offline.
    fn claim(&mut self) -> Vec<User> {
        let mut offline = Vec::new();
        let mut claimed = Vec::new();
        while self.presence.claim(self.now, usize::MAX, &mut claimed).is_some() {
            for claimed in claimed.drain(..) {
                self.presence.departed(claimed.user);
                offline.push(claimed.user);
            }
        }
        self.count -= offline.len();
        offline
    }

    fn wait(&mut self, time: Nanos) {
        self.now += time;
        self.presence.advance(self.now, usize::MAX);
        self.claim();
        self.check();
    }

    fn check(&self) {
        let words = self.presence.wheel_words();
        assert!(words <= 2 * self.count + SPARE_WHEEL_WORDS, "{words} words on the wheel for {} users", self.count);
    }

    /// Asserts that the arena takes no more than one and a half times `live` bytes.
    fn check_strings(&self, live: usize) {
        let kept = self.presence.string_bytes();
        assert!(kept * 2 <= live * 3 + 2 * SPARE_STRING_BYTES, "{kept} bytes for strings of {live}");
    }
}

/// Returns a number that looks random, the same on each run.
fn pseudo_random(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27) >> 2
}

fn key(number: u64) -> Id<'static> {
    Id::Key(number << 1 | 1)
}

/// Returns the string of a number, with a length of its own.
fn string(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(length.max(8), b'.');
    bytes
}

fn string_id(bytes: &[u8]) -> Id<'_> {
    Id::String(StringId { bytes, class: 2, label: 0 })
}

/// Every user has a short and a long timeout in turn, for ten hours: no wheel entry for a long one has come up before.
fn alternate(short: Nanos, hours: u64) {
    let mut users = Users::new();
    (0..20).for_each(|number| users.come_online(key(number), short));
    for round in 0..hours * 3_600 * SECOND / (short / 2) {
        users.wait(short / 2);
        let timeout = if round % 2 == 0 { DAY } else { short };
        (0..20).for_each(|number| users.heartbeat(key(number), timeout));
    }
    assert_eq!(users.count, 20);
}

#[test]
fn rule_16_timeouts_of_half_a_minute_and_a_day_in_turn_leave_nothing_on_the_wheel() {
    alternate(30 * SECOND, 24);
}

#[test]
fn rule_16_timeouts_of_a_second_and_a_day_in_turn_leave_nothing_on_the_wheel() {
    alternate(SECOND, 10);
}

#[test]
fn rule_16_users_who_leave_and_come_back_leave_nothing_on_the_wheel() {
    let mut users = Users::new();
    for round in 0..2_000u64 {
        let timeout = [SECOND, 60 * SECOND, 3_600 * SECOND, DAY][round as usize / 500];
        (0..20).for_each(|number| users.come_online(key(number), timeout));
        (0..20).for_each(|number| users.leave(key(number)));
        if round % 10 == 0 {
            users.wait(SECOND / 100);
        }
    }
}

#[test]
fn rule_16_a_crowd_that_leaves_takes_its_wheel_entries_with_it() {
    let mut users = Users::new();
    (0..50_000).for_each(|number| users.come_online(key(number), DAY));
    (0..50_000).for_each(|number| users.leave(key(number)));
    assert!(users.presence.wheel_words() <= SPARE_WHEEL_WORDS);
}

#[test]
fn rule_16_everyone_who_is_moved_on_the_wheel_is_set_offline_in_time() {
    let mut users = Users::new();
    // Deadlines at all distances that the wheel has slots for.
    let timeouts: Vec<Nanos> = (0..2_000).map(|number| (1 + pseudo_random(number) % 40_000) * SECOND).collect();
    for (number, timeout) in timeouts.iter().enumerate() {
        users.come_online(key(number as u64), *timeout);
    }
    // Others come and go, so the wheel is swept again and again.
    for number in 2_000..100_000 {
        users.come_online(key(number), DAY);
        users.leave(key(number));
    }
    let start = users.now;
    for second in 1..=40_001 {
        users.wait(SECOND);
        let expected = timeouts.iter().filter(|timeout| **timeout + SECOND / 100 > second * SECOND).count();
        assert_eq!(users.count, expected, "{second} s after the start at {start}");
    }
}

#[test]
fn rule_16_strings_of_ever_new_lengths_take_no_more_than_their_bytes() {
    let mut users = Users::new();
    let length = |number: u64| 8 + (number / 500) as usize;
    let mut live = 0;
    for number in 0..200_000 {
        users.come_online(string_id(&string(number, length(number))), DAY);
        live += stored_bytes(length(number));
        if let Some(old) = number.checked_sub(5_000) {
            users.leave(string_id(&string(old, length(old))));
            live -= stored_bytes(length(old));
        }
        users.check_strings(live);
    }
}

#[test]
fn rule_16_strings_that_stay_move_together() {
    let mut users = Users::new();
    let length = |number: u64| if number.is_multiple_of(1_000) { 20_000 } else { pseudo_random(number) as usize % 200 };
    let stays = |number: &u64| pseudo_random(*number).is_multiple_of(50);
    let mut live = 0;
    for number in 0..100_000 {
        users.come_online(string_id(&string(number, length(number))), DAY);
        live += stored_bytes(length(number).max(8));
    }
    for number in (0..100_000).filter(|number| !stays(number)) {
        users.leave(string_id(&string(number, length(number))));
        live -= stored_bytes(length(number).max(8));
        users.check_strings(live);
    }
    // Those who stay are found by their ids, and have their deadlines.
    for number in (0..100_000).filter(stays) {
        users.heartbeat(string_id(&string(number, length(number))), DAY / 2);
    }
    users.wait(DAY / 2 - SECOND);
    assert_eq!(users.count, (0..100_000).filter(stays).count());
    users.wait(SECOND + SECOND / 50);
    assert_eq!((users.count, users.presence.string_bytes()), (0, 0));
}

#[test]
fn rule_16_long_strings_that_stay_move_together() {
    let mut users = Users::new();
    const LENGTH: usize = 4_000;
    let mut numbers: Vec<u64> = (0..3_000).collect();
    numbers.iter().for_each(|number| users.come_online(string_id(&string(*number, LENGTH)), DAY));
    numbers.sort_by_key(|number| pseudo_random(*number));
    for (gone, number) in (1..).zip(numbers) {
        users.leave(string_id(&string(number, LENGTH)));
        users.check_strings((3_000 - gone) * stored_bytes(LENGTH));
    }
}

#[test]
fn the_wheel_is_left_alone_while_no_more_than_half_as_many_keys_as_users_do_not_count() {
    let mut users = Users::new();
    (0..10).for_each(|number| users.come_online(key(number), DAY));
    (0..5).for_each(|number| users.heartbeat(key(number), SECOND));
    assert_eq!(users.presence.wheel_words(), 15);
}

#[test]
fn a_user_with_another_key_is_the_same_user() {
    let mut users = Users::new();
    users.come_online(Id::Key(1), SECOND);
    assert!(users.presence.rekey(1, 3));
    users.heartbeat(Id::Key(3), SECOND);
    users.wait(2 * SECOND);
    assert_eq!(users.count, 0);
}

/// The session of a client that invents one each time.
fn session(number: u64) -> Id<'static> {
    Id::Key(number)
}

#[test]
fn rule_s5_a_session_takes_at_most_96_bytes() {
    for per_user in [1, 2, 3, 10] {
        let mut users = Users::new();
        const USERS: u64 = 100_000;
        for number in 0..USERS * per_user {
            let id = key(number / per_user);
            let outcome = users.presence.session_heartbeat(id, session(number), users.now, DAY);
            if let HeartbeatOutcome::Announce(user) = outcome {
                users.presence.announced(user, users.now, DAY, CallbackOutcome::Returned);
            }
        }
        let counts = users.presence.counts();
        assert_eq!((counts.present as u64, counts.sessions as u64), (USERS, USERS * per_user));
        let bytes = users.presence.session_bytes() as u64 / (USERS * per_user);
        println!("{bytes} bytes for each session of {per_user}");
        assert!(bytes <= 96, "{bytes} bytes for each session of {per_user}");
    }
}

#[test]
fn rule_s15_ever_new_sessions_are_bounded_by_those_that_are_not_over() {
    let mut users = Users::new();
    users.presence.set_max_sessions(usize::MAX);
    users.presence.count_session_keys(|_| true);
    users.come_online(key(1), DAY);
    let mut released = 0;
    for number in 0..20_000 {
        let outcome = users.presence.session_heartbeat(key(1), session(number), users.now, SECOND);
        assert_eq!(outcome, HeartbeatOutcome::Known);
        users.wait(SECOND / 50);
        released += users.presence.take_released_sessions().len();
        let counts = users.presence.counts();
        assert!(counts.sessions <= 53, "{} sessions", counts.sessions);
        assert!(users.presence.kept() <= 120, "{}", users.presence.kept());
    }
    users.wait(2 * SECOND);
    released += users.presence.take_released_sessions().len();
    assert_eq!(released, 20_000);
    assert!(users.presence.session_bytes() <= 1_000, "{}", users.presence.session_bytes());
    users.leave(key(1));
    users.wait(DAY);
    assert_eq!((users.presence.kept(), users.presence.session_bytes()), (0, 0));
}

#[test]
fn rule_s16_ever_new_sessions_with_long_timeouts_are_bounded_by_the_limit() {
    let mut users = Users::new();
    users.presence.count_session_keys(|_| true);
    users.come_online(key(1), DAY);
    let mut released = 0;
    for number in 0..20_000 {
        users.presence.session_heartbeat(key(1), session(number), users.now, DAY + number * SECOND);
        released += users.presence.take_released_sessions().len();
        assert!(users.presence.counts().sessions <= 100);
        assert!(users.presence.kept() <= 220, "{}", users.presence.kept());
    }
    assert_eq!(released, 20_000 - 100);
}

#[test]
fn rule_16_sessions_that_come_and_go_leave_nothing_on_the_wheel() {
    let mut users = Users::new();
    users.come_online(key(1), DAY);
    for number in 0..20_000 {
        let timeout = [SECOND, 60 * SECOND, 3_600 * SECOND][number as usize % 3];
        users.presence.session_heartbeat(key(1), session(number), users.now, timeout);
        users.presence.leave_session(
            key(1),
            Some(session(number)),
            users.now,
            if number % 2 == 0 { 0 } else { SECOND },
        );
        users.check();
    }
    users.wait(2 * SECOND);
    assert_eq!(users.presence.session_ids(key(1), users.now), [None]);
    assert_eq!(users.presence.counts().sessions, 1);
}
