//! Rules 8, 9 and 12: leaves and stops.

use online_manager_tracker::presence::Next;
use online_manager_tracker::{
    Announced, CallbackOutcome, Counts, Departed, HeartbeatOutcome, Id, TICK, Transition, User,
};

use crate::harness::{ADA, BOB, CY, Harness, SECOND, TIMEOUT};

// Rule 8: a stop sets each remaining user offline, once.

#[test]
fn rule_8_each_remaining_user_is_set_offline_once() {
    for max in [1, 3, 1_000] {
        let mut harness = Harness::new();
        let users: Vec<User> = (0..300u64).map(|number| harness.come_online(Id::Key(number << 2 | 1))).collect();
        // Ten are due, ten leave in a second, one is inside `offline`.
        for number in 0..20 {
            harness.leave(Id::Key(number << 2 | 1), if number < 10 { 0 } else { SECOND });
        }
        let mut departing = Vec::new();
        harness.presence.claim(harness.now, 1, &mut departing);
        let mut offline = vec![departing[0].user];
        assert_eq!(harness.presence.stop(), []);
        assert!(harness.presence.is_claimable());
        loop {
            let mut claimed = Vec::new();
            if harness.presence.claim(harness.now, max, &mut claimed).is_none() {
                break;
            }
            assert!(claimed.len() <= max);
            for claimed in claimed {
                assert_eq!(harness.presence.departed(claimed.user), Departed::Offline);
                offline.push(claimed.user);
            }
        }
        assert_eq!(harness.presence.departed(departing[0].user), Departed::Offline);
        let key = |user: &User| user.key();
        offline.sort_by_key(key);
        assert_eq!(offline, { users.clone() });
        assert_eq!(harness.presence.kept(), 0);
        assert!(!harness.presence.is_claimable());
        assert_eq!(harness.step(), Next::Never);
    }
}

#[test]
fn rule_8_a_claim_taken_back_after_a_stop_is_made_again() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.presence.stop();
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    assert_eq!(harness.presence.unclaim(ada, Transition::Offline, harness.now), Departed::Rejoining);
    assert!(harness.presence.is_claimable());
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
    assert_eq!(harness.presence.kept(), 0);
}

#[test]
fn rule_8_a_leave_after_a_stop_changes_nothing() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.presence.stop();
    assert!(harness.leave(ADA, 0));
    assert!(harness.leave(ADA, SECOND));
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    harness.presence.departed(ada);
    assert!(!harness.presence.is_claimable(), "the reactor would be woken for ever");
    assert_eq!(harness.presence.kept(), 0);
}

// Rule 9: `leave` makes the user due, and a later heartbeat cancels it.

#[test]
fn rule_9_a_user_who_leaves_is_due_at_once() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    assert!(harness.leave(ADA, 0));
    assert!(harness.is_online(ADA));
    // Without a step of the timer.
    assert!(harness.presence.is_claimable());
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    assert!(!harness.leave(ADA, 0));
    assert!(!harness.leave(BOB, 0));
}

#[test]
fn rule_9_a_delayed_leave_is_due_after_its_delay() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let left = harness.now;
    assert!(harness.leave(ADA, 2 * SECOND));
    assert!(harness.presence.take_wake_request());
    // A leave never postpones an earlier deadline.
    assert!(harness.leave(ADA, 3 * SECOND));
    harness.assert_offline_at(left + 2 * SECOND, ada);

    let bob = harness.come_online(BOB);
    let seen = harness.now;
    harness.leave(BOB, TIMEOUT + SECOND);
    harness.assert_offline_at(seen + TIMEOUT, bob);
}

#[test]
fn rule_9_a_leave_at_the_current_deadline_needs_no_overflow_entry() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    harness.leave(ADA, TIMEOUT);
    harness.announced(ada, CallbackOutcome::Returned);
    let kept = harness.presence.kept();
    harness.leave(ADA, TIMEOUT);
    assert_eq!([kept, harness.presence.kept()], [2, 2], "the user and the wheel entry");
}

#[test]
fn rule_9_a_leave_does_not_change_when_a_user_was_seen() {
    let mut harness = Harness::new();
    harness.come_online(ADA);
    let seen = harness.now;
    harness.wait(2 * SECOND);
    harness.leave(ADA, SECOND);
    assert!(harness.presence.last_seen(ADA, harness.now).unwrap().abs_diff(seen) <= TICK);
    harness.leave(ADA, 0);
    assert!(harness.presence.last_seen(ADA, harness.now).unwrap().abs_diff(seen) <= TICK);
}

#[test]
fn rule_9_a_heartbeat_before_the_claim_cancels_a_leave() {
    for after in [0, SECOND] {
        let mut harness = Harness::new();
        let ada = harness.come_online(ADA);
        harness.leave(ADA, after);
        harness.heartbeat(ADA);
        let seen_at = harness.now;
        harness.assert_offline_at(seen_at + TIMEOUT, ada);
    }
}

#[test]
fn rule_9_a_leave_during_online_is_remembered() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    let seen = harness.now;
    assert!(harness.leave(ADA, 9 * SECOND));
    assert!(harness.leave(ADA, 2 * SECOND));
    assert!(harness.leave(ADA, 3 * SECOND));
    harness.wait(SECOND);
    assert_eq!(harness.announced(ada, CallbackOutcome::Returned), Announced::Online);
    harness.assert_offline_at(seen + 2 * SECOND, ada);

    let bob = harness.announce(BOB);
    harness.leave(BOB, 2 * TIMEOUT);
    harness.announced(bob, CallbackOutcome::Returned);
    let returned = harness.now;
    harness.assert_offline_at(returned + TIMEOUT, bob);
}

