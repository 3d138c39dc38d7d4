//! Rules 1 to 13 of `docs/state_machine.md`, each by itself. Every test fails without the code that it is about.
//!
//! Over 400 lines: one test after the other, in the order of the rules. Whoever looks for a rule searches for its number.
//!
//! Over 400 lines: one test after the other, in the order of the rules; whoever looks for a rule searches for its number.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use online_manager_tracker::presence::{Next, Presence};
use online_manager_tracker::{
    Announced, Beat, Clock, Counts, Departed, Id, Nanos, Outcome, OwnedId, Reason, Signal, TICK, Text, Tracker,
    Transition, User, Work,
};

const ADA: Id<'_> = Id::Word(1);
const BOB: Id<'_> = Id::Text(Text { bytes: b"bob", class: 0, label: 0 });
const CY: Id<'_> = Id::Word(5);

/// Long enough for ticks of 1.05 ms not to matter.
const SECOND: Nanos = 1_000_000_000;
const TIMEOUT: Nanos = 5 * SECOND;

/// A presence whose clock is moved by hand.
struct Stage {
    presence: Presence,
    now: Nanos,
}

impl Stage {
    fn new() -> Stage {
        Stage::with_jitter(0)
    }

    fn with_jitter(jitter: Nanos) -> Stage {
        // Somewhere in the middle of a tick, and of a slot of the wheel.
        let now = 77 * SECOND + 77;
        Stage { presence: Presence::new(now, jitter), now }
    }

    fn beat(&mut self, id: Id<'_>) -> Beat {
        self.presence.heartbeat(id, self.now, TIMEOUT)
    }

    /// A heartbeat that calls `online`.
    fn announce(&mut self, id: Id<'_>) -> User {
        match self.beat(id) {
            Beat::Announce(user) => user,
            beat => panic!("{id:?} is not new: {beat:?}"),
        }
    }

    fn announced(&mut self, user: User, outcome: Outcome) -> Announced {
        self.presence.announced(user, self.now, TIMEOUT, outcome)
    }

    fn come_online(&mut self, id: Id<'_>) -> User {
        self.come_online_for(id, TIMEOUT)
    }

    /// The same with a timeout of its own.
    fn come_online_for(&mut self, id: Id<'_>, timeout: Nanos) -> User {
        let Beat::Announce(user) = self.presence.heartbeat(id, self.now, timeout) else { panic!("{id:?} is known") };
        assert_eq!(self.presence.announced(user, self.now, timeout, Outcome::Returned), Announced::Online);
        user
    }

    /// Takes back the claim of a user who was last seen at `seen`, and still was.
    fn is_taken_back(&mut self, user: User, id: Id<'_>, seen: Nanos) {
        assert_eq!(self.presence.unclaim(user, Transition::Offline, self.now), Departed::Revived);
        let told = self.presence.last_seen(id, self.now).unwrap();
        assert!(told.abs_diff(seen) <= TICK, "seen {} days later", told.abs_diff(seen) / (86_400 * SECOND));
    }

    fn turn(&mut self) -> Next {
        self.presence.advance(self.now, usize::MAX)
    }

    /// Lets time pass, with a turn of the timer at its end.
    fn wait(&mut self, time: Nanos) {
        self.now += time;
        self.turn();
    }

    fn claim(&mut self) -> Vec<(Transition, User)> {
        let mut claimed = Vec::new();
        loop {
            let mut work = Vec::new();
            match self.presence.claim(self.now, 1, &mut work) {
                Some(transition) => claimed.extend(work.into_iter().map(|work| (transition, work.user))),
                None => return claimed,
            }
        }
    }

    fn leave(&mut self, id: Id<'_>, after: Nanos) -> bool {
        self.presence.leave(id, self.now, after).was_online
    }

    fn is_online(&self, id: Id<'_>) -> bool {
        self.presence.is_online(id)
    }

    /// Goes on tick by tick until somebody can be claimed for `offline`: `user`, and at the tick of `deadline`.
    #[track_caller]
    fn ends_at(&mut self, deadline: Nanos, user: User) {
        loop {
            match self.claim()[..] {
                [] => self.wait((self.now + 1).next_multiple_of(TICK) - self.now),
                [(Transition::Offline, claimed)] if claimed == user => break,
                ref claimed => panic!("{claimed:?}"),
            }
            assert!(self.now < deadline + 2 * TICK, "nobody can be claimed");
        }
        assert!(self.now >= deadline, "too early by {}", deadline - self.now);
    }
}

// Rule 1: `online` and `offline` alternate and never overlap.

#[test]
fn rule_1_one_heartbeat_calls_online_however_many_there_are() {
    let mut stage = Stage::new();
    let user = stage.announce(ADA);
    for _ in 0..3 {
        assert_eq!(stage.beat(ADA), Beat::Known);
    }
    stage.announced(user, Outcome::Returned);
    assert_eq!(stage.beat(ADA), Beat::Known);
}

#[test]
fn rule_1_a_user_is_claimed_once() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.turn();
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    stage.wait(TIMEOUT);
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    stage.wait(TIMEOUT);
    assert_eq!(stage.claim(), []);
}

#[test]
fn rule_1_a_user_inside_online_holds_up_nobody_else() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    let bob = stage.come_online(BOB);
    stage.wait(TIMEOUT + TICK);
    assert_eq!(stage.claim(), [(Transition::Offline, bob)]);
    assert_eq!(stage.presence.departed(bob), Departed::Offline);
    assert_eq!(stage.announced(ada, Outcome::Returned), Announced::Online);
}

