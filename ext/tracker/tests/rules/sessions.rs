//! Rules S1 to S16: sessions. `TAB` and `PHONE` are sessions of Ada; `None` is her unnamed one.
//!
//! Over 400 lines: one rule after the other, in the order of the page, with the same sessions.

use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Departed, HeartbeatOutcome, Id, Nanos, OwnedId, Reason, Stall, StringId, TICK,
    Transition, User,
};

use crate::harness::{ADA, BOB, Harness, SECOND, TIMEOUT};

const TAB: Id<'_> = Id::Key(7);
const PHONE: Id<'_> = Id::String(StringId { bytes: b"phone", class: 1, label: 3 });

impl Harness {
    fn heartbeat_of(&mut self, session: Id<'_>, timeout: Nanos) -> HeartbeatOutcome {
        self.presence.session_heartbeat(ADA, session, self.now, timeout)
    }

    /// Announces Ada with a heartbeat of a session: `online` is running now.
    fn announce_by(&mut self, session: Id<'_>, timeout: Nanos) -> User {
        match self.heartbeat_of(session, timeout) {
            HeartbeatOutcome::Announce(user) => user,
            outcome => panic!("Ada is not new: {outcome:?}"),
        }
    }

    /// Brings Ada online with a session.
    fn come_online_by(&mut self, session: Id<'_>, timeout: Nanos) -> User {
        let ada = self.announce_by(session, timeout);
        assert_eq!(self.presence.announced(ada, self.now, timeout, CallbackOutcome::Returned), Announced::Online);
        ada
    }

    /// Returns whether the session was there.
    fn leave_session(&mut self, session: Option<Id<'_>>, after: Nanos) -> bool {
        self.presence.leave_session(ADA, session, self.now, after).was_there
    }

    fn session_ids(&self) -> Vec<Option<OwnedId>> {
        self.presence.session_ids(ADA, self.now)
    }

    /// Returns the reason of the next claim for `offline`, if there is one.
    fn claim_reason(&mut self) -> Option<Reason> {
        let mut claimed: Vec<Claimed> = Vec::new();
        self.step();
        self.presence.claim(self.now, 1, &mut claimed);
        claimed.first().map(|claimed| claimed.reason)
    }
}

fn phone() -> Option<OwnedId> {
    Some(OwnedId::String { bytes: (*b"phone").into(), class: 1, label: 3 })
}

fn tab() -> Option<OwnedId> {
    Some(OwnedId::Key(7))
}

#[test]
fn rule_s1_a_user_is_due_at_the_latest_deadline_of_the_sessions() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(PHONE, 20 * SECOND);
    let seen = harness.now;
    harness.wait(SECOND);
    harness.heartbeat_of(TAB, 2 * SECOND);
    harness.heartbeat(ADA);
    harness.wait(TIMEOUT + SECOND);
    assert_eq!(harness.claim(), []);
    harness.now = seen + 19 * SECOND;
    harness.assert_offline_at(seen + 20 * SECOND, ada);
}

#[test]
fn rule_s1_a_heartbeat_moves_the_deadline_of_its_own_session_either_way() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(PHONE, 20 * SECOND);
    harness.heartbeat_of(TAB, 10 * SECOND);
    harness.heartbeat_of(PHONE, SECOND);
    let seen = harness.now;
    harness.now += 9 * SECOND;
    harness.assert_offline_at(seen + 10 * SECOND, ada);
}

#[test]
fn rule_s2_a_session_that_leaves_takes_nobody_else_with_it() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(PHONE, 20 * SECOND);
    let seen = harness.now;
    harness.heartbeat_of(TAB, 30 * SECOND);
    assert!(harness.leave_session(Some(TAB), 0));
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.session_ids(), [phone()]);
    harness.now += 19 * SECOND;
    harness.assert_offline_at(seen + 20 * SECOND, ada);
}

