//! Rules 8, 9 and 12: leaves and stops.

use online_manager_tracker::presence::Next;
use online_manager_tracker::{
    Announced, CallbackOutcome, Counts, Departed, HeartbeatOutcome, Id, TICK, Transition, User,
};

use crate::stage::{ADA, BOB, CY, SECOND, Stage, TIMEOUT};

// Rule 8: a stop sets each remaining user offline, once.

#[test]
fn rule_8_each_remaining_user_is_set_offline_once() {
    for most in [1, 3, 1_000] {
        let mut stage = Stage::new();
        let users: Vec<User> = (0..300u64).map(|number| stage.come_online(Id::Key(number << 2 | 1))).collect();
        // Some are due anyway, some have left, one is in the middle of it.
        for number in 0..20 {
            stage.leave(Id::Key(number << 2 | 1), if number < 10 { 0 } else { SECOND });
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
        let key = |user: &User| user.key();
        offline.sort_by_key(key);
        assert_eq!(offline, { users.clone() });
        assert_eq!(stage.presence.kept(), 0);
        assert!(!stage.presence.is_claimable());
        assert_eq!(stage.step(), Next::Never);
    }
}

#[test]
fn rule_8_a_claim_taken_back_after_a_stop_is_made_again() {
    let mut stage = Stage::new();
    let ada = stage.come_online(ADA);
    stage.presence.stop();
    assert_eq!(stage.claim(), [(Transition::Offline, ada)]);
    assert_eq!(stage.presence.unclaim(ada, Transition::Offline, stage.now), Departed::Rejoining);
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
    assert!(stage.presence.take_wake_request());
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
    stage.announced(ada, CallbackOutcome::Returned);
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
    assert_eq!(stage.announced(ada, CallbackOutcome::Returned), Announced::Online);
    stage.ends_at(seen + 2 * SECOND, ada);

    let bob = stage.announce(BOB);
    stage.leave(BOB, 2 * TIMEOUT);
    stage.announced(bob, CallbackOutcome::Returned);
    let returned = stage.now;
    stage.ends_at(returned + TIMEOUT, bob);
}

#[test]
fn rule_9_a_heartbeat_clears_a_leave_during_online() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.leave(ADA, 0);
    stage.beat(ADA);
    stage.announced(ada, CallbackOutcome::Returned);
    assert_eq!(stage.claim(), []);
    let returned = stage.now;
    stage.ends_at(returned + TIMEOUT, ada);
}

#[test]
fn rule_9_a_leave_during_offline_clears_the_heartbeat_before_it() {
    let mut stage = Stage::new();
    let ada = stage.begin_offline(ADA);
    stage.beat(ADA);
    assert_eq!(stage.presence.leave(ADA, stage.now, 0).forgotten, None);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    assert_eq!(stage.claim(), []);
    stage.announce(ADA);
}

#[test]
fn rule_9_a_leave_before_a_heartbeat_during_offline_clears_nothing() {
    let mut stage = Stage::new();
    let ada = stage.begin_offline(ADA);
    stage.leave(ADA, 0);
    stage.beat(ADA);
    assert_eq!(stage.presence.departed(ada), Departed::Rejoining);
}

#[test]
fn rule_9_who_waits_to_be_announced_is_forgotten_by_a_leave() {
    let mut stage = Stage::new();
    let ada = stage.begin_offline(ADA);
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
            assert_eq!(stage.presence.unclaim(ada, Transition::Online, stage.now), Departed::Rejoining);
            assert!(!stage.is_online(ADA));
            assert_eq!(stage.claim(), [(Transition::Online, ada)]);
            assert_eq!(stage.announced(ada, CallbackOutcome::Returned), Announced::Online);
        }
    }
    assert_eq!(stage.presence.counts(), Counts::default());
}

// Rule 12: a stop.

#[test]
fn rule_12_a_stop_bars_new_users_and_ignores_heartbeats() {
    let mut stage = Stage::new();
    stage.come_online(ADA);
    assert!(!stage.presence.is_stopping());
    stage.presence.stop();
    assert!(stage.presence.is_stopping());
    assert_eq!(stage.beat(ADA), HeartbeatOutcome::Ignored);
    assert_eq!(stage.beat(BOB), HeartbeatOutcome::Ignored);
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
    assert_eq!(stage.announced(ada, CallbackOutcome::Returned), Announced::Depart);
    assert!(!stage.is_online(ADA));
    // That is the business of whoever was in it.
    assert_eq!(stage.claim(), []);
    assert_eq!(stage.presence.departed(ada), Departed::Offline);
    assert_eq!(stage.announced(bob, CallbackOutcome::Aborted), Announced::Offline);
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