#[test]
fn rule_1_what_is_said_between_the_callbacks_is_true() {
    let mut stage = Stage::new();
    assert!(!stage.is_online(ADA));
    let ada = stage.announce(ADA);
    assert!(stage.is_online(ADA));
    stage.announced(ada, Outcome::Returned);
    stage.wait(TIMEOUT + TICK);
    assert!(stage.is_online(ADA));
    stage.claim();
    assert!(!stage.is_online(ADA));
    assert_eq!(stage.presence.last_seen(ADA, stage.now), None);
    assert!(stage.presence.is_known(ADA));
    stage.presence.departed(ada);
    assert!(!stage.presence.is_known(ADA));
}

#[test]
fn rule_1_a_callback_that_has_ended_ends_once() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    assert_eq!(stage.announced(ada, Outcome::Cut), Announced::Offline);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    for transition in [Transition::Online, Transition::Offline] {
        stage.presence.unclaim(ada, transition, stage.now);
    }
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.presence.counts(), Counts { present: 1, ..Counts::default() });
    assert!(stage.is_online(ADA));
    stage.presence.leave(ADA, stage.now, 0);
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    assert_eq!(stage.announced(ada, Outcome::Returned), Announced::Offline);
    assert!(!stage.is_online(ADA));
}

// Rule 2: a heartbeat before the claim keeps the user online.

#[test]
fn rule_2_a_heartbeat_saves_who_stands_in_line() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    let bob = stage.come_online(BOB);
    stage.wait(TIMEOUT + TICK);
    assert_eq!(stage.presence.counts().due, 2);
    assert_eq!(stage.beat(ADA), Beat::Known);
    assert_eq!(stage.claim(), [(Transition::Offline, bob)]);
    stage.presence.departed(bob);
    let beaten = stage.now;
    stage.ends_at(beaten + TIMEOUT, ada);
}

#[test]
fn rule_2_a_claim_that_nobody_is_called_for_is_taken_back() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    let bob = stage.come_online(BOB);
    let seen = stage.now;
    stage.wait(TIMEOUT + TICK);
    let mut work = Vec::new();
    assert_eq!(stage.presence.claim(stage.now, 1, &mut work), Some(Transition::Offline));
    let [Work { user, id: OwnedId::Word(1), reason: Reason::Timeout, lateness }] = work[..] else { panic!("{work:?}") };
    assert_eq!(user, ada);
    assert!(lateness <= TICK, "{lateness} ns late");
    assert!(!stage.is_online(ADA));
    assert_eq!(stage.presence.unclaim(ada, Transition::Offline, stage.now), Departed::Revived);
    assert!(stage.is_online(ADA));
    let told = stage.presence.last_seen(ADA, stage.now).unwrap();
    assert!(told.abs_diff(seen) <= TICK, "nobody has seen Ada meanwhile");
    // The next one again, before those who came later.
    assert_eq!(stage.claim(), [(Transition::Offline, ada), (Transition::Offline, bob)]);
}

#[test]
fn rule_2_after_a_claim_that_is_taken_back_a_user_of_long_ago_was_seen_long_ago() {
    // Longer than the ticks of an entry reach, so that nothing but its note knows.
    let timeout = 60 * 86_400 * SECOND;
    let mut stage = Stage::new();
    let ada = stage.come_online_for(ADA, timeout);
    let seen = stage.now;
    // In steps, since the wheel holds nobody for so long.
    while stage.claim().is_empty() {
        stage.wait(timeout / 100);
    }
    stage.is_taken_back(ada, ADA, seen);
}

#[test]
fn rule_2_after_a_claim_that_comes_weeks_late_and_is_taken_back_a_user_was_seen_long_ago() {
    // A timeout that has a number, and so no note; but the process was stopped.
    let timeout = 6 * 86_400 * SECOND;
    for days in [10, 20, 30, 38] {
        let mut stage = Stage::new();
        let ada = stage.come_online_for(ADA, timeout);
        let seen = stage.now;
        stage.wait(timeout + days * 86_400 * SECOND);
        assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
        stage.is_taken_back(ada, ADA, seen);
    }
}

#[test]
fn rule_2_a_claim_that_comes_in_time_needs_no_note() {
    // However long the clock has run.
    for now in [SECOND, 20 * 86_400 * SECOND] {
        let mut stage = Stage { presence: Presence::new(now, 0), now };
        stage.come_online(ADA);
        stage.wait(TIMEOUT + TICK);
        assert_eq!(stage.claim().len(), 1);
        assert_eq!(stage.presence.kept(), 1, "the user in the table");
    }
}

#[test]
fn rule_2_a_heartbeat_before_a_claim_is_taken_back_counts() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.claim();
    stage.wait(SECOND);
    stage.beat(ADA);
    let beaten = stage.now;
    stage.wait(SECOND);
    stage.presence.unclaim(ada, Transition::Offline, stage.now);
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    stage.ends_at(beaten + TIMEOUT, ada);
}

// Rule 3: a heartbeat while somebody is inside `online` only moves the deadline.

#[test]
fn rule_3_a_heartbeat_during_online_counts() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.wait(SECOND);
    assert_eq!(stage.presence.heartbeat(ADA, stage.now, 9 * SECOND), Beat::Known);
    let beaten = stage.now;
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    stage.wait(SECOND);
    stage.announced(ada, Outcome::Returned);
    let returned = stage.now;
    // Its timeout is the newer one.
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    stage.ends_at(returned + 9 * SECOND, ada);
}

// Rule 4: a heartbeat while somebody is inside `offline` is remembered.