#[test]
fn rule_s2_the_last_session_that_leaves_makes_the_user_due() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(PHONE, 20 * SECOND);
    harness.heartbeat_of(TAB, 30 * SECOND);
    harness.leave_session(Some(PHONE), 0);
    let left = harness.now;
    assert!(harness.leave_session(Some(TAB), SECOND));
    harness.assert_offline_at(left + SECOND, ada);
}

#[test]
fn rule_s2_a_leave_of_the_user_is_one_of_all_sessions() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(PHONE, 20 * SECOND);
    harness.heartbeat_of(TAB, 30 * SECOND);
    harness.heartbeat(ADA);
    assert!(harness.leave(ADA, 0));
    assert_eq!(harness.session_ids(), []);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_s3_users_are_counted_once_and_sessions_each() {
    let mut harness = Harness::new();
    let counts = |harness: &Harness| {
        let counts = harness.presence.counts();
        (counts.present, counts.sessions)
    };
    harness.come_online(BOB);
    assert_eq!(counts(&harness), (1, 1), "the unnamed one");
    let ada = harness.announce_by(PHONE, 20 * SECOND);
    harness.heartbeat_of(TAB, 10 * SECOND);
    assert_eq!(counts(&harness), (2, 3));
    harness.presence.announced(ada, harness.now, 0, CallbackOutcome::Returned);
    harness.heartbeat(ADA);
    assert_eq!(counts(&harness), (2, 4));
    harness.leave_session(Some(TAB), 0);
    assert_eq!(counts(&harness), (2, 3));
    harness.leave(ADA, 0);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    harness.heartbeat_of(TAB, SECOND);
    assert_eq!(counts(&harness), (1, 1), "while offline runs");
    harness.presence.departed(ada);
    harness.claim();
    assert_eq!(counts(&harness), (2, 2), "the remembered one");
}

#[test]
fn rule_s4_a_string_and_a_key_are_two_sessions_and_an_object_is_released() {
    let mut harness = Harness::new();
    harness.presence.count_session_keys(|key| key >= 100);
    let ada = harness.come_online_by(PHONE, TIMEOUT);
    for session in [TAB, Id::Key(100), Id::Key(101)] {
        harness.heartbeat_of(session, TIMEOUT);
    }
    let bob = harness.come_online(BOB);
    harness.presence.session_heartbeat(BOB, Id::Key(100), harness.now, TIMEOUT);
    assert_eq!(harness.session_ids(), [phone(), tab(), Some(OwnedId::Key(100)), Some(OwnedId::Key(101))]);
    harness.leave(ADA, 0);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    assert_eq!(harness.presence.take_released_sessions(), [], "the claim may be taken back");
    harness.presence.departed(ada);
    assert_eq!(harness.presence.take_released_sessions(), [101], "Bob has a session with the other key");
    harness.leave(BOB, 0);
    assert_eq!(harness.claim(), [(Transition::Offline, bob)]);
    harness.presence.departed(bob);
    assert_eq!(harness.presence.take_released_sessions(), [100]);
}

#[test]
fn rule_s5_a_user_without_named_sessions_keeps_nothing_of_them() {
    let mut harness = Harness::new();
    harness.come_online(ADA);
    assert_eq!(harness.presence.session_bytes(), 0);
    harness.heartbeat_of(TAB, SECOND);
    harness.now += 2 * TICK;
    harness.heartbeat(ADA);
    assert!(harness.presence.session_bytes() > 0);
    harness.wait(SECOND + TICK);
    assert_eq!(harness.claim(), []);
    assert_eq!((harness.presence.session_bytes(), harness.session_ids()), (0, vec![None]));
    let seen = harness.presence.last_seen(ADA, harness.now).unwrap();
    assert!((harness.now - seen).abs_diff(SECOND + TICK) <= TICK, "the unnamed session was seen then");
}

