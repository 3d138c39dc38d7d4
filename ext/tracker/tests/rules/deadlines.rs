//! Rules 5 and 13: when a user is due, and what the wheel keeps for it.

use online_manager_tracker::presence::{Next, Presence};
use online_manager_tracker::{CallbackOutcome, Departed, HeartbeatOutcome, Id, Nanos, TICK, Transition, User};

use crate::stage::{ADA, BOB, CY, SECOND, Stage, TIMEOUT};

// Rule 5: never early, and not late.

/// `user` can be claimed when that time has passed, and not a moment before.
#[track_caller]
fn is_due_after(stage: &mut Stage, time: Nanos, user: User) {
    let due = stage.now + time;
    stage.wait(time - 1);
    assert_eq!(stage.claim(), []);
    // With the tick that the deadline is rounded up to.
    stage.wait(1 + due.next_multiple_of(TICK) - due);
    assert_eq!(stage.claim(), [(Transition::Offline, user)]);
}

#[test]
fn rule_5_the_first_deadline_counts_from_the_return_of_online() {
    for jitter in [0, 1, 5_000_000] {
        let mut stage = Stage::with_jitter(jitter);
        let ada = stage.announce(ADA);
        stage.wait(2 * TIMEOUT);
        stage.announced(ada, CallbackOutcome::Returned);
        is_due_after(&mut stage, TIMEOUT + jitter, ada);
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
        is_due_after(&mut stage, TIMEOUT + jitter, ada);
    }
}

#[test]
fn rule_5_a_deadline_at_the_very_start_of_a_tick_is_not_put_off() {
    let mut stage = Stage::new();
    stage.now = stage.now.next_multiple_of(TICK);
    let user = match stage.presence.heartbeat(ADA, stage.now, 3 * TICK) {
        HeartbeatOutcome::Announce(user) => user,
        beat => panic!("{beat:?}"),
    };
    stage.presence.announced(user, stage.now, 3 * TICK, CallbackOutcome::Returned);
    stage.wait(3 * TICK - 1);
    assert_eq!(stage.claim(), []);
    stage.wait(1);
    assert_eq!(stage.claim(), [(Transition::Offline, user)]);
}

#[test]
fn rule_5_a_shorter_timeout_brings_the_deadline_forward() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    assert_eq!(stage.presence.heartbeat(ADA, stage.now, SECOND), HeartbeatOutcome::Known);
    assert!(stage.presence.take_wake_request(), "the timer would come too late");
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
        assert_eq!(stage.presence.heartbeat(ADA, stage.now - overtaken_by, TIMEOUT), HeartbeatOutcome::Known);
        stage.ends_at(beaten + TIMEOUT, ada);
    }
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    let returned = stage.now;
    assert_eq!(stage.presence.heartbeat(ADA, stage.now - 2 * TICK, TIMEOUT), HeartbeatOutcome::Known);
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
    assert!(stage.presence.take_wake_request());
    stage.wait(TICK);
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_5_the_timer_is_told_when_it_would_come_too_late() {
    let mut stage = Stage::new();
    assert_eq!(stage.step(), Next::Never);
    stage.come_online(ADA);
    assert!(stage.presence.take_wake_request());
    assert!(!stage.presence.take_wake_request(), "once is enough");
    let Next::At(moment) = stage.step() else { panic!("Ada is waited for") };
    assert!(moment <= (stage.now + TIMEOUT).next_multiple_of(TICK));
    // The timer comes in time for Bob as it is.
    stage.come_online(BOB);
    assert!(!stage.presence.take_wake_request());
    stage.presence.heartbeat(CY, stage.now, TICK);
    assert!(!stage.presence.take_wake_request(), "Cy has no deadline before online has returned");
}

#[test]
fn rule_5_the_timer_is_not_told_of_the_tick_that_it_will_come_at() {
    let mut stage = Stage::new();
    // So soon that the wheel knows the very tick.
    for (id, is_earlier) in [(ADA, true), (BOB, false)] {
        stage.come_online_for(id, TICK);
        assert_eq!(stage.presence.take_wake_request(), is_earlier);
        stage.step();
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
        stage.come_online(Id::Key(number << 2 | 1));
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

// Rule 13: a user never owns two entries of the wheel.

/// The user's entry, and one key in the wheel or in line.
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
            assert_eq!(stage.presence.heartbeat(ADA, stage.now, SECOND), HeartbeatOutcome::Known);
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
        stage.step();
        assert_eq!(stage.claim(), [], "after {days} days");
        stage.wait(beaten + TIMEOUT + TICK - stage.now);
        let mut claimed = stage.claim();
        claimed.sort_by_key(|(_, user)| user.key());
        let mut both = [ada, bob];
        both.sort_by_key(|user| user.key());
        assert_eq!(claimed, both.map(|user| (Transition::Offline, user)), "after {days} days");
    }
}

// What the other tests count on: that nothing is kept which `kept` does not know of.

#[test]
fn whatever_is_kept_is_counted() {
    let mut stage = Stage::new();
    let users = [ADA, CY, Id::Key(9)].map(|id| stage.come_online(id));
    assert_eq!(stage.presence.kept(), 3 + 3, "in the table and on the wheel");
    stage.now += TIMEOUT + TICK;
    assert_eq!(stage.presence.advance(stage.now, 1), Next::Now);
    assert_eq!(stage.presence.kept(), 3 + 2 + 1, "taken from the wheel, and in line");
    stage.step();
    let mut work = Vec::new();
    stage.presence.claim(stage.now, 1, &mut work);
    assert_eq!(work.len(), 1);
    stage.presence.heartbeat(ADA, stage.now, TIMEOUT);
    assert_eq!(stage.presence.departed(users[0]), Departed::Rejoining);
    assert_eq!(stage.presence.kept(), 3 + 2 + 1 + 1, "in line, with a extra, and rejoining");
}