#[test]
fn rule_4_a_heartbeat_during_offline_is_followed_by_online() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.claim();
    assert_eq!(stage.beat(ADA), Beat::Known);
    assert!(!stage.is_online(ADA));
    assert_eq!(stage.claim(), [], "offline has not returned");
    assert_eq!(stage.presence.departed(ada), Departed::Revived);
    // The next one still finds the user known: `online` is called once.
    assert_eq!(stage.beat(ADA), Beat::Known);
    assert!(stage.presence.is_claimable());
    assert_eq!(stage.claim(), [(Transition::Online, ada)]);
    assert!(stage.is_online(ADA));
    assert_eq!(stage.announced(ada, Outcome::Returned), Announced::Online);
}

#[test]
fn rule_4_who_is_revived_was_seen_at_that_heartbeat() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.claim();
    stage.wait(SECOND);
    assert_eq!(stage.presence.heartbeat(ADA, stage.now, 9 * SECOND), Beat::Known);
    let beaten = stage.now;
    stage.wait(SECOND);
    stage.presence.departed(ada);
    stage.claim();
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    stage.announced(ada, Outcome::Returned);
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    let returned = stage.now;
    stage.ends_at(returned + 9 * SECOND, ada);
}

// Rule 5: never early, and not late.

#[test]
fn rule_5_the_first_deadline_counts_from_the_return_of_online() {
    for jitter in [0, 1, 5_000_000] {
        let mut stage = Stage::with_jitter(jitter);
        let ada = stage.announce(ADA);
        stage.wait(2 * TIMEOUT);
        stage.announced(ada, Outcome::Returned);
        let due = stage.now + TIMEOUT + jitter;
        stage.wait(due - stage.now - 1);
        assert_eq!(stage.claim(), []);
        // With the tick that the deadline is rounded up to.
        stage.wait(1 + due.next_multiple_of(TICK) - due);
        assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    }
}

#[test]
fn rule_5_each_later_deadline_counts_from_its_heartbeat() {
    for jitter in [0, 1, 5_000_000] {
        let mut stage = Stage::with_jitter(jitter);
        let ada = stage.come_online(ADA);
        for _ in 0..10 {
            stage.wait(SECOND / 3);
            stage.beat(ADA);
        }
        let due = stage.now + TIMEOUT + jitter;
        stage.wait(due - stage.now - 1);
        assert_eq!(stage.claim(), []);
        stage.wait(1 + due.next_multiple_of(TICK) - due);
        assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    }
}

#[test]
fn rule_5_a_deadline_at_the_very_start_of_a_tick_is_not_put_off() {
    let mut stage = Stage::new();
    stage.now = stage.now.next_multiple_of(TICK);
    let user = match stage.presence.heartbeat(ADA, stage.now, 3 * TICK) {
        Beat::Announce(user) => user,
        beat => panic!("{beat:?}"),
    };
    stage.presence.announced(user, stage.now, 3 * TICK, Outcome::Returned);
    stage.wait(3 * TICK - 1);
    assert_eq!(stage.claim(), []);
    stage.wait(1);
    assert_eq!(stage.claim(), [(Transition::Offline, user)]);
}

#[test]
fn rule_5_a_shorter_timeout_brings_the_deadline_forward() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    assert_eq!(stage.presence.heartbeat(ADA, stage.now, SECOND), Beat::Known);
    assert!(stage.presence.is_roused(), "the timer would come too late");
    let beaten = stage.now;
    stage.ends_at(beaten + SECOND, ada);
}

#[test]
fn rule_5_a_heartbeat_that_another_one_has_overtaken_brings_nothing_forward() {
    // Two threads beat: one reads the clock sooner, and takes the lock later.
    for overtaken_by in [1, TICK, 40 * TICK, SECOND] {
        let mut stage = Stage::new();
        let ada = stage.come_online(ADA);
        stage.wait(3 * SECOND);
        stage.beat(ADA);
        let beaten = stage.now;
        assert_eq!(stage.presence.heartbeat(ADA, stage.now - overtaken_by, TIMEOUT), Beat::Known);
        stage.ends_at(beaten + TIMEOUT, ada);
    }
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    let returned = stage.now;
    assert_eq!(stage.presence.heartbeat(ADA, stage.now - 2 * TICK, TIMEOUT), Beat::Known);
    stage.ends_at(returned + TIMEOUT, ada);
}