#[test]
fn rule_s8_while_online_runs_each_session_has_its_own_note() {
    let mut harness = Harness::new();
    let ada = harness.announce(ADA);
    harness.heartbeat_of(TAB, 2 * SECOND);
    harness.heartbeat_of(PHONE, 20 * SECOND);
    harness.leave_session(Some(PHONE), 0);
    harness.wait(3 * SECOND);
    assert_eq!(harness.session_ids(), [None, tab()]);
    harness.announced(ada, CallbackOutcome::Returned);
    let returned = harness.now;
    assert_eq!(harness.session_ids(), [None, tab()], "the deadlines count from the return of online");
    harness.leave_session(None, 0);
    harness.assert_offline_at(returned + 2 * SECOND, ada);
}

#[test]
fn rule_s9_a_remembered_leave_is_cleared_by_its_own_session_only() {
    let mut harness = Harness::new();
    let ada = harness.announce_by(TAB, TIMEOUT);
    harness.leave_session(Some(TAB), 0);
    harness.heartbeat_of(PHONE, SECOND);
    harness.leave_session(Some(PHONE), 0);
    harness.heartbeat_of(PHONE, SECOND);
    harness.announced(ada, CallbackOutcome::Returned);
    assert_eq!(harness.session_ids(), [phone()]);
    harness.assert_offline_at(harness.now + SECOND, ada);
}

#[test]
fn rule_s9_a_leave_of_an_unknown_session_or_one_that_is_over_changes_nothing() {
    let mut harness = Harness::new();
    assert!(!harness.leave_session(Some(TAB), 0));
    let ada = harness.come_online(ADA);
    assert!(!harness.leave_session(Some(TAB), 0));
    harness.heartbeat_of(PHONE, SECOND);
    assert!(!harness.leave_session(Some(TAB), 0));
    harness.now += 2 * SECOND;
    assert!(!harness.leave_session(Some(PHONE), 0), "over, but not dropped yet");
    assert_eq!(harness.claim(), []);
    harness.now += 4 * SECOND;
    assert!(!harness.leave_session(None, 0));
    assert_eq!(harness.claim_reason(), Some(Reason::Timeout));
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
}

#[test]
fn rule_s10_while_offline_runs_a_leave_clears_the_heartbeat_of_its_own_session() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(TAB, TIMEOUT);
    harness.leave(ADA, 0);
    harness.claim();
    harness.heartbeat_of(TAB, SECOND);
    harness.heartbeat_of(PHONE, 2 * SECOND);
    assert!(!harness.leave_session(Some(TAB), 0));
    assert_eq!(harness.session_ids(), []);
    harness.wait(TIMEOUT);
    assert_eq!(harness.presence.departed(ada), Departed::Rejoining);
    harness.wait(TIMEOUT);
    assert_eq!(harness.claim(), [(Transition::Online, ada)], "no deadline runs meanwhile");
    harness.announced(ada, CallbackOutcome::Returned);
    assert_eq!(harness.session_ids(), [phone()]);
    harness.assert_offline_at(harness.now + 2 * SECOND, ada);
}

#[test]
fn rule_s10_before_the_online_after_an_offline_the_last_leave_forgets_the_user() {
    for leaves_all in [false, true] {
        let mut harness = Harness::new();
        let ada = harness.come_online_by(TAB, TIMEOUT);
        harness.leave(ADA, 0);
        harness.claim();
        harness.heartbeat_of(TAB, SECOND);
        harness.heartbeat(ADA);
        assert_eq!(harness.presence.departed(ada), Departed::Rejoining);
        let forgotten = if leaves_all {
            harness.presence.leave(ADA, harness.now, 0).forgotten
        } else {
            assert_eq!(harness.presence.leave_session(ADA, None, harness.now, 0).forgotten, None);
            harness.presence.leave_session(ADA, Some(TAB), harness.now, 0).forgotten
        };
        assert_eq!(forgotten, Some(ada));
        assert_eq!(harness.claim(), []);
        assert!(!harness.presence.is_known(ADA));
    }
}

