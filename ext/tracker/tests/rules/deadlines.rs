//! Rules 5 and 13: when a user is due, and which entries the wheel has for a user.

use online_manager_tracker::presence::{Next, Presence};
use online_manager_tracker::{CallbackOutcome, Departed, HeartbeatOutcome, Id, Nanos, Stall, TICK, Transition, User};

use crate::harness::{ADA, BOB, CY, Harness, SECOND, TIMEOUT};

// Rule 5: never early, and not late.

/// Asserts that `user` can be claimed after `time` nanoseconds, and not a nanosecond before.
#[track_caller]
fn assert_due_after(harness: &mut Harness, time: Nanos, user: User) {
    let due = harness.now + time;
    harness.wait(time - 1);
    assert_eq!(harness.claim(), []);
    // The deadline is rounded up to a tick.
    harness.wait(1 + due.next_multiple_of(TICK) - due);
    assert_eq!(harness.claim(), [(Transition::Offline, user)]);
}

#[test]
fn rule_5_the_first_deadline_counts_from_the_return_of_online() {
    for jitter in [0, 1, 5_000_000] {
        let mut harness = Harness::with_jitter(jitter);
        let ada = harness.announce(ADA);
        harness.wait(2 * TIMEOUT);
        harness.announced(ada, CallbackOutcome::Returned);
        assert_due_after(&mut harness, TIMEOUT + jitter, ada);
    }
}

#[test]
fn rule_5_each_later_deadline_counts_from_its_heartbeat() {
    for jitter in [0, 1, 5_000_000] {
        let mut harness = Harness::with_jitter(jitter);
        let ada = harness.come_online(ADA);
        for _ in 0..10 {
            harness.wait(SECOND / 3);
            harness.heartbeat(ADA);
        }
        assert_due_after(&mut harness, TIMEOUT + jitter, ada);
    }
}

#[test]
fn rule_5_a_deadline_at_the_very_start_of_a_tick_is_not_put_off() {
    let mut harness = Harness::new();
    harness.now = harness.now.next_multiple_of(TICK);
    let user = match harness.presence.heartbeat(ADA, harness.now, 3 * TICK) {
        HeartbeatOutcome::Announce(user) => user,
        outcome => panic!("{outcome:?}"),
    };
    harness.presence.announced(user, harness.now, 3 * TICK, CallbackOutcome::Returned);
    harness.wait(3 * TICK - 1);
    assert_eq!(harness.claim(), []);
    harness.wait(1);
    assert_eq!(harness.claim(), [(Transition::Offline, user)]);
}

#[test]
fn rule_5_a_shorter_timeout_brings_the_deadline_forward() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    assert_eq!(harness.presence.heartbeat(ADA, harness.now, SECOND), HeartbeatOutcome::Known);
    assert!(harness.presence.take_wake_request(), "the timer would come too late");
    let seen_at = harness.now;
    harness.assert_offline_at(seen_at + SECOND, ada);
}

#[test]
fn rule_5_an_overtaken_heartbeat_does_not_bring_the_deadline_forward() {
    // Of two threads with a heartbeat, one reads the clock earlier and takes the lock later.
    for overtaken_by in [1, TICK, 40 * TICK, SECOND] {
        let mut harness = Harness::new();
        let ada = harness.come_online(ADA);
        harness.wait(3 * SECOND);
        harness.heartbeat(ADA);
        let seen_at = harness.now;
        assert_eq!(harness.presence.heartbeat(ADA, harness.now - overtaken_by, TIMEOUT), HeartbeatOutcome::Known);
        harness.assert_offline_at(seen_at + TIMEOUT, ada);
    }
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let returned = harness.now;
    assert_eq!(harness.presence.heartbeat(ADA, harness.now - 2 * TICK, TIMEOUT), HeartbeatOutcome::Known);
    harness.assert_offline_at(returned + TIMEOUT, ada);
}