#[test]
fn rule_5_no_heartbeat_makes_its_user_due() {
    let mut stage = Stage::new();
    stage.now = stage.now.next_multiple_of(TICK);
    let ada = stage.come_online(ADA);
    stage.presence.heartbeat(ADA, stage.now, 0);
    // Nobody would raise the signal.
    assert!(!stage.presence.is_claimable());
    assert!(stage.presence.is_roused());
    stage.wait(TICK);
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_5_the_timer_is_told_when_it_would_come_too_late() {
    let mut stage = Stage::new();
    assert_eq!(stage.turn(), Next::Never);
    stage.come_online(ADA);
    assert!(stage.presence.is_roused());
    assert!(!stage.presence.is_roused(), "once is enough");
    let Next::At(moment) = stage.turn() else { panic!("Ada is waited for") };
    assert!(moment <= (stage.now + TIMEOUT).next_multiple_of(TICK));
    // The timer comes in time for Bob as it is.
    stage.come_online(BOB);
    assert!(!stage.presence.is_roused());
    stage.presence.heartbeat(CY, stage.now, TICK);
    assert!(!stage.presence.is_roused(), "Cy has no deadline before online has returned");
}

#[test]
fn rule_5_the_timer_is_not_told_of_the_tick_that_it_will_come_at() {
    let mut stage = Stage::new();
    // So soon that the wheel knows the very tick.
    for (id, is_earlier) in [(ADA, true), (BOB, false)] {
        stage.come_online_for(id, TICK);
        assert_eq!(stage.presence.is_roused(), is_earlier);
        stage.turn();
    }
}

#[test]
fn rule_5_a_user_is_put_in_for_a_tick_that_the_wheel_has_not_passed() {
    // The first tick that looks like a place in line. Another thread read the clock just before the timer.
    let hand = (1 << 27) - 1;
    let mut stage = Stage { presence: Presence::new(0, 0), now: (hand - 1) * TICK };
    stage.presence.advance(hand * TICK, usize::MAX);
    let ada = stage.come_online_for(ADA, 1);
    stage.wait(4 * TICK);
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_5_a_turn_in_small_steps_comes_to_the_same() {
    let mut stage = Stage::new();
    for number in 0..500 {
        stage.come_online(Id::Word(number << 2 | 1));
    }
    stage.now += TIMEOUT + TICK;
    let mut turns = 0;
    while stage.presence.advance(stage.now, 7) == Next::Now {
        turns += 1;
        assert!(turns < 1_000);
    }
    assert!(turns >= 500 / 7);
    assert_eq!(stage.presence.counts().due, 500);
}

// Rule 6: callbacks may call back. No lock is held while one runs, and that is all there is to it.

#[test]
fn rule_6_callbacks_may_call_back() {
    let (tracker, clock, signal) = tracker();
    let beat = || tracker.heartbeat(ADA, tracker.now(), TIMEOUT);
    let Beat::Announce(ada) = beat() else { panic!("Ada is new") };
    // Inside online.
    assert_eq!(beat(), Beat::Known);
    assert!(tracker.is_online(ADA));
    assert!(tracker.leave(ADA, 0).was_online);
    assert_eq!(tracker.announced(ada, TIMEOUT, Outcome::Returned), Announced::Online);

    clock.advance(TICK);
    tracker.turn();
    assert!(signal.is_raised());
    let mut work = Vec::new();
    assert_eq!(tracker.claim(1, &mut work), Some(Transition::Offline));
    assert_eq!(work.len(), 1);
    // Inside offline.
    assert_eq!(beat(), Beat::Known);
    assert!(!tracker.is_online(ADA));
    assert!(!tracker.leave(ADA, 0).was_online);
    assert_eq!(tracker.claim(1, &mut Vec::new()), None);
    tracker.turn();
    assert_eq!(tracker.counts(), Counts { departing: 1, ..Counts::default() });
    assert_eq!(tracker.stop(), []);
    assert_eq!(beat(), Beat::Ignored);
    assert_eq!(tracker.departed(ada), Departed::Offline);
}

// Rule 7: however `offline` ends, the user stays offline and everything else happens.

#[test]
fn rule_7_after_an_offline_that_raised_everything_goes_on() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    let bob = stage.come_online(BOB);
    stage.wait(TIMEOUT + TICK);
    let mut work = Vec::new();
    stage.presence.claim(stage.now, 1, &mut work);
    // There is no outcome to report: an `offline` that raised is over like any other.
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    assert_eq!(stage.claim(), [(Transition::Offline, bob)]);
    assert!(!stage.is_online(ADA));
    let again = stage.announce(ADA);
    assert_eq!(stage.announced(again, Outcome::Returned), Announced::Online);
}

// Rule 8: a stop sets each remaining user offline, once.

#[test]
fn rule_8_each_remaining_user_is_set_offline_once() {
    for most in [1, 3, 1_000] {
        let mut stage = Stage::new();
        let users: Vec<User> = (0..300u64).map(|number| stage.come_online(Id::Word(number << 2 | 1))).collect();
        // Some are due anyway, some have left, one is in the middle of it.
        for number in 0..20 {
            stage.leave(Id::Word(number << 2 | 1), if number < 10 { 0 } else { SECOND });
        }
        let mut departing = Vec::new();
        stage.presence.claim(stage.now, 1, &mut departing);
        let mut offline = vec![departing[0].user];
        assert_eq!(stage.presence.stop(), []);
        assert!(stage.presence.is_claimable());
        loop {
            let mut work = Vec::new();
            if stage.presence.claim(stage.now, most, &mut work).is_none() {
                break;
            }
            assert!(work.len() <= most);
            for work in work {
                assert_eq!(stage.presence.departed(work.user), Departed::Offline);
                offline.push(work.user);
            }
        }
        assert_eq!(stage.presence.departed(departing[0].user), Departed::Offline);
        let word = |user: &User| user.word();
        offline.sort_by_key(word);
        assert_eq!(offline, { users.clone() });
        assert_eq!(stage.presence.kept(), 0);
        assert!(!stage.presence.is_claimable());
        assert_eq!(stage.turn(), Next::Never);
    }
}

#[test]
fn rule_8_a_claim_taken_back_after_a_stop_is_made_again() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.presence.stop();
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    assert_eq!(stage.presence.unclaim(ada, Transition::Offline, stage.now), Departed::Revived);
    assert!(stage.presence.is_claimable());
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    assert_eq!(stage.presence.kept(), 0);
}

#[test]
fn rule_8_a_leave_after_a_stop_changes_nothing() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.presence.stop();
    assert!(stage.leave(ADA, 0));
    assert!(stage.leave(ADA, SECOND));
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    stage.presence.departed(ada);
    assert!(!stage.presence.is_claimable(), "the reactor would be woken for ever");
    assert_eq!(stage.presence.kept(), 0);
}

// Rule 9: `leave` makes the user due, and a later heartbeat cancels it.

#[test]
fn rule_9_who_leaves_is_due_at_once() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    assert!(stage.leave(ADA, 0));
    assert!(stage.is_online(ADA));
    // Without a turn of the timer.
    assert!(stage.presence.is_claimable());
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    assert!(!stage.leave(ADA, 0));
    assert!(!stage.leave(BOB, 0));
}

