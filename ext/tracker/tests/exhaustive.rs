//! Everything that can happen to one user within a few ticks, in every order: a search over the real [`Presence`],
//! depth first, since each state that waits takes 100 KB.
//!
//! The steps are: a heartbeat with one of two timeouts, a leave, a step of the timer, a claim, the end of a callback, a
//! stop, a tick of the clock and a stall that ends. `Presence` does not know which thread sends a heartbeat, nor
//! whether a callback does. So one kind of heartbeat stands for two threads and for callbacks. In every state each step
//! may be the next one; a state that was reached before is not searched again. Sessions have searches of their own,
//! with fewer other steps: all at once would be too many states.
//!
//! Over 400 lines: each step is defined, taken and compared here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod naive;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use naive::{Naive, Source};
use online_manager_tracker::presence::{Next, Presence};
use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Counts, HeartbeatOutcome, Id, Nanos, OwnedId, Stall, StringId, TICK,
    Transition, User,
};

/// The user, in the naive model.
const INDEX: usize = 0;

/// The first moment. The wheel has to use two of its levels, and one deadline is a tick that the wheel has no entries
/// for.
const START: Nanos = ((1 << 27) - 2) * TICK;

const TICKS: u64 = 3;

/// The search stops at states that keep more. A user who leaves and comes back adds a key to the wheel each time, and a
/// sweep takes no keys that come up within three ticks; such states differ only in number. The entry, its string, its
/// overflow entry, and two keys on the wheel or in queues.
const MAX_KEPT: usize = 5;

/// How many keys a sweep leaves on the wheel, whatever the user has done (rule 16).
const MAX_WHEEL_KEYS: usize = 8;
/// No limit that a search comes to.
const MAX_SESSIONS: usize = 100;

/// What a user with two named sessions and the unnamed one keeps besides.
const MAX_KEPT_WITH_SESSIONS: usize = MAX_KEPT + 2;

const TIMEOUTS: [Nanos; 2] = [TICK, 3 * TICK];
const LEAVES: [Nanos; 2] = [0, 2 * TICK];
const STALLS: [Nanos; 1] = [2 * TICK];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Heartbeat(Source, Nanos),
    Leave(Nanos),
    LeaveSession(Source, Nanos),
    /// A tick of the clock.
    Wait,
    /// A step of the timer that checks up to this many users.
    Advance(usize),
    Claim,
    /// The callback ends.
    EndCallback(CallbackOutcome),
    /// The callback was never entered.
    Unclaim,
    /// Everything stood still for this number of nanoseconds until now.
    Stall(Nanos),
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    HeartbeatThread,
    Reactor,
}

/// A running `online` or `offline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Call {
    user: User,
    transition: Transition,
    caller: Caller,
}

#[derive(Clone)]
struct State {
    presence: Presence,
    naive: Naive,
    now: Nanos,
    /// The last moment of the search.
    end: Nanos,
    call: Option<Call>,
    /// Whether the last callback that ended was an `online` that returned.
    is_online: bool,
    /// What the timer waits for.
    timer: Next,
    /// Whether the timer has checked everyone at the present moment.
    has_advanced: bool,
    has_stalled: bool,
    max_sessions: usize,
}

fn steps() -> Vec<Step> {
    let heartbeats = TIMEOUTS.map(|timeout| Step::Heartbeat(Source::Unnamed, timeout));
    let leaves = LEAVES.map(Step::Leave);
    let ends = [CallbackOutcome::Returned, CallbackOutcome::Aborted].map(Step::EndCallback);
    let others = [Step::Wait, Step::Advance(usize::MAX), Step::Advance(1), Step::Claim, Step::Unclaim, Step::Stop];
    [&heartbeats[..], &leaves, &ends, &others, &STALLS.map(Step::Stall)].concat()
}

fn id() -> Id<'static> {
    Id::String(StringId { bytes: b"ada", class: 1, label: 2 })
}

/// Returns the id of a named session.
fn session(number: usize) -> Id<'static> {
    Id::Key(number as u64)
}

impl State {
    fn new(ticks: u64, max_sessions: usize) -> State {
        let mut presence = Presence::new(START, 0);
        presence.set_max_sessions(max_sessions);
        State {
            presence,
            max_sessions,
            naive: Naive::new(0),
            now: START,
            end: START + ticks * TICK,
            call: None,
            is_online: false,
            timer: Next::Never,
            has_advanced: true,
            has_stalled: false,
        }
    }

