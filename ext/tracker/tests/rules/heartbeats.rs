//! Rules 1 to 4: `online` and `offline` take turns, whenever a heartbeat comes.

use online_manager_tracker::presence::Presence;
use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, OwnedId, Reason, TICK, Transition,
};

use crate::stage::{ADA, BOB, SECOND, Stage, TIMEOUT};

// Rule 1: `online` and `offline` alternate and never overlap.

#[test]
fn rule_1_one_heartbeat_calls_online_however_many_there_are() {
    let mut stage = Stage::new();
    let user = stage.announce(ADA);
    for _ in 0..3 {
        assert_eq!(stage.beat(ADA), HeartbeatOutcome::Known);
    }
    stage.announced(user, CallbackOutcome::Returned);
    assert_eq!(stage.beat(ADA), HeartbeatOutcome::Known);
}

#[test]
fn rule_1_a_user_is_claimed_once() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + TICK);
    stage.step();
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
    assert_eq!(stage.announced(ada, CallbackOutcome::Returned), Announced::Online);
}

#[test]
fn rule_1_what_is_said_between_the_callbacks_is_true() {
    let mut stage = Stage::new();
    assert!(!stage.is_online(ADA));
    let ada = stage.announce(ADA);
    assert!(stage.is_online(ADA));
    stage.announced(ada, CallbackOutcome::Returned);
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
    assert_eq!(stage.announced(ada, CallbackOutcome::Aborted), Announced::Offline);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    for transition in [Transition::Online, Transition::Offline] {
        stage.presence.unclaim(ada, transition, stage.now);
    }
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.presence.counts(), Counts { present: 1, ..Counts::default() });
    assert!(stage.is_online(ADA));
    stage.presence.leave(ADA, stage.now, 0);
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    assert_eq!(stage.announced(ada, CallbackOutcome::Returned), Announced::Offline);
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
    assert_eq!(stage.beat(ADA), HeartbeatOutcome::Known);
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
    let [Claimed { user, id: OwnedId::Key(1), reason: Reason::Timeout, lateness }] = work[..] else {
        panic!("{work:?}")
    };
    assert_eq!(user, ada);
    assert!(lateness <= TICK, "{lateness} ns late");
    assert!(!stage.is_online(ADA));
    assert_eq!(stage.presence.unclaim(ada, Transition::Offline, stage.now), Departed::Rejoining);
    assert!(stage.is_online(ADA));
    let told = stage.presence.last_seen(ADA, stage.now).unwrap();
    assert!(told.abs_diff(seen) <= TICK, "nobody has seen Ada meanwhile");
    // The next one again, before those who came later.
    assert_eq!(stage.claim(), [(Transition::Offline, ada), (Transition::Offline, bob)]);
}

#[test]
fn rule_2_after_a_claim_that_is_taken_back_a_user_of_long_ago_was_seen_long_ago() {
    // Longer than the ticks of an entry reach, so that nothing but its extra knows.
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
    // A timeout that has a number, and so no extra; but the process was stopped.
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
    let ada = stage.begin_offline(ADA);
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
    assert_eq!(stage.presence.heartbeat(ADA, stage.now, 9 * SECOND), HeartbeatOutcome::Known);
    let beaten = stage.now;
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    stage.wait(SECOND);
    stage.announced(ada, CallbackOutcome::Returned);
    let returned = stage.now;
    // Its timeout is the newer one.
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    stage.ends_at(returned + 9 * SECOND, ada);
}

// Rule 4: a heartbeat while somebody is inside `offline` is remembered.

#[test]
fn rule_4_a_heartbeat_during_offline_is_followed_by_online() {
    let mut stage = Stage::new();
    let ada = stage.begin_offline(ADA);
    assert_eq!(stage.beat(ADA), HeartbeatOutcome::Known);
    assert!(!stage.is_online(ADA));
    assert_eq!(stage.claim(), [], "offline has not returned");
    assert_eq!(stage.presence.departed(ada), Departed::Rejoining);
    // The next one still finds the user known: `online` is called once.
    assert_eq!(stage.beat(ADA), HeartbeatOutcome::Known);
    assert!(stage.presence.is_claimable());
    assert_eq!(stage.claim(), [(Transition::Online, ada)]);
    assert!(stage.is_online(ADA));
    assert_eq!(stage.announced(ada, CallbackOutcome::Returned), Announced::Online);
}

#[test]
fn rule_4_who_is_revived_was_seen_at_that_heartbeat() {
    let mut stage = Stage::new();
    let ada = stage.begin_offline(ADA);
    stage.wait(SECOND);
    assert_eq!(stage.presence.heartbeat(ADA, stage.now, 9 * SECOND), HeartbeatOutcome::Known);
    let beaten = stage.now;
    stage.wait(SECOND);
    stage.presence.departed(ada);
    stage.claim();
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    stage.announced(ada, CallbackOutcome::Returned);
    assert!(stage.presence.last_seen(ADA, stage.now).unwrap().abs_diff(beaten) <= TICK);
    let returned = stage.now;
    stage.ends_at(returned + 9 * SECOND, ada);
}