#[test]
fn rule_9_who_leaves_later_is_due_then() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    let left = stage.now;
    assert!(stage.leave(ADA, 2 * SECOND));
    assert!(stage.presence.is_roused());
    // No leave is later than what there is.
    assert!(stage.leave(ADA, 3 * SECOND));
    stage.ends_at(left + 2 * SECOND, ada);

    let bob = stage.come_online(BOB);
    let seen = stage.now;
    stage.leave(BOB, TIMEOUT + SECOND);
    stage.ends_at(seen + TIMEOUT, bob);
}

#[test]
fn rule_9_a_leave_for_the_deadline_that_there_is_needs_no_note() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.leave(ADA, TIMEOUT);
    stage.announced(ada, Outcome::Returned);
    let kept = stage.presence.kept();
    stage.leave(ADA, TIMEOUT);
    assert_eq!([kept, stage.presence.kept()], [2, 2], "the user and its entry in the wheel");
}

#[test]
fn rule_9_a_leave_does_not_change_when_a_user_was_seen() {
    let mut stage = Stage::new();
    stage.come_online(ADA);
    let seen = stage.now;
    stage.wait(2 * SECOND);
    stage.leave(ADA, SECOND);
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(seen) <= TICK);
    stage.leave(ADA, 0);
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(seen) <= TICK);
}

#[test]
fn rule_9_a_heartbeat_before_the_claim_cancels_a_leave() {
    for after in [0, SECOND] {
        let mut stage = Stage::new();
        let ada = stage.come_online(ADA);
        stage.leave(ADA, after);
        stage.beat(ADA);
        let beaten = stage.now;
        stage.ends_at(beaten + TIMEOUT, ada);
    }
}

#[test]
fn rule_9_a_leave_during_online_is_remembered() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    let seen = stage.now;
    assert!(stage.leave(ADA, 9 * SECOND));
    assert!(stage.leave(ADA, 2 * SECOND));
    assert!(stage.leave(ADA, 3 * SECOND));
    stage.wait(SECOND);
    assert_eq!(stage.announced(ada, Outcome::Returned), Announced::Online);
    stage.ends_at(seen + 2 * SECOND, ada);

    let bob = stage.announce(BOB);
    stage.leave(BOB, 2 * TIMEOUT);
    stage.announced(bob, Outcome::Returned);
    let returned = stage.now;
    stage.ends_at(returned + TIMEOUT, bob);
}

#[test]
fn rule_9_a_heartbeat_clears_a_leave_during_online() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.leave(ADA, 0);
    stage.beat(ADA);
    stage.announced(ada, Outcome::Returned);
    assert_eq!(stage.claim(), []);
    let returned = stage.now;
    stage.ends_at(returned + TIMEOUT, ada);
}

#[test]
fn rule_9_a_leave_during_offline_clears_the_heartbeat_before_it() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.claim();
    stage.beat(ADA);
    assert_eq!(stage.presence.leave(ADA, stage.now, 0).forgotten, None);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    assert_eq!(stage.claim(), []);
    stage.announce(ADA);
}

#[test]
fn rule_9_a_leave_before_a_heartbeat_during_offline_clears_nothing() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.claim();
    stage.leave(ADA, 0);
    stage.beat(ADA);
    assert_eq!(stage.presence.departed(ada), Departed::Revived);
}

#[test]
fn rule_9_who_waits_to_be_announced_is_forgotten_by_a_leave() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.claim();
    stage.beat(ADA);
    stage.presence.departed(ada);
    let left = stage.presence.leave(ADA, stage.now, 0);
    assert!(!left.was_online);
    assert_eq!(left.forgotten, Some(ada));
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.presence.kept(), 0);
}

#[test]
fn rule_9_a_leave_before_an_online_that_never_began_takes_it_away() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    for leaves in [false, true] {
        stage.leave(ADA, 0);
        stage.claim();
        stage.beat(ADA);
        stage.presence.departed(ada);
        assert_eq!(stage.claim(), [(Transition::Online, ada)]);
        if leaves {
            stage.leave(ADA, 0);
            assert_eq!(stage.presence.unclaim(ada, Transition::Online, stage.now), Departed::Offline);
            assert_eq!(stage.claim(), []);
        } else {
            assert_eq!(stage.presence.unclaim(ada, Transition::Online, stage.now), Departed::Revived);
            assert!(!stage.is_online(ADA));
            assert_eq!(stage.claim(), [(Transition::Online, ada)]);
            assert_eq!(stage.announced(ada, Outcome::Returned), Announced::Online);
        }
    }
    assert_eq!(stage.presence.counts(), Counts::default());
}

// Rule 10: any way out of `online` but a normal return means Offline.

#[test]
fn a_claim_says_why_and_how_late_it_comes() {
    let mut stage = Stage::new();
    let reasons = |stage: &mut Stage| {
        let mut work = Vec::new();
        stage.turn();
        stage.presence.claim(stage.now, 1, &mut work);
        work.first().map(|work| (work.reason, work.lateness / SECOND))
    };
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + 3 * SECOND + TICK);
    assert_eq!(reasons(&mut stage), Some((Reason::Timeout, 3)));
    stage.beat(ADA);
    stage.now += 2 * SECOND + TICK;
    assert_eq!(stage.presence.departed(ada), Departed::Revived);
    assert_eq!(reasons(&mut stage), Some((Reason::Heartbeat, 2)), "an online that has waited for its offline");
    stage.announced(ada, Outcome::Returned);
    stage.leave(ADA, SECOND);
    stage.now += 2 * SECOND + TICK;
    assert_eq!(reasons(&mut stage), Some((Reason::Leave, 1)));
    stage.presence.unclaim(ada, Transition::Offline, stage.now);
    assert_eq!(reasons(&mut stage), Some((Reason::Leave, 0)), "taken back, and claimed again");
    stage.presence.departed(ada);

    let bob = stage.come_online(BOB);
    stage.leave(BOB, SECOND);
    stage.beat(BOB);
    stage.now += TIMEOUT + TICK;
    assert_eq!(reasons(&mut stage), Some((Reason::Timeout, 0)), "the heartbeat has undone the leave");
    stage.presence.departed(bob);

    let cy = stage.announce(CY);
    stage.leave(CY, 0);
    stage.announced(cy, Outcome::Returned);
    assert_eq!(reasons(&mut stage).map(|(reason, _)| reason), Some(Reason::Leave), "during online");
    stage.presence.departed(cy);

    stage.come_online(ADA);
    stage.leave(ADA, SECOND);
    stage.presence.stop();
    assert_eq!(reasons(&mut stage), Some((Reason::Stop, 0)));
}

