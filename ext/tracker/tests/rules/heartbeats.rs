//! Rules 1 to 4: `online` and `offline` alternate, whenever a heartbeat comes.

use online_manager_tracker::presence::Presence;
use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, OwnedId, Reason, TICK, Transition,
};

use crate::harness::{ADA, BOB, Harness, SECOND, TIMEOUT};

// Rule 1: `online` and `offline` alternate and never overlap.

#[test]
fn rule_1_only_the_first_heartbeat_calls_online() {
    let mut harness = Harness::new();
    let user = harness.announce(ADA);
    for _ in 0..3 {
        assert_eq!(harness.heartbeat(ADA), HeartbeatOutcome::Known);
    }
    harness.announced(user, CallbackOutcome::Returned);
    assert_eq!(harness.heartbeat(ADA), HeartbeatOutcome::Known);
}

#[test]
fn rule_1_a_user_is_claimed_once() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.wait(TIMEOUT + TICK);
    harness.step();
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    harness.wait(TIMEOUT);
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
    harness.wait(TIMEOUT);
    assert_eq!(harness.claim(), []);
}

#[test]
fn rule_1_a_user_inside_online_holds_up_nobody_else() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    let bob = harness.come_online(BOB);
    harness.wait(TIMEOUT + TICK);
    assert_eq!(harness.claim(), [(Transition::Offline, bob)]);
    assert_eq!(harness.presence.departed(bob), Departed::Offline);
    assert_eq!(harness.announced(ada, CallbackOutcome::Returned), Announced::Online);
}

#[test]
fn rule_1_the_answers_between_callbacks_match_the_last_callback() {
    let mut harness = Harness::new();
    assert!(!harness.is_online(ADA));
    let ada = harness.announce(ADA);
    assert!(harness.is_online(ADA));
    harness.announced(ada, CallbackOutcome::Returned);
    harness.wait(TIMEOUT + TICK);
    assert!(harness.is_online(ADA));
    harness.claim();
    assert!(!harness.is_online(ADA));
    assert_eq!(harness.presence.last_seen(ADA, harness.now), None);
    assert!(harness.presence.is_known(ADA));
    harness.presence.departed(ada);
    assert!(!harness.presence.is_known(ADA));
}

#[test]
fn rule_1_a_callback_ends_once() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    assert_eq!(harness.announced(ada, CallbackOutcome::Aborted), Announced::Offline);
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
    for transition in [Transition::Online, Transition::Offline] {
        harness.presence.unclaim(ada, transition, harness.now);
    }
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.presence.counts(), Counts { present: 1, sessions: 1, ..Counts::default() });
    assert!(harness.is_online(ADA));
    harness.presence.leave(ADA, harness.now, 0);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    assert_eq!(harness.announced(ada, CallbackOutcome::Returned), Announced::Offline);
    assert!(!harness.is_online(ADA));
}

// Rule 2: a heartbeat before the claim keeps the user online.

#[test]
fn rule_2_a_heartbeat_keeps_a_due_user_online() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let bob = harness.come_online(BOB);
    harness.wait(TIMEOUT + TICK);
    assert_eq!(harness.presence.counts().due, 2);
    assert_eq!(harness.heartbeat(ADA), HeartbeatOutcome::Known);
    assert_eq!(harness.claim(), [(Transition::Offline, bob)]);
    harness.presence.departed(bob);
    let seen_at = harness.now;
    harness.assert_offline_at(seen_at + TIMEOUT, ada);
}

#[test]
fn rule_2_a_claim_without_a_callback_is_taken_back() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let bob = harness.come_online(BOB);
    let seen = harness.now;
    harness.wait(TIMEOUT + TICK);
    let mut claimed = Vec::new();
    assert_eq!(harness.presence.claim(harness.now, 1, &mut claimed), Some(Transition::Offline));
    let [Claimed { user, id: OwnedId::Key(1), reason: Reason::Timeout, lateness, .. }] = claimed[..] else {
        panic!("{claimed:?}")
    };
    assert_eq!(user, ada);
    assert!(lateness <= TICK, "{lateness} ns late");
    assert!(!harness.is_online(ADA));
    assert_eq!(harness.presence.unclaim(ada, Transition::Offline, harness.now), Departed::Rejoining);
    assert!(harness.is_online(ADA));
    let last_seen = harness.presence.last_seen(ADA, harness.now).unwrap();
    assert!(last_seen.abs_diff(seen) <= TICK, "no heartbeat of Ada came");
    // Ada is the next again, before users who were due later.
    assert_eq!(harness.claim(), [(Transition::Offline, ada), (Transition::Offline, bob)]);
}

