//! Rules 7, 10 and 11: how callbacks end, and what they are called for.

use online_manager_tracker::{
    Announced, CallbackOutcome, Counts, Departed, HeartbeatOutcome, Reason, TICK, Transition,
};

use crate::stage::{ADA, BOB, CY, SECOND, Stage, TIMEOUT};

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
    assert_eq!(stage.announced(again, CallbackOutcome::Returned), Announced::Online);
}

// Rule 10: any way out of `online` but a normal return means Offline.

#[test]
fn rule_10_an_online_that_raised_leaves_its_user_offline() {
    let mut stage = Stage::new();
    let ada = stage.announce(ADA);
    stage.wait(SECOND);
    stage.beat(ADA);
    assert_eq!(stage.announced(ada, CallbackOutcome::Aborted), Announced::Offline);
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
    stage.announced(ada, CallbackOutcome::Aborted);
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
    assert_eq!(stage.announced(ada, CallbackOutcome::Returned), Announced::Online);
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
    assert_eq!(stage.beat(ADA), HeartbeatOutcome::Known);
    let bob = stage.come_online(BOB);
    stage.leave(BOB, 0);
    assert_eq!(stage.claim(), [(Transition::Online, ada), (Transition::Offline, bob)]);
    // Its end is as any other's.
    assert_eq!(stage.announced(ada, CallbackOutcome::Aborted), Announced::Offline);
    assert!(!stage.presence.is_known(ADA));
}

// What a claim tells of the callback that it is for.

#[test]
fn a_claim_says_why_and_how_late_it_comes() {
    let mut stage = Stage::new();
    let reasons = |stage: &mut Stage| {
        let mut work = Vec::new();
        stage.step();
        stage.presence.claim(stage.now, 1, &mut work);
        work.first().map(|work| (work.reason, work.lateness / SECOND))
    };
    let ada = stage.come_online(ADA);
    stage.wait(TIMEOUT + 3 * SECOND + TICK);
    assert_eq!(reasons(&mut stage), Some((Reason::Timeout, 3)));
    stage.beat(ADA);
    stage.now += 2 * SECOND + TICK;
    assert_eq!(stage.presence.departed(ada), Departed::Rejoining);
    assert_eq!(reasons(&mut stage), Some((Reason::Heartbeat, 2)), "an online that has waited for its offline");
    stage.announced(ada, CallbackOutcome::Returned);
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
    stage.announced(cy, CallbackOutcome::Returned);
    assert_eq!(reasons(&mut stage).map(|(reason, _)| reason), Some(Reason::Leave), "during online");
    stage.presence.departed(cy);

    stage.come_online(ADA);
    stage.leave(ADA, SECOND);
    stage.presence.stop();
    assert_eq!(reasons(&mut stage), Some((Reason::Stop, 0)));
}