#[test]
fn rule_10_an_online_that_raised_leaves_its_user_offline() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.wait(SECOND);
    stage.beat(ADA);
    assert_eq!(stage.announced(ada, Outcome::Cut), Announced::Offline);
    assert!(!stage.is_online(ADA));
    // The heartbeats of others are lost with it, and nothing of them is left behind.
    assert_eq!(stage.presence.kept(), 0);
    assert_eq!(stage.presence.counts(), Counts::default());
    stage.wait(2 * TIMEOUT);
    assert_eq!(stage.claim(), []);
    stage.announce(ADA);
}

#[test]
fn rule_10_a_leave_before_an_online_that_raised_is_not_held_against_the_next() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.leave(ADA, 0);
    stage.announced(ada, Outcome::Cut);
    stage.come_online(ADA);
    assert_eq!(stage.claim(), []);
}

// Rule 11: what falls due while somebody is inside `online` is due when it returns.

#[test]
fn rule_11_a_deadline_that_passes_during_online_is_due_as_it_returns() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.leave(ADA, SECOND);
    stage.wait(3 * SECOND);
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.announced(ada, Outcome::Returned), Announced::Online);
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_11_the_online_after_an_offline_is_the_reactors() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.leave(ADA, 0);
    stage.claim();
    stage.beat(ADA);
    stage.presence.departed(ada);
    // No heartbeat calls it, and the reactor does before it sets anybody else offline.
    assert_eq!(stage.beat(ADA), Beat::Known);
    let bob = stage.come_online(BOB);
    stage.leave(BOB, 0);
    assert_eq!(stage.claim(), [(Transition::Online, ada), (Transition::Offline, bob)]);
    // Its end is as any other's.
    assert_eq!(stage.announced(ada, Outcome::Cut), Announced::Offline);
    assert!(!stage.presence.is_known(ADA));
}

// Rule 12: a stop.

#[test]
fn rule_12_a_stop_bars_new_users_and_ignores_heartbeats() {
    let mut stage = Stage::new();
    stage.come_online(ADA);
    assert!(!stage.presence.is_stopping());
    stage.presence.stop();
    assert!(stage.presence.is_stopping());
    assert_eq!(stage.beat(ADA), Beat::Ignored);
    assert_eq!(stage.beat(BOB), Beat::Ignored);
    assert!(!stage.presence.is_known(BOB));
}

#[test]
fn rule_12_a_stop_drops_remembered_heartbeats() {
    let mut stage = Stage::new();
    let [ada, bob, cy] = [ADA, BOB, CY].map(|id| stage.come_online(id));
    stage.wait(TIMEOUT + TICK);
    stage.claim();
    // Ada has been set offline and waits, Bob is still inside offline, and nobody waits for Cy.
    stage.beat(ADA);
    stage.presence.departed(ada);
    stage.beat(BOB);
    assert_eq!(stage.presence.stop(), [ada]);
    assert_eq!(stage.presence.departed(bob), Departed::Offline);
    assert_eq!(stage.presence.departed(cy), Departed::Offline);
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.presence.stop(), []);
    assert_eq!(stage.presence.kept(), 0);
}

#[test]
fn rule_12_a_stop_waits_for_no_online_and_its_end_is_followed_by_offline() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    let bob = stage.announce(BOB);
    stage.presence.stop();
    assert!(!stage.presence.is_claimable());
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.announced(ada, Outcome::Returned), Announced::Depart);
    assert!(!stage.is_online(ADA));
    // That is the business of whoever was in it.
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    assert_eq!(stage.announced(bob, Outcome::Cut), Announced::Offline);
    assert_eq!(stage.presence.kept(), 0);
}

#[test]
fn rule_12_an_online_that_never_began_is_dropped_by_a_stop() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.leave(ADA, 0);
    stage.claim();
    stage.beat(ADA);
    stage.presence.departed(ada);
    assert_eq!(stage.claim(), [(Transition::Online, ada)]);
    stage.presence.stop();
    assert_eq!(stage.presence.unclaim(ada, Transition::Online, stage.now), Departed::Offline);
    assert_eq!(stage.presence.kept(), 0);
}

// Rule 13: a user never owns two entries of the wheel.

/// The user's entry, and one word in the wheel or in line.
const ONE_OF_EACH: usize = 2;

#[test]
fn rule_13_a_wheel_entry_that_was_left_behind_is_dropped() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    // Forward, and on again: what was put in first comes up later than what was put in last.
    stage.presence.heartbeat(ADA, stage.now, SECOND);
    stage.beat(ADA);
    stage.wait(TIMEOUT - SECOND);
    stage.beat(ADA);
    let beaten = stage.now;
    // A little less than the timeout, so all that was put in has come up.
    stage.wait(TIMEOUT - 2 * TICK);
    assert_eq!(stage.presence.kept(), ONE_OF_EACH);
    assert_eq!(stage.claim(), []);
    stage.ends_at(beaten + TIMEOUT, ada);
}