#[test]
fn rule_2_a_claim_taken_back_keeps_the_last_seen_time_of_a_long_timeout() {
    // Beyond the horizon, so that only the overflow entry holds the moment.
    let timeout = 60 * 86_400 * SECOND;
    let mut harness = Harness::new();
    let ada = harness.come_online_for(ADA, timeout);
    let seen = harness.now;
    // In steps, since the wheel reaches less far.
    while harness.claim().is_empty() {
        harness.wait(timeout / 100);
    }
    harness.assert_claim_taken_back(ada, ADA, seen);
}

#[test]
fn rule_2_a_claim_taken_back_weeks_late_keeps_the_last_seen_time() {
    // The timeout has a number, so there is no overflow entry. The process was suspended.
    let timeout = 6 * 86_400 * SECOND;
    for days in [10, 20, 30, 38] {
        let mut harness = Harness::new();
        let ada = harness.come_online_for(ADA, timeout);
        let seen = harness.now;
        harness.wait(timeout + days * 86_400 * SECOND);
        assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
        harness.assert_claim_taken_back(ada, ADA, seen);
    }
}

#[test]
fn rule_2_a_claim_in_time_needs_no_overflow_entry() {
    // Soon and long after the start of the clock.
    for now in [SECOND, 20 * 86_400 * SECOND] {
        let mut harness = Harness { presence: Presence::new(now, 0), now };
        harness.come_online(ADA);
        harness.wait(TIMEOUT + TICK);
        assert_eq!(harness.claim().len(), 1);
        assert_eq!(harness.presence.kept(), 1, "the user in the table");
    }
}

#[test]
fn rule_2_a_heartbeat_before_a_claim_is_taken_back_counts() {
    let mut harness = Harness::new();
    let ada = harness.begin_offline(ADA);
    harness.wait(SECOND);
    harness.heartbeat(ADA);
    let seen_at = harness.now;
    harness.wait(SECOND);
    harness.presence.unclaim(ada, Transition::Offline, harness.now);
    assert!(harness.presence.last_seen(ADA, harness.now).unwrap().abs_diff(seen_at) <= TICK);
    harness.assert_offline_at(seen_at + TIMEOUT, ada);
}

// Rule 3: a heartbeat during `online` only moves the deadline.

#[test]
fn rule_3_a_heartbeat_during_online_counts() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    harness.wait(SECOND);
    assert_eq!(harness.presence.heartbeat(ADA, harness.now, 9 * SECOND), HeartbeatOutcome::Known);
    let seen_at = harness.now;
    assert!(harness.presence.last_seen(ADA, harness.now).unwrap().abs_diff(seen_at) <= TICK);
    harness.wait(SECOND);
    harness.announced(ada, CallbackOutcome::Returned);
    let returned = harness.now;
    // Its timeout is the newer one.
    assert!(harness.presence.last_seen(ADA, harness.now).unwrap().abs_diff(seen_at) <= TICK);
    harness.assert_offline_at(returned + 9 * SECOND, ada);
}

// Rule 4: a heartbeat during `offline` is remembered.

#[test]
fn rule_4_a_heartbeat_during_offline_is_followed_by_online() {
    let mut harness = Harness::new();
    let ada = harness.begin_offline(ADA);
    assert_eq!(harness.heartbeat(ADA), HeartbeatOutcome::Known);
    assert!(!harness.is_online(ADA));
    assert_eq!(harness.claim(), [], "offline has not returned");
    assert_eq!(harness.presence.departed(ada), Departed::Rejoining);
    // The next heartbeat finds the user known: `online` is called once.
    assert_eq!(harness.heartbeat(ADA), HeartbeatOutcome::Known);
    assert!(harness.presence.is_claimable());
    assert_eq!(harness.claim(), [(Transition::Online, ada)]);
    assert!(harness.is_online(ADA));
    assert_eq!(harness.announced(ada, CallbackOutcome::Returned), Announced::Online);
}

#[test]
fn rule_4_a_rejoining_user_was_last_seen_at_that_heartbeat() {
    let mut harness = Harness::new();
    let ada = harness.begin_offline(ADA);
    harness.wait(SECOND);
    assert_eq!(harness.presence.heartbeat(ADA, harness.now, 9 * SECOND), HeartbeatOutcome::Known);
    let seen_at = harness.now;
    harness.wait(SECOND);
    harness.presence.departed(ada);
    harness.claim();
    assert!(harness.presence.last_seen(ADA, harness.now).unwrap().abs_diff(seen_at) <= TICK);
    harness.announced(ada, CallbackOutcome::Returned);
    assert!(harness.presence.last_seen(ADA, harness.now).unwrap().abs_diff(seen_at) <= TICK);
    let returned = harness.now;
    harness.assert_offline_at(returned + 9 * SECOND, ada);
}