#[test]
fn rule_9_a_heartbeat_clears_a_leave_during_online() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    harness.leave(ADA, 0);
    harness.heartbeat(ADA);
    harness.announced(ada, CallbackOutcome::Returned);
    assert_eq!(harness.claim(), []);
    let returned = harness.now;
    harness.assert_offline_at(returned + TIMEOUT, ada);
}

#[test]
fn rule_9_a_leave_during_offline_clears_the_heartbeat_before_it() {
    let mut harness = Harness::new();
    let ada = harness.begin_offline(ADA);
    harness.heartbeat(ADA);
    assert_eq!(harness.presence.leave(ADA, harness.now, 0).forgotten, None);
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
    assert_eq!(harness.claim(), []);
    harness.announce(ADA);
}

#[test]
fn rule_9_a_leave_before_a_heartbeat_during_offline_clears_nothing() {
    let mut harness = Harness::new();
    let ada = harness.begin_offline(ADA);
    harness.leave(ADA, 0);
    harness.heartbeat(ADA);
    assert_eq!(harness.presence.departed(ada), Departed::Rejoining);
}

#[test]
fn rule_9_a_leave_forgets_a_rejoining_user() {
    let mut harness = Harness::new();
    let ada = harness.begin_offline(ADA);
    harness.heartbeat(ADA);
    harness.presence.departed(ada);
    let left = harness.presence.leave(ADA, harness.now, 0);
    assert!(!left.was_online);
    assert_eq!(left.forgotten, Some(ada));
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.presence.kept(), 0);
}

#[test]
fn rule_9_a_leave_cancels_an_online_that_was_never_entered() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    for leaves in [false, true] {
        harness.leave(ADA, 0);
        harness.claim();
        harness.heartbeat(ADA);
        harness.presence.departed(ada);
        assert_eq!(harness.claim(), [(Transition::Online, ada)]);
        if leaves {
            harness.leave(ADA, 0);
            assert_eq!(harness.presence.unclaim(ada, Transition::Online, harness.now), Departed::Offline);
            assert_eq!(harness.claim(), []);
        } else {
            assert_eq!(harness.presence.unclaim(ada, Transition::Online, harness.now), Departed::Rejoining);
            assert!(!harness.is_online(ADA));
            assert_eq!(harness.claim(), [(Transition::Online, ada)]);
            assert_eq!(harness.announced(ada, CallbackOutcome::Returned), Announced::Online);
        }
    }
    assert_eq!(harness.presence.counts(), Counts::default());
}

// Rule 12: a stop.

#[test]
fn rule_12_a_stop_bars_new_users_and_ignores_heartbeats() {
    let mut harness = Harness::new();
    harness.come_online(ADA);
    assert!(!harness.presence.is_stopping());
    harness.presence.stop();
    assert!(harness.presence.is_stopping());
    assert_eq!(harness.heartbeat(ADA), HeartbeatOutcome::Ignored);
    assert_eq!(harness.heartbeat(BOB), HeartbeatOutcome::Ignored);
    assert!(!harness.presence.is_known(BOB));
}

#[test]
fn rule_12_a_stop_drops_remembered_heartbeats() {
    let mut harness = Harness::new();
    let [ada, bob, cy] = [ADA, BOB, CY].map(|id| harness.come_online(id));
    harness.wait(TIMEOUT + TICK);
    harness.claim();
    // Ada is rejoining, Bob is inside `offline` with a heartbeat to remember, Cy is inside `offline` without.
    harness.heartbeat(ADA);
    harness.presence.departed(ada);
    harness.heartbeat(BOB);
    assert_eq!(harness.presence.stop(), [ada]);
    assert_eq!(harness.presence.departed(bob), Departed::Offline);
    assert_eq!(harness.presence.departed(cy), Departed::Offline);
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.presence.stop(), []);
    assert_eq!(harness.presence.kept(), 0);
}

#[test]
fn rule_12_a_stop_does_not_wait_for_online_and_offline_follows_it() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    let bob = harness.announce(BOB);
    let seen_at = harness.now;
    harness.now += SECOND;
    harness.presence.stop();
    assert!(!harness.presence.is_claimable());
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.announced(ada, CallbackOutcome::Returned), Announced::Depart);
    assert!(harness.presence.last_seen_in_callback(ada, harness.now).unwrap().abs_diff(seen_at) <= TICK);
    assert!(!harness.is_online(ADA));
    // The thread that called `online` calls `offline`, not the reactor.
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
    assert_eq!(harness.announced(bob, CallbackOutcome::Aborted), Announced::Offline);
    assert_eq!(harness.presence.kept(), 0);
}

#[test]
fn rule_12_a_stop_drops_an_online_that_was_never_entered() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.leave(ADA, 0);
    harness.claim();
    harness.heartbeat(ADA);
    harness.presence.departed(ada);
    assert_eq!(harness.claim(), [(Transition::Online, ada)]);
    harness.presence.stop();
    assert_eq!(harness.presence.unclaim(ada, Transition::Online, harness.now), Departed::Offline);
    assert_eq!(harness.presence.kept(), 0);
}