#[test]
fn rule_s10_a_claim_that_is_taken_back_leaves_the_sessions_as_they_were() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(TAB, SECOND);
    harness.leave(ADA, 0);
    harness.claim();
    harness.heartbeat_of(PHONE, 2 * SECOND);
    harness.presence.unclaim(ada, Transition::Offline, harness.now);
    assert_eq!(harness.session_ids(), [phone()], "a heartbeat after the claim counts as one before it");
    assert_eq!(harness.claim(), []);
    harness.leave_session(Some(PHONE), 0);
    assert_eq!(harness.claim_reason(), Some(Reason::Leave));
    harness.presence.unclaim(ada, Transition::Offline, harness.now);
    assert_eq!(harness.claim_reason(), Some(Reason::Leave));
}

#[test]
fn rule_s11_of_one_session_the_heartbeat_that_was_read_later_counts() {
    for timeout in [SECOND, 60 * SECOND] {
        let mut harness = Harness::new();
        let ada = harness.come_online_by(TAB, 10 * SECOND);
        harness.now += SECOND;
        let read = harness.now;
        harness.heartbeat_of(TAB, 10 * SECOND);
        // It has been read earlier, and takes the lock later.
        harness.presence.session_heartbeat(ADA, TAB, read - SECOND / 2, timeout);
        harness.now += 9 * SECOND;
        harness.assert_offline_at(read + 10 * SECOND, ada);
    }
}

#[test]
fn rule_s11_the_unnamed_session_of_a_user_with_named_ones_is_no_exception() {
    let mut harness = Harness::new();
    let ada = harness.come_online(ADA);
    harness.now += SECOND;
    let read = harness.now;
    harness.heartbeat_of(TAB, SECOND);
    harness.heartbeat(ADA);
    harness.presence.heartbeat(ADA, read - SECOND / 2, 60 * SECOND);
    harness.now += 4 * SECOND;
    harness.assert_offline_at(read + TIMEOUT, ada);
}

#[test]
fn rule_s12_no_session_is_the_unnamed_one() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(TAB, TIMEOUT);
    assert!(!harness.leave_session(None, 0), "nobody is logged out everywhere");
    assert_eq!(harness.claim(), []);
    harness.heartbeat(ADA);
    assert_eq!(harness.session_ids(), [tab(), None]);
    assert!(harness.leave_session(None, 0));
    assert_eq!(harness.session_ids(), [tab()]);
    harness.now += TIMEOUT + TICK;
    assert_eq!(harness.session_ids(), [], "between the deadline and the claim");
    harness.step();
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    harness.heartbeat_of(TAB, TIMEOUT);
    assert_eq!(harness.session_ids(), [], "while offline runs");

    let bob = harness.announce(BOB);
    let ids = |harness: &Harness| harness.presence.session_ids(BOB, harness.now);
    assert_eq!(ids(&harness), [None]);
    harness.leave(BOB, SECOND);
    assert_eq!(ids(&harness), [None]);
    harness.announced(bob, CallbackOutcome::Returned);
    assert_eq!(ids(&harness), [None]);
    harness.now += SECOND + TICK;
    assert_eq!(ids(&harness), []);
}

#[test]
fn rule_s13_the_reason_is_that_of_the_latest_deadline() {
    let mut harness = Harness::new();
    harness.come_online_by(TAB, 10 * SECOND);
    harness.heartbeat_of(PHONE, SECOND);
    harness.leave_session(Some(TAB), 5 * SECOND);
    harness.now += 5 * SECOND + TICK;
    assert_eq!(harness.claim_reason(), Some(Reason::Leave));

    let mut harness = Harness::new();
    harness.come_online_by(TAB, 10 * SECOND);
    harness.heartbeat_of(PHONE, 6 * SECOND);
    harness.leave_session(Some(TAB), 5 * SECOND);
    harness.now += 6 * SECOND + TICK;
    assert_eq!(harness.claim_reason(), Some(Reason::Timeout));
}