#[test]
fn rule_13_a_user_stands_in_line_once() {
    let mut stage = Stage::new();
    stage.come_online(ADA);
    for seconds in [4, 3, 2] {
        stage.presence.heartbeat(ADA, stage.now, seconds * SECOND);
    }
    stage.leave(ADA, SECOND);
    stage.leave(ADA, 0);
    stage.leave(ADA, 0);
    assert_eq!(stage.presence.counts().due, 1);
    stage.wait(2 * TIMEOUT);
    assert_eq!(stage.presence.counts().due, 1);
    assert_eq!(stage.claim().len(), 1);
    // All but the entry itself and what is noted of it.
    assert_eq!(stage.presence.kept(), 2);
}

#[test]
fn rule_13_a_user_stands_in_line_once_however_long() {
    let hour = 3_600 * SECOND;
    for hours in [1, 18, 20, 30, 38, 40, 60, 78, 80, 200] {
        let mut stage = Stage::new();
        let ada = stage.come_online(ADA);
        stage.wait(TIMEOUT + TICK);
        stage.wait(hours * hour);
        for _ in 0..3 {
            stage.leave(ADA, 0);
            stage.beat(ADA);
            assert_eq!(stage.presence.heartbeat(ADA, stage.now, SECOND), Beat::Known);
        }
        assert_eq!(stage.presence.counts().due, 1, "after {hours} hours");
        assert_eq!(stage.presence.kept(), ONE_OF_EACH, "after {hours} hours");
        // All heartbeats count, and the place in line is given up for one in the wheel.
        assert_eq!(stage.claim(), []);
        assert_eq!(stage.presence.kept(), ONE_OF_EACH);
        let beaten = stage.now;
        stage.ends_at(beaten + SECOND, ada);
    }
}

#[test]
fn rule_13_nobody_is_lost_when_the_timer_comes_a_month_late() {
    // The process was stopped. The hand of the wheel is far behind when somebody is put in.
    for days in [1, 2, 10, 14, 30] {
        let mut stage = Stage::new();
        let bob = stage.come_online(BOB);
        stage.now += days * 86_400 * SECOND;
        stage.beat(BOB);
        let ada = stage.come_online(ADA);
        let beaten = stage.now;
        stage.turn();
        assert_eq!(stage.claim(), [], "after {days} days");
        stage.wait(beaten + TIMEOUT + TICK - stage.now);
        let mut claimed = stage.claim();
        claimed.sort_by_key(|(_, user)| user.word());
        let mut both = [ada, bob];
        both.sort_by_key(|user| user.word());
        assert_eq!(claimed, both.map(|user| (Transition::Offline, user)), "after {days} days");
    }
}

// What the other tests count on: that nothing is kept which `kept` does not know of.

#[test]
fn whatever_is_kept_is_counted() {
    let mut stage = Stage::new();
    let users = [ADA, CY, Id::Word(9)].map(|id| stage.come_online(id));
    assert_eq!(stage.presence.kept(), 3 + 3, "in the table and on the wheel");
    stage.now += TIMEOUT + TICK;
    assert_eq!(stage.presence.advance(stage.now, 1), Next::Now);
    assert_eq!(stage.presence.kept(), 3 + 2 + 1, "taken from the wheel, and in line");
    stage.turn();
    let mut work = Vec::new();
    stage.presence.claim(stage.now, 1, &mut work);
    assert_eq!(work.len(), 1);
    stage.presence.heartbeat(ADA, stage.now, TIMEOUT);
    assert_eq!(stage.presence.departed(users[0]), Departed::Revived);
    assert_eq!(stage.presence.kept(), 3 + 2 + 1 + 1, "in line, with a note, and revived");
}

// What the tracker adds: the lock, the signal and the timer's turns.

#[derive(Default)]
struct MockClock {
    now: AtomicU64,
}

impl MockClock {
    fn advance(&self, time: Nanos) {
        self.now.fetch_add(time, Ordering::Relaxed);
    }
}

#[derive(Clone, Default)]
struct SharedClock(Arc<MockClock>);

impl Clock for SharedClock {
    fn now(&self) -> Nanos {
        self.0.now.load(Ordering::Relaxed)
    }

    fn jitter(&self) -> Nanos {
        0
    }
}

#[derive(Clone, Default)]
struct MockSignal(Arc<AtomicBool>);