    /// Returns two hashes of all that the future depends on.
    fn fingerprint(&self) -> (u64, u64) {
        let all = (
            format!("{:?}", self.presence),
            &self.naive,
            self.now,
            self.call,
            self.is_online,
            format!("{:?}", self.timer),
            self.has_advanced,
            self.has_stalled,
        );
        let hash = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, &all).hash(&mut hasher);
            hasher.finish()
        };
        (hash(0), hash(1))
    }

    fn can_take(&self, step: Step) -> bool {
        match (step, self.call) {
            (Step::Wait, _) => self.now < self.end,
            (Step::EndCallback(_), Some(Call { transition: Transition::Online, .. })) => true,
            (Step::EndCallback(outcome), Some(_)) => outcome == CallbackOutcome::Returned,
            (Step::Unclaim, Some(call)) => call.caller == Caller::Reactor || call.transition == Transition::Offline,
            (Step::EndCallback(_) | Step::Unclaim, None) => false,
            // Which session is evicted while `offline` runs cannot be seen.
            (Step::Heartbeat(..), _) => self.naive.notes_in_offline(INDEX) < self.max_sessions,
            // The reactor does one thing at a time.
            (Step::Claim, Some(call)) => call.caller == Caller::HeartbeatThread,
            (Step::Stop, _) => !self.presence.is_stopping(),
            // One is enough, and two are too many states.
            (Step::Stall(length), _) => !self.has_stalled && self.now >= START + length,
            _ => true,
        }
    }

    /// Takes a step, and compares the result with the naive model. Returns the rules that it shows, one bit each.
    fn take(&mut self, step: Step) -> u16 {
        self.naive.rules = 0;
        if !self.has_stalled {
            // Whether there was a stall is found out later.
            self.presence.set_running_until(self.now - STALLS[0]);
        }
        let mut rules = 0;
        let inside = self.call.is_some();
        match step {
            Step::Heartbeat(source, timeout) => {
                let outcome = match source {
                    Source::Named(number) => self.presence.session_heartbeat(id(), session(number), self.now, timeout),
                    _ => self.presence.heartbeat(id(), self.now, timeout),
                };
                assert_eq!(naive::is_announcement(outcome), self.naive.heartbeat(INDEX, source, self.now, timeout));
                assert_eq!(outcome == HeartbeatOutcome::Ignored, self.presence.is_stopping());
                if let HeartbeatOutcome::Announce(user) = outcome {
                    self.call(user, Transition::Online, Caller::HeartbeatThread);
                }
            }
            Step::Leave(after) => {
                let left = self.presence.leave(id(), self.now, after);
                assert_eq!((left.was_online, left.forgotten.is_some()), self.naive.leave(INDEX, self.now, after));
            }
            Step::LeaveSession(source, after) => {
                let named = match source {
                    Source::Named(number) => Some(session(number)),
                    _ => None,
                };
                let left = self.presence.leave_session(id(), named, self.now, after);
                let (was_there, is_forgotten) = self.naive.leave_session(INDEX, source, self.now, after);
                let was_there = was_there.filter(|_| !self.naive.is_stopping);
                assert!(was_there.is_none_or(|was_there| was_there == left.was_there), "{source:?}: {was_there:?}");
                assert_eq!(left.forgotten.is_some(), is_forgotten);
            }
            Step::Wait => {
                self.now += TICK;
                self.has_advanced = false;
            }
            Step::Advance(budget) => {
                let kept = self.presence.kept();
                self.timer = self.presence.advance(self.now, budget);
                self.has_advanced |= self.timer != Next::Now;
                if self.presence.kept() < kept {
                    // A step of the timer drops nothing but a wheel entry that was left behind.
                    rules |= 1 << 13;
                }
            }
            Step::Claim => self.claim(),
            Step::EndCallback(outcome) => self.end(outcome),
            Step::Unclaim => {
                let Call { user, transition, .. } = self.call.take().unwrap();
                let unclaimed = self.presence.unclaim(user, transition, self.now);
                assert_eq!(unclaimed, self.naive.unclaim(INDEX, transition, self.now));
            }
            Step::Stall(length) => {
                self.has_stalled = true;
                let (start, end) = (self.now - length, self.now);
                self.presence.add_stall(Stall { start, end });
                self.naive.stalled(start, end);
            }
            Step::Stop => assert_eq!(self.presence.stop().len(), self.naive.stop().len()),
        }
        if self.presence.take_wake_request() {
            self.timer = Next::Now;
        }
        rules |= self.naive.rules;
        self.naive.rules = 0;
        if inside && matches!(step, Step::Heartbeat(..) | Step::Leave(_) | Step::Stop) {
            rules |= 1 << 6;
        }
        rules
    }

    /// Asserts rule 1: no other callback runs, and the transition is not that of the last one.
    fn call(&mut self, user: User, transition: Transition, caller: Caller) {
        assert_eq!(self.call, None);
        assert_eq!(self.is_online, transition == Transition::Offline);
        self.call = Some(Call { user, transition, caller });
    }

    fn claim(&mut self) {
        let expected = self.naive.claimable(self.now, self.has_advanced);
        assert!(expected.is_empty() || self.presence.is_claimable(), "nobody wakes the reactor for {expected:?}");
        let mut claimed = Vec::new();
        match (self.presence.claim(self.now, 1, &mut claimed), &claimed[..]) {
            (None, []) => {
                assert_eq!(expected, []);
                assert!(!self.presence.is_claimable());
            }
            (Some(_), []) => {}
            (Some(transition), [Claimed { user, id, seen_ago, .. }]) => {
                assert_eq!(*id, OwnedId::String { bytes: (*b"ada").into(), class: 1, label: 2 });
                self.naive.claimed(INDEX, transition, self.now);
                let (real, seen) = (self.now - seen_ago, self.naive.last_seen_in_callback(INDEX));
                assert!(real + TICK > seen.earliest && real < seen.latest + TICK, "seen {seen:?}, not at {real:?}");
                self.call(*user, transition, Caller::Reactor);
            }
            claimed => panic!("{claimed:?}"),
        }
    }

    fn end(&mut self, outcome: CallbackOutcome) {
        let Call { user, transition, caller } = self.call.take().unwrap();
        match transition {
            Transition::Online => {
                let announced = self.presence.announced(user, self.now, TIMEOUTS[1], outcome);
                assert_eq!(announced, self.naive.announced(INDEX, self.now, TIMEOUTS[1], outcome));
                self.is_online = announced != Announced::Offline;
                if announced == Announced::Depart {
                    self.call(user, Transition::Offline, caller);
                }
            }
            Transition::Offline => {
                assert_eq!(self.presence.departed(user), self.naive.departed(INDEX));
                self.is_online = false;
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.presence.is_online(id()), self.naive.is_online(INDEX));
        assert_eq!(self.presence.is_known(id()), self.naive.users.contains_key(&INDEX));
        self.check_sessions();
        let counts = self.presence.counts();
        assert_eq!(Counts { due: 0, sessions: 0, ..counts }, self.naive.counts());
        assert!(counts.due <= 1, "in the due queue twice");
        match (self.presence.last_seen(id(), self.now), self.naive.last_seen(INDEX)) {
            (None, None) => {}
            (Some(real), Some(seen)) => {
                assert!(real <= self.now && real + TICK > seen.earliest && real < seen.latest + TICK)
            }
            (real, seen) => panic!("seen {seen:?}, not at {real:?}"),
        }
        // Between callbacks, the last one decides whether the user is online.
        if self.call.is_none() {
            assert_eq!(self.is_online, self.presence.is_online(id()));
        }
        // The timer comes in time.
        if !self.presence.is_stopping()
            && counts.due == 0
            && let Some(by) = self.naive.timer_is_needed_by()
        {
            let timer = self.timer;
            assert!(timer == Next::Now || matches!(timer, Next::At(moment) if moment <= by), "{timer:?} for {by}");
        }
    }

    fn check_sessions(&mut self) {
        let ids: Vec<_> = self.presence.session_ids(id(), self.now);
        let ids: BTreeSet<Source> = ids
            .into_iter()
            .map(|id| match id {
                Some(OwnedId::Key(number)) => Source::Named(number as usize),
                _ => Source::Unnamed,
            })
            .collect();
        assert!(ids.len() <= self.max_sessions);
        if self.naive.is_stopping {
            return;
        }
        let mut expected = self.naive.session_ids(INDEX, self.now);
        let is_full = ids.len() == self.max_sessions;
        for source in expected.clone().into_keys().filter(|source| !ids.contains(source)) {
            // All that is at a tick is certain, but for the leaves.
            assert!(is_full || !expected[&source], "{source:?} is gone");
            if is_full {
                self.naive.evicted(INDEX, source, &ids);
                expected.remove(&source);
            }
        }
        assert!(ids.iter().all(|id| expected.contains_key(id)), "the sessions are {ids:?}, not {expected:?}");
        let certain = expected.values().filter(|is_certain| **is_certain).count();
        let sessions = self.presence.counts().sessions;
        assert!((certain..=self.naive.session_count()).contains(&sessions), "{sessions} sessions are counted");
    }

    /// Asserts that from this state on the user ends offline and nothing is kept, if timer, reactor and clock go on.
    fn settle(mut self) {
        let mut rounds = 0;
        while self.presence.kept() > 0 {
            self.take(Step::Advance(usize::MAX));
            if self.can_take(Step::Claim) {
                self.take(Step::Claim);
            }
            self.take(if self.call.is_some() { Step::EndCallback(CallbackOutcome::Returned) } else { Step::Wait });
            self.check();
            rounds += 1;
            assert!(rounds < 30, "the user stays online or is never forgotten: {:?}", self.presence);
        }
        assert!(!self.is_online);
    }
}