#[test]
fn rule_s13_when_a_user_was_last_seen_outlives_the_session() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(PHONE, 60 * SECOND);
    harness.wait(10 * SECOND);
    harness.heartbeat_of(TAB, 2 * SECOND);
    let seen = harness.now;
    harness.leave_session(Some(TAB), SECOND);
    harness.wait(20 * SECOND);
    assert_eq!(harness.session_ids(), [phone()]);
    assert_eq!(harness.presence.last_seen(ADA, harness.now), Some(seen));
    harness.leave(ADA, 0);
    harness.claim();
    let in_offline = harness.presence.last_seen_in_callback(ada, harness.now).unwrap();
    assert!(in_offline.abs_diff(seen) <= TICK);
}

#[test]
fn rule_s14_an_online_that_does_not_return_forgets_all_sessions() {
    let mut harness = Harness::new();
    harness.presence.count_session_keys(|_| true);
    let ada = harness.announce_by(TAB, TIMEOUT);
    harness.heartbeat_of(PHONE, TIMEOUT);
    harness.heartbeat(ADA);
    assert_eq!(harness.announced(ada, CallbackOutcome::Aborted), Announced::Offline);
    assert_eq!(harness.presence.take_released_sessions(), [7]);
    assert_eq!((harness.presence.kept(), harness.presence.counts().sessions), (0, 0));
    harness.come_online(ADA);
    assert_eq!(harness.session_ids(), [None]);
}

#[test]
fn rule_s15_sessions_are_dropped_as_time_goes() {
    let mut harness = Harness::new();
    harness.come_online_by(PHONE, 3_600 * SECOND);
    let kept = harness.presence.kept();
    for number in 0..50 {
        harness.heartbeat_of(Id::Key(number), (1 + number) * SECOND);
    }
    assert_eq!(harness.presence.counts().sessions, 51);
    // Nothing but the timer runs.
    for number in 0..50 {
        harness.wait(SECOND + TICK);
        assert_eq!(harness.presence.counts().sessions, 50 - number as usize);
    }
    harness.wait(SECOND);
    // The note of when the last one was seen stays.
    assert!(harness.presence.kept() <= kept + 1, "{:?}", harness.presence);
}

#[test]
fn rule_s15_a_session_stays_until_no_stall_can_put_off_its_end() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(PHONE, 20 * SECOND);
    let start = harness.now + 19 * SECOND;
    harness.presence.set_running_until(start);
    harness.now = start - SECOND / 2;
    harness.heartbeat_of(TAB, 2 * SECOND);
    // The phone's deadline passes in the stall, and the tab's: the phone has longer for what waits to be read.
    harness.now = start + SECOND + SECOND / 4;
    harness.step();
    harness.now = start + 11 * SECOND;
    harness.presence.add_stall(Stall { start, end: harness.now });
    harness.presence.set_running_until(harness.now);
    harness.step();
    harness.wait(10 * SECOND);
    assert_eq!(harness.claim(), []);
    assert_eq!(harness.session_ids(), [phone()]);
    harness.assert_offline_at(start + 22 * SECOND - TICK, ada);
}

#[test]
fn rule_s15_a_session_that_leaves_after_a_stall_puts_nobody_off() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(TAB, TIMEOUT);
    let start = harness.now + SECOND;
    harness.now += 2 * TIMEOUT;
    harness.presence.add_stall(Stall { start, end: harness.now });
    harness.step();
    assert_eq!(harness.claim(), []);
    assert!(harness.leave_session(Some(TAB), 0), "it is there as long as it is put off");
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
}

#[test]
fn rule_s16_the_session_with_the_earliest_deadline_is_evicted() {
    let mut harness = Harness::new();
    harness.presence.set_max_sessions(2);
    harness.presence.count_session_keys(|_| true);
    harness.come_online_by(PHONE, 20 * SECOND);
    harness.heartbeat_of(TAB, 10 * SECOND);
    harness.heartbeat_of(Id::Key(8), 15 * SECOND);
    assert_eq!(harness.session_ids(), [phone(), Some(OwnedId::Key(8))]);
    assert_eq!(harness.presence.take_released_sessions(), [7]);
    assert_eq!(harness.presence.counts().sessions, 2);
    assert!(!harness.leave_session(Some(TAB), 0));
}