impl MockSignal {
    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Signal for MockSignal {
    fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A tracker without a timer thread, its clock and its signal.
fn tracker() -> (Tracker<SharedClock, MockSignal>, Arc<MockClock>, MockSignal) {
    let (clock, signal) = (SharedClock::default(), MockSignal::default());
    (Tracker::new(clock.clone(), signal.clone()), clock.0, signal)
}

fn come_online(tracker: &Tracker<SharedClock, MockSignal>, id: Id<'_>) -> User {
    let Beat::Announce(user) = tracker.heartbeat(id, tracker.now(), TIMEOUT) else { panic!("{id:?} is new") };
    assert_eq!(tracker.announced(user, TIMEOUT, Outcome::Returned), Announced::Online);
    user
}

#[test]
fn a_turn_says_how_long_the_timer_may_rest() {
    let (tracker, clock, _) = tracker();
    assert_eq!(tracker.turn(), None);
    come_online(&tracker, ADA);
    let mut turns = 0;
    // What was far away is looked at on the way, but not often.
    while let Some(rest) = tracker.turn() {
        assert!(rest >= TICK, "a clock that moves in steps would be asked again and again");
        clock.advance(rest);
        turns += 1;
    }
    assert!(turns <= 4, "{turns} turns");
    assert!((TIMEOUT..TIMEOUT + 3 * TICK).contains(&tracker.now()));
}

#[test]
fn heartbeats_under_one_lock_are_heartbeats() {
    let (tracker, clock, signal) = tracker();
    come_online(&tracker, BOB);
    clock.advance(SECOND);
    let mut heartbeats = tracker.heartbeats(tracker.now(), 2 * SECOND);
    assert!(matches!(heartbeats.heartbeat(ADA), Beat::Announce(_)));
    assert_eq!(heartbeats.heartbeat(ADA), Beat::Known);
    assert_eq!(heartbeats.heartbeat(BOB), Beat::Known);
    drop(heartbeats);
    assert_eq!(tracker.counts(), Counts { present: 2, announcing: 1, ..Counts::default() });
    clock.advance(2 * SECOND);
    tracker.turn();
    assert!(!signal.is_raised());
    clock.advance(TICK);
    tracker.turn();
    assert!(signal.is_raised(), "Bob's deadline was brought forward");
    tracker.stop();
    assert_eq!(tracker.heartbeats(tracker.now(), SECOND).heartbeat(CY), Beat::Ignored);
}

#[test]
fn the_signal_is_raised_while_somebody_can_be_claimed() {
    let (tracker, clock, signal) = tracker();
    come_online(&tracker, ADA);
    let bob = come_online(&tracker, BOB);
    tracker.turn();
    assert!(!signal.is_raised());
    clock.advance(TIMEOUT + TICK);
    tracker.turn();
    assert!(signal.is_raised(), "two are due");

    let mut work = Vec::new();
    tracker.claim(1, &mut work);
    assert!(signal.is_raised(), "one is left");
    tracker.departed(work[0].user);
    assert_eq!(tracker.heartbeat(BOB, tracker.now(), TIMEOUT), Beat::Known);
    // The heartbeat is not what takes the signal back: the claim finds out.
    let mut work = Vec::new();
    while tracker.claim(1, &mut work).is_some() {}
    assert!(work.is_empty());
    assert!(!signal.is_raised());

    tracker.leave(BOB, 0);
    assert!(signal.is_raised(), "Bob leaves");
    tracker.claim(1, &mut work);
    assert_eq!(work.len(), 1);
    assert_eq!(tracker.claim(1, &mut Vec::new()), None);
    tracker.heartbeat(BOB, tracker.now(), TIMEOUT);
    assert!(!signal.is_raised(), "offline has not returned");
    tracker.departed(bob);
    assert!(signal.is_raised(), "Bob is to be announced");
    assert_eq!(tracker.claim(1, &mut Vec::new()), Some(Transition::Online));
    assert_eq!(tracker.claim(1, &mut Vec::new()), None);
    assert!(!signal.is_raised());
    tracker.unclaim(bob, Transition::Online);
    assert!(signal.is_raised(), "Bob is to be announced again");
}

#[test]
fn a_crowd_that_has_departed_is_forgotten_but_for_those_who_beat() {
    let (tracker, clock, signal) = tracker();
    let crowd: Vec<User> = (0..1_000).map(|number| come_online(&tracker, Id::Word(number << 1 | 1))).collect();
    clock.advance(TIMEOUT + TICK);
    while tracker.turn() == Some(0) {}
    let mut work = Vec::new();
    tracker.claim(1_000, &mut work);
    assert_eq!(work.len(), 1_000);

    // One in each of the turns that the lock is taken for, and the last.
    let revived = [3, 300, 999].map(|number: usize| crowd[number]);
    for user in revived {
        assert_eq!(tracker.heartbeat(Id::Word(user.word()), tracker.now(), TIMEOUT), Beat::Known);
    }
    tracker.claim(1, &mut Vec::new());
    assert!(!signal.is_raised());
    let gone: Vec<User> = crowd.iter().copied().filter(|user| !revived.contains(user)).collect();
    assert_eq!(tracker.departed_all(crowd), gone);
    assert!(signal.is_raised(), "three are to be announced");
    assert_eq!(tracker.counts(), Counts { departing: 3, ..Counts::default() });
    assert_eq!(tracker.departed_all([]), []);
}

#[test]
fn the_signal_is_raised_for_a_deadline_that_passed_during_online() {
    let (tracker, clock, signal) = tracker();
    let Beat::Announce(ada) = tracker.heartbeat(ADA, tracker.now(), TIMEOUT) else { panic!("Ada is new") };
    tracker.leave(ADA, SECOND);
    clock.advance(2 * SECOND);
    assert!(!signal.is_raised());
    tracker.announced(ada, TIMEOUT, Outcome::Returned);
    assert!(signal.is_raised());
}

#[test]
fn the_signal_is_raised_by_a_stop_and_when_asked_to() {
    let (tracker, _, signal) = tracker();
    tracker.rouse();
    assert!(signal.is_raised());
    assert_eq!(tracker.claim(1, &mut Vec::new()), None);
    assert!(!signal.is_raised());
    tracker.stop();
    assert!(signal.is_raised());
}

#[test]
fn the_tracker_answers_what_the_presence_knows() {
    let (tracker, clock, _) = tracker();
    clock.advance(SECOND);
    come_online(&tracker, ADA);
    come_online(&tracker, BOB);
    clock.advance(SECOND);
    assert!(tracker.is_online(ADA));
    assert!(tracker.is_known(BOB));
    assert!(!tracker.is_known(CY));
    assert!(tracker.last_seen(ADA).unwrap().abs_diff(SECOND) <= TICK);
    assert_eq!(tracker.counts().present, 2);
    let mut users = tracker.online_users();
    users.sort_by_key(|id| matches!(id, OwnedId::Word(_)));
    let bob = OwnedId::Text { bytes: (*b"bob").into(), class: 0, label: 0 };
    assert_eq!(users, [bob, OwnedId::Word(1)]);
    assert_eq!(tracker.timer_panics(), 0);
}