#[test]
fn rule_5_no_heartbeat_makes_its_user_due() {
    let mut harness = Harness::new();
    harness.now = harness.now.next_multiple_of(TICK);
    let ada = harness.come_online(ADA);
    harness.presence.heartbeat(ADA, harness.now, 0);
    // A heartbeat does not raise the signal, so the user would stay unclaimed.
    assert!(!harness.presence.is_claimable());
    assert!(harness.presence.take_wake_request());
    harness.wait(TICK);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_5_the_timer_is_woken_when_it_would_come_too_late() {
    let mut harness = Harness::new();
    assert_eq!(harness.step(), Next::Never);
    harness.come_online(ADA);
    assert!(harness.presence.take_wake_request());
    assert!(!harness.presence.take_wake_request(), "a request is returned once");
    let Next::At(moment) = harness.step() else { panic!("the timer waits for Ada") };
    assert!(moment <= (harness.now + TIMEOUT).next_multiple_of(TICK));
    // The timer comes early enough for Bob already.
    harness.come_online(BOB);
    assert!(!harness.presence.take_wake_request());
    harness.presence.heartbeat(CY, harness.now, TICK);
    assert!(!harness.presence.take_wake_request(), "Cy has no deadline before online has returned");
}

#[test]
fn rule_5_the_timer_is_not_woken_for_a_tick_that_it_waits_for() {
    let mut harness = Harness::new();
    // So soon that the wheel has a slot for the exact tick.
    for (id, is_earlier) in [(ADA, true), (BOB, false)] {
        harness.come_online_for(id, TICK);
        assert_eq!(harness.presence.take_wake_request(), is_earlier);
        harness.step();
    }
}

#[test]
fn rule_5_a_wheel_entry_is_for_a_tick_that_the_hand_has_not_passed() {
    // The next tick looks queued, so the wheel has no entries for it. Another thread read the clock just before the
    // timer.
    let hand = (1 << 27) - 1;
    let mut harness = Harness { presence: Presence::new(0, 0), now: (hand - 1) * TICK };
    harness.presence.advance(hand * TICK, usize::MAX);
    let ada = harness.come_online_for(ADA, 1);
    harness.wait(4 * TICK);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_5_many_small_steps_find_the_same_users_as_one() {
    let mut harness = Harness::new();
    for number in 0..500 {
        harness.come_online(Id::Key(number << 2 | 1));
    }
    harness.now += TIMEOUT + TICK;
    let mut steps = 0;
    while harness.presence.advance(harness.now, 7) == Next::Now {
        steps += 1;
        assert!(steps < 1_000);
    }
    assert!(steps >= 500 / 7);
    assert_eq!(harness.presence.counts().due, 500);
}

// Rule 13: of a user's wheel entries, only the recorded one counts.

/// What is kept of a user: the entry, and one key on the wheel or in the due queue.
const ONE_OF_EACH: usize = 2;

#[test]
fn rule_13_a_wheel_entry_that_was_left_behind_is_dropped() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    // The deadline moves forward, and back again: the first wheel entry comes up later than the second.
    harness.presence.heartbeat(ADA, harness.now, SECOND);
    harness.heartbeat(ADA);
    harness.wait(TIMEOUT - SECOND);
    harness.heartbeat(ADA);
    let seen_at = harness.now;
    // A little less than the timeout, so all earlier wheel entries have come up.
    harness.wait(TIMEOUT - 2 * TICK);
    assert_eq!(harness.presence.kept(), ONE_OF_EACH);
    assert_eq!(harness.claim(), []);
    harness.assert_offline_at(seen_at + TIMEOUT, ada);
}

#[test]
fn rule_13_a_user_is_in_the_due_queue_once() {
    let mut harness = Harness::new();
    harness.come_online(ADA);
    for seconds in [4, 3, 2] {
        harness.presence.heartbeat(ADA, harness.now, seconds * SECOND);
    }
    harness.leave(ADA, SECOND);
    harness.leave(ADA, 0);
    harness.leave(ADA, 0);
    assert_eq!(harness.presence.counts().due, 1);
    harness.wait(2 * TIMEOUT);
    assert_eq!(harness.presence.counts().due, 1);
    assert_eq!(harness.claim().len(), 1);
    // The entry and its overflow entry.
    assert_eq!(harness.presence.kept(), 2);
}

#[test]
fn rule_13_a_user_is_in_the_due_queue_once_after_any_time() {
    let hour = 3_600 * SECOND;
    for hours in [1, 18, 20, 30, 38, 40, 60, 78, 80, 200] {
        let mut harness = Harness::new();
        let ada = harness.come_online(ADA);
        harness.wait(TIMEOUT + TICK);
        harness.wait(hours * hour);
        for _ in 0..3 {
            harness.leave(ADA, 0);
            harness.heartbeat(ADA);
            assert_eq!(harness.presence.heartbeat(ADA, harness.now, SECOND), HeartbeatOutcome::Known);
        }
        assert_eq!(harness.presence.counts().due, 1, "after {hours} hours");
        assert_eq!(harness.presence.kept(), ONE_OF_EACH, "after {hours} hours");
        // The heartbeats count: the user leaves the due queue for the wheel.
        assert_eq!(harness.claim(), []);
        assert_eq!(harness.presence.kept(), ONE_OF_EACH);
        let seen_at = harness.now;
        harness.assert_offline_at(seen_at + SECOND, ada);
    }
}

#[test]
fn rule_13_a_timer_that_comes_a_month_late_loses_no_user() {
    // The process was suspended: the wheel's hand lags behind when a user is scheduled.
    for days in [1, 2, 10, 14, 30] {
        let mut harness = Harness::new();
        let bob = harness.come_online(BOB);
        harness.now += days * 86_400 * SECOND;
        harness.heartbeat(BOB);
        let ada = harness.come_online(ADA);
        let seen_at = harness.now;
        harness.step();
        assert_eq!(harness.claim(), [], "after {days} days");
        harness.wait(seen_at + TIMEOUT + TICK - harness.now);
        let mut claimed = harness.claim();
        claimed.sort_by_key(|(_, user)| user.key());
        let mut both = [ada, bob];
        both.sort_by_key(|user| user.key());
        assert_eq!(claimed, both.map(|user| (Transition::Offline, user)), "after {days} days");
    }
}

// The other tests rely on this: `kept` counts everything.

#[test]
fn kept_counts_everything_that_is_held() {
    let mut harness = Harness::new();
    let users = [ADA, CY, Id::Key(9)].map(|id| harness.come_online(id));
    assert_eq!(harness.presence.kept(), 3 + 3, "in the table and on the wheel");
    harness.now += TIMEOUT + TICK;
    assert_eq!(harness.presence.advance(harness.now, 1), Next::Now);
    assert_eq!(harness.presence.kept(), 3 + 2 + 1, "drained from the wheel, and in the due queue");
    harness.step();
    let mut claimed = Vec::new();
    harness.presence.claim(harness.now, 1, &mut claimed);
    assert_eq!(claimed.len(), 1);
    harness.presence.heartbeat(ADA, harness.now, TIMEOUT);
    assert_eq!(harness.presence.departed(users[0]), Departed::Rejoining);
    assert_eq!(harness.presence.kept(), 3 + 2 + 1 + 1, "in the due queue, with an overflow entry, and rejoining");
}

// Rule 14: stalls.

#[test]
fn rule_14_a_heartbeat_that_waited_during_a_stall_keeps_its_user_online() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.come_online(BOB);
    let start = harness.now + SECOND;
    harness.now += 3 * TIMEOUT;
    harness.presence.add_stall(Stall { start, end: harness.now });
    harness.step();
    assert_eq!(harness.claim(), [], "nobody is claimed at once");
    // Bob's heartbeat is read, Ada's never comes.
    harness.now += SECOND;
    harness.presence.heartbeat(BOB, harness.now, TIMEOUT);
    harness.assert_offline_at(start - SECOND + 4 * TIMEOUT - 2 * TICK, ada);
    assert!(harness.is_online(BOB));
}

#[test]
fn rule_14_stalls_one_after_the_other_keep_nobody_online_for_more_than_one_of_them_and_a_timeout() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let deadline = harness.now + TIMEOUT;
    let length = SECOND / 2;
    loop {
        let start = harness.now;
        harness.wait(length);
        harness.presence.add_stall(Stall { start, end: harness.now });
        if harness.claim() == [(Transition::Offline, ada)] {
            break;
        }
        assert!(harness.now <= deadline + 2 * length + TICK, "Ada stays online for ever");
    }
    assert!(harness.now >= deadline);
}

#[test]
fn rule_14_a_leave_is_not_put_off_by_a_stall_before_it() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let start = harness.now + SECOND;
    harness.now += 2 * TIMEOUT;
    harness.presence.add_stall(Stall { start, end: harness.now });
    harness.step();
    assert_eq!(harness.claim(), []);
    harness.leave(ADA, 0);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_14_a_leave_is_claimed_at_once_though_a_stall_ends_with_the_claim() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    let start = harness.now;
    harness.now += SECOND;
    harness.leave(ADA, 0);
    harness.now += TICK / 4;
    harness.presence.add_stall(Stall { start, end: harness.now });
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
}