#[test]
fn rule_s16_the_deadline_of_an_evicted_session_counts_until_the_user_leaves() {
    for leaves in [false, true] {
        let mut harness = Harness::new();
        harness.presence.set_max_sessions(1);
        let ada = harness.come_online_by(TAB, 10 * SECOND);
        let seen = harness.now;
        harness.heartbeat_of(PHONE, 20 * SECOND);
        harness.leave_session(Some(TAB), 0);
        harness.leave_session(Some(PHONE), 0);
        assert_eq!(harness.session_ids(), []);
        assert_eq!(harness.claim(), [], "the floor keeps her online");
        if leaves {
            harness.leave(ADA, 0);
            assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
        } else {
            harness.now += 9 * SECOND;
            harness.assert_offline_at(seen + 10 * SECOND, ada);
        }
    }
}

#[test]
fn rule_s16_a_leave_of_the_user_lowers_the_floor_and_does_not_raise_it() {
    let mut harness = Harness::new();
    harness.presence.set_max_sessions(1);
    let ada = harness.come_online_by(TAB, 10 * SECOND);
    harness.heartbeat_of(PHONE, 20 * SECOND);
    harness.leave_session(Some(PHONE), 0);
    let left = harness.now;
    harness.leave(ADA, 5 * SECOND);
    harness.leave(ADA, 15 * SECOND);
    harness.now += 4 * SECOND;
    harness.assert_offline_at(left + 5 * SECOND, ada);
}

#[test]
fn rule_s16_sessions_are_evicted_during_callbacks_too() {
    let mut harness = Harness::new();
    harness.presence.set_max_sessions(2);
    let ada = harness.announce_by(TAB, 10 * SECOND);
    for number in 0..20 {
        harness.heartbeat_of(Id::Key(100 + number), (number + 1) * SECOND);
    }
    assert_eq!(harness.session_ids().len(), 2);
    harness.announced(ada, CallbackOutcome::Returned);
    assert_eq!(harness.session_ids().len(), 2);
    harness.leave(ADA, 0);
    harness.claim();
    for number in 0..20 {
        harness.heartbeat_of(Id::Key(100 + number), (20 - number) * SECOND);
    }
    assert_eq!(harness.presence.departed(ada), Departed::Rejoining);
    harness.claim();
    assert_eq!(harness.session_ids(), [Some(OwnedId::Key(100)), Some(OwnedId::Key(101))]);
    harness.leave_session(Some(Id::Key(100)), 0);
    harness.leave_session(Some(Id::Key(101)), 0);
    harness.announced(ada, CallbackOutcome::Returned);
    harness.assert_offline_at(harness.now + 18 * SECOND, ada);
}

#[test]
fn a_user_with_sessions_may_get_another_key() {
    let mut harness = Harness::new();
    harness.come_online_by(TAB, TIMEOUT);
    harness.heartbeat_of(PHONE, TIMEOUT);
    assert!(harness.presence.rekey(1, 9));
    assert_eq!(harness.session_ids(), []);
    assert_eq!(harness.presence.session_ids(Id::Key(9), harness.now), [tab(), phone()]);
}

#[test]
fn a_stop_takes_users_with_sessions_along() {
    let mut harness = Harness::new();
    let ada = harness.come_online_by(TAB, TIMEOUT);
    harness.heartbeat_of(PHONE, TIMEOUT);
    harness.presence.stop();
    assert_eq!(harness.heartbeat_of(PHONE, TIMEOUT), HeartbeatOutcome::Ignored);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    harness.presence.unclaim(ada, Transition::Offline, harness.now);
    assert_eq!(harness.claim(), [(Transition::Offline, ada)]);
    assert_eq!(harness.presence.departed(ada), Departed::Offline);
    assert_eq!(harness.presence.kept(), 0);
}