/// Takes every step in every state, except in states that keep too much. Returns how many states there are, and the
/// rules that were shown.
fn search(steps: &[Step], ticks: u64, max_sessions: usize, is_too_much: impl Fn(&Presence) -> bool) -> (usize, u16) {
    let start = State::new(ticks, max_sessions);
    let mut reached = HashSet::from([start.fingerprint()]);
    let mut queue = VecDeque::from([start]);
    let mut rules = 0;
    while let Some(state) = queue.pop_back() {
        for step in steps.iter().filter(|step| state.can_take(**step)) {
            let mut next = state.clone();
            rules |= next.take(*step);
            next.check();
            if !is_too_much(&next.presence) && reached.insert(next.fingerprint()) {
                next.clone().settle();
                queue.push_back(next);
            }
        }
    }
    println!("{} states", reached.len());
    (reached.len(), rules)
}

#[test]
fn everything_that_happens_to_one_user_keeps_the_rules_in_every_order() {
    let (states, rules) = search(&steps(), TICKS, MAX_SESSIONS, |presence| presence.kept() > MAX_KEPT);
    let shown: Vec<u32> = (1..=14).filter(|rule| rules & 1 << rule != 0).collect();
    assert_eq!(shown, (1..=14).collect::<Vec<_>>(), "the search has not shown every rule");
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn rule_16_however_a_user_comes_and_leaves_the_wheel_keeps_a_few_keys() {
    // Timeouts that are not so short that a sweep leaves the keys. The search ends only because they are bounded.
    let steps = [
        Step::Heartbeat(Source::Unnamed, 4 * TICK),
        Step::Leave(0),
        Step::Wait,
        Step::Advance(usize::MAX),
        Step::Claim,
        Step::EndCallback(CallbackOutcome::Returned),
    ];
    let (states, _) = search(&steps, 2, MAX_SESSIONS, |presence| {
        assert!(presence.wheel_words() <= MAX_WHEEL_KEYS, "{presence:?}");
        false
    });
    assert!(states > 1_000, "only {states} states");
}

/// What happens to a user with sessions besides `steps`.
fn with_the_rest(steps: &[Step]) -> Vec<Step> {
    let returned = Step::EndCallback(CallbackOutcome::Returned);
    [steps, &[Step::Wait, Step::Advance(usize::MAX), Step::Claim, returned]].concat()
}

#[test]
fn two_named_sessions_and_the_unnamed_one_keep_the_rules_in_every_order() {
    let [one, two] = [0, 1].map(Source::Named);
    let steps = with_the_rest(&[
        Step::Heartbeat(Source::Unnamed, TICK),
        Step::Heartbeat(one, TICK),
        Step::Heartbeat(two, 2 * TICK),
        Step::LeaveSession(one, 0),
    ]);
    let (states, _) = search(&steps, 1, MAX_SESSIONS, |presence| presence.kept() > MAX_KEPT_WITH_SESSIONS);
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn callbacks_that_end_otherwise_and_a_stop_keep_the_rules_of_sessions_in_every_order() {
    let one = Source::Named(0);
    let steps = with_the_rest(&[
        Step::Heartbeat(Source::Unnamed, TICK),
        Step::Heartbeat(one, TICK),
        Step::LeaveSession(one, 0),
        Step::EndCallback(CallbackOutcome::Aborted),
        Step::Unclaim,
        Step::Stop,
    ]);
    let (states, _) = search(&steps, 1, MAX_SESSIONS, |presence| presence.kept() > MAX_KEPT);
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn a_named_session_and_the_unnamed_one_keep_the_rules_across_a_stall_in_every_order() {
    let steps = with_the_rest(&[
        Step::Heartbeat(Source::Unnamed, 2 * TICK),
        Step::Heartbeat(Source::Named(0), TICK),
        Step::Stall(STALLS[0]),
    ]);
    let (states, _) = search(&steps, 3, MAX_SESSIONS, |presence| presence.kept() > MAX_KEPT_WITH_SESSIONS);
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn rule_s16_two_sessions_of_which_one_is_evicted_keep_the_rules_in_every_order() {
    let [one, two] = [0, 1].map(Source::Named);
    let steps = with_the_rest(&[
        Step::Heartbeat(one, 2 * TICK),
        Step::Heartbeat(two, TICK),
        Step::LeaveSession(one, 0),
        Step::Leave(0),
    ]);
    let (states, _) = search(&steps, 1, 1, |presence| presence.kept() > MAX_KEPT);
    assert!(states > 1_000, "only {states} states");
}
