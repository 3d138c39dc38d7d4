//! Rules 7, 10 and 11: how callbacks end, and the reason of a claim.

use online_manager_tracker::{
    Announced, CallbackOutcome, Counts, Departed, HeartbeatOutcome, Reason, TICK, Transition,
};

use crate::harness::{ADA, BOB, CY, Harness, SECOND, TIMEOUT};

// Rule 7: the user stays offline, no matter how `offline` ends.

#[test]
fn rule_7_after_an_offline_that_raised_everything_goes_on() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let bob = harness.come_online(BOB);
    harness.wait(TIMEOUT + TICK);
    let mut claimed = Vec::new();
    harness.presence.claim(harness.now, 1, &mut claimed);
    // `departed` takes no outcome: an `offline` that raised has ended like any other.
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
    assert_eq!(harness.claim(), [(Transition::Offline, bob)]);
    assert!(!harness.is_online(ADA));
    let again = harness.announce(ADA);
    assert_eq!(harness.announced(again, CallbackOutcome::Returned), Announced::Online);
}

// Rule 10: the user is offline if `online` does not return normally.

#[test]
fn rule_10_an_online_that_raised_leaves_its_user_offline() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    harness.wait(SECOND);
    harness.heartbeat(ADA);
    assert_eq!(harness.announced(ada, CallbackOutcome::Aborted), Announced::Offline);
    assert!(!harness.is_online(ADA));
    // The heartbeats of other threads during `online` are lost too, and nothing of them is kept.
    assert_eq!(harness.presence.kept(), 0);
    assert_eq!(harness.presence.counts(), Counts::default());
    harness.wait(2 * TIMEOUT);
    assert_eq!(harness.claim(), []);
    harness.announce(ADA);
}

#[test]
fn rule_10_a_leave_during_an_online_that_raised_does_not_affect_the_next() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    harness.leave(ADA, 0);
    harness.announced(ada, CallbackOutcome::Aborted);
    harness.come_online(ADA);
    assert_eq!(harness.claim(), []);
}

// Rule 11: a user whose deadline passes during `online` is due when it returns.

#[test]
fn rule_11_a_deadline_that_passes_during_online_is_due_as_it_returns() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    harness.leave(ADA, SECOND);
    harness.wait(3 * SECOND);
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.announced(ada, CallbackOutcome::Returned), Announced::Online);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_11_the_reactor_calls_the_online_after_an_offline() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.leave(ADA, 0);
    harness.claim();
    harness.heartbeat(ADA);
    harness.presence.departed(ada);
    // No heartbeat calls it. The reactor does, before it sets another user offline.
    assert_eq!(harness.heartbeat(ADA), HeartbeatOutcome::Known);
    let bob = harness.come_online(BOB);
    harness.leave(BOB, 0);
    assert_eq!(harness.claim(), [(Transition::Online, ada), (Transition::Offline, bob)]);
    // It ends like any other `online`.
    assert_eq!(harness.announced(ada, CallbackOutcome::Aborted), Announced::Offline);
    assert!(!harness.presence.is_known(ADA));
}

// The reason and the lateness of a claim, and the last heartbeat before it.

/// How many whole seconds ago the user was last seen whom the next claim is for.
fn claim_seen_ago(harness: &mut Harness) -> Option<u64> {
    let mut claimed = Vec::new();
    harness.step();
    harness.presence.claim(harness.now, 1, &mut claimed);
    claimed.first().map(|claimed| (claimed.seen_ago + TICK) / SECOND)
}

#[test]
fn a_claim_carries_when_the_user_was_last_seen() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.wait(TIMEOUT + 3 * SECOND + TICK);
    let timeout = TIMEOUT / SECOND;
    assert_eq!(claim_seen_ago(&mut harness), Some(timeout + 3), "not the deadline, and not the claim");
    harness.presence.unclaim(ada, Transition::Offline, harness.now);
    harness.now += SECOND;
    assert_eq!(claim_seen_ago(&mut harness), Some(timeout + 4), "taken back, and claimed again");
    harness.heartbeat(ADA);
    harness.now += 2 * SECOND;
    harness.presence.departed(ada);
    assert_eq!(claim_seen_ago(&mut harness), Some(2), "the heartbeat during offline");
    harness.announced(ada, CallbackOutcome::Returned);

    harness.now += SECOND;
    harness.leave(ADA, SECOND);
    harness.now += 2 * SECOND;
    assert_eq!(claim_seen_ago(&mut harness), Some(5), "a leave is no heartbeat");
    harness.presence.departed(ada);

    let bob = harness.come_online(BOB);
    harness.now += 2 * SECOND;
    harness.presence.stop();
    assert_eq!(claim_seen_ago(&mut harness), Some(2), "a stop neither");
    harness.presence.departed(bob);
}

#[test]
fn a_claim_of_a_user_with_a_timeout_beyond_the_horizon_carries_when_the_user_was_last_seen() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let timeout = 60 * 86_400 * SECOND;
    harness.presence.heartbeat(ADA, harness.now, timeout);
    harness.now += timeout + 2 * SECOND;
    assert_eq!(harness.presence.last_seen_in_callback(ada, harness.now), None, "not claimed yet");
    assert_eq!(claim_seen_ago(&mut harness), Some(timeout / SECOND + 2));
    let last_seen = harness.presence.last_seen_in_callback(ada, harness.now).unwrap();
    assert_eq!((harness.now - last_seen + TICK) / SECOND, timeout / SECOND + 2);
}

#[test]
fn a_claim_carries_its_reason_and_its_lateness() {
    let mut harness = Harness::new();
    let reasons = |harness: &mut Harness| {
        let mut claimed = Vec::new();
        harness.step();
        harness.presence.claim(harness.now, 1, &mut claimed);
        claimed.first().map(|claimed| (claimed.reason, claimed.lateness / SECOND))
    };
    let ada = harness.come_online(ADA);
    harness.wait(TIMEOUT + 3 * SECOND + TICK);
    assert_eq!(reasons(&mut harness), Some((Reason::Timeout, 3)));
    harness.heartbeat(ADA);
    harness.now += 2 * SECOND + TICK;
    assert_eq!(harness.presence.departed(ada), Departed::Rejoining);
    assert_eq!(reasons(&mut harness), Some((Reason::Heartbeat, 2)), "an online that has waited for its offline");
    harness.announced(ada, CallbackOutcome::Returned);
    harness.leave(ADA, SECOND);
    harness.now += 2 * SECOND + TICK;
    assert_eq!(reasons(&mut harness), Some((Reason::Leave, 1)));
    harness.presence.unclaim(ada, Transition::Offline, harness.now);
    assert_eq!(reasons(&mut harness), Some((Reason::Leave, 1)), "taken back, and claimed again");
    harness.presence.departed(ada);

    let bob = harness.come_online(BOB);
    harness.leave(BOB, SECOND);
    harness.heartbeat(BOB);
    harness.now += TIMEOUT + TICK;
    assert_eq!(reasons(&mut harness), Some((Reason::Timeout, 0)), "the heartbeat has undone the leave");
    harness.presence.departed(bob);

    let cy = harness.announce(CY);
    harness.leave(CY, 0);
    harness.announced(cy, CallbackOutcome::Returned);
    assert_eq!(reasons(&mut harness).map(|(reason, _)| reason), Some(Reason::Leave), "during online");
    harness.presence.departed(cy);

    harness.come_online(ADA);
    harness.leave(ADA, SECOND);
    harness.presence.stop();
    assert_eq!(reasons(&mut harness), Some((Reason::Stop, 0)));
}
