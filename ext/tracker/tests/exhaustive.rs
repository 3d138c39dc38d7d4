//! Everything that can happen to one user within a few ticks, in every order: a breadth-first search over
//! the real [`Presence`].
//!
//! There are heartbeats of two lengths, a leaver, the timer, the reactor, a stopper and the clock. Which of
//! two threads beats, or whether whoever is inside a callback calls back, is all the same to `Presence`: it is
//! not told. So one kind of heartbeat stands for two beaters and for calls out of callbacks. In every state
//! each of them may take the next step; states that were reached before are not gone on from.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod naive;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use naive::Naive;
use online_manager_tracker::presence::{Next, Presence};
use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Counts, HeartbeatOutcome, Id, Nanos, OwnedId, StringId, TICK, Transition, User,
};

/// Who all this is about, in the naive model.
const KEY: usize = 0;

/// Where time starts: so that the wheel has to use two of its levels, and a deadline is one of the ticks
/// that the wheel has no place for.
const START: Nanos = ((1 << 27) - 2) * TICK;

const TICKS: u64 = 3;

/// Who leaves and comes back leaves keys behind in the wheel, and may do so for ever. More than these differ in
/// nothing but number: the entry, its string and its extra, and four places in the wheel and in line.
const MOST_KEPT: usize = 5;
const TIMEOUTS: [Nanos; 2] = [TICK, 3 * TICK];
const LEAVES: [Nanos; 2] = [0, 2 * TICK];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    HeartbeatOutcome(Nanos),
    Leave(Nanos),
    /// A tick of the clock.
    Wait,
    /// A turn of the timer that looks at so many users at the most.
    Turn(usize),
    Claim,
    /// The callback ends.
    End(CallbackOutcome),
    /// The callback was never entered.
    Unclaim,
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Beater,
    Reactor,
}

/// An `online` or `offline` that has been called and has not ended.
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
    call: Option<Call>,
    /// The last callback that has ended, or rather what is true since then.
    is_online: bool,
    /// When the timer will come, and whether it has been there at this very moment.
    timer: Next,
    has_turned: bool,
}

fn steps() -> Vec<Step> {
    let beats = TIMEOUTS.map(Step::HeartbeatOutcome);
    let leaves = LEAVES.map(Step::Leave);
    let ends = [CallbackOutcome::Returned, CallbackOutcome::Aborted].map(Step::End);
    let others = [Step::Wait, Step::Turn(usize::MAX), Step::Turn(1), Step::Claim, Step::Unclaim, Step::Stop];
    [&beats[..], &leaves, &ends, &others].concat()
}

fn id() -> Id<'static> {
    Id::String(StringId { bytes: b"ada", class: 1, label: 2 })
}

impl State {
    fn new() -> State {
        State {
            presence: Presence::new(START, 0),
            naive: Naive::new(0),
            now: START,
            call: None,
            is_online: false,
            timer: Next::Never,
            has_turned: true,
        }
    }

    /// All that the future depends on.
    fn key(&self) -> (u64, u64) {
        let all = (
            format!("{:?}", self.presence),
            &self.naive,
            self.now,
            self.call,
            self.is_online,
            format!("{:?}", self.timer),
            self.has_turned,
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
            (Step::Wait, _) => self.now < START + TICKS * TICK,
            (Step::End(_), Some(Call { transition: Transition::Online, .. })) => true,
            (Step::End(outcome), Some(_)) => outcome == CallbackOutcome::Returned,
            (Step::Unclaim, Some(call)) => call.caller == Caller::Reactor || call.transition == Transition::Offline,
            (Step::End(_) | Step::Unclaim, None) => false,
            // The reactor does one thing at a time.
            (Step::Claim, Some(call)) => call.caller == Caller::Beater,
            (Step::Stop, _) => !self.presence.is_stopping(),
            _ => true,
        }
    }

    /// Takes a step, and compares what comes of it with the naive model. Answers the rules that it shows.
    fn take(&mut self, step: Step) -> u16 {
        self.naive.rules = 0;
        let mut rules = 0;
        let inside = self.call.is_some();
        match step {
            Step::HeartbeatOutcome(timeout) => {
                let beat = self.presence.heartbeat(id(), self.now, timeout);
                assert_eq!(naive::is_announcement(beat), self.naive.heartbeat(KEY, self.now, timeout));
                assert_eq!(beat == HeartbeatOutcome::Ignored, self.presence.is_stopping());
                if let HeartbeatOutcome::Announce(user) = beat {
                    self.call(user, Transition::Online, Caller::Beater);
                }
            }
            Step::Leave(after) => {
                let left = self.presence.leave(id(), self.now, after);
                assert_eq!((left.was_online, left.forgotten.is_some()), self.naive.leave(KEY, self.now, after));
            }
            Step::Wait => {
                self.now += TICK;
                self.has_turned = false;
            }
            Step::Turn(budget) => {
                let kept = self.presence.kept();
                self.timer = self.presence.advance(self.now, budget);
                self.has_turned |= self.timer != Next::Now;
                if self.presence.kept() < kept {
                    // Nothing is ever dropped by a turn but an entry that was left behind.
                    rules |= 1 << 13;
                }
            }
            Step::Claim => self.claim(),
            Step::End(outcome) => self.end(outcome),
            Step::Unclaim => {
                let Call { user, transition, .. } = self.call.take().unwrap();
                let unclaimed = self.presence.unclaim(user, transition, self.now);
                assert_eq!(unclaimed, self.naive.unclaim(KEY, transition, self.now));
            }
            Step::Stop => assert_eq!(self.presence.stop().len(), self.naive.stop().len()),
        }
        if self.presence.take_wake_request() {
            self.timer = Next::Now;
        }
        rules |= self.naive.rules;
        self.naive.rules = 0;
        if inside && matches!(step, Step::HeartbeatOutcome(_) | Step::Leave(_) | Step::Stop) {
            rules |= 1 << 6;
        }
        rules
    }

    /// Rule 1: never while a callback runs, and never what is true already.
    fn call(&mut self, user: User, transition: Transition, caller: Caller) {
        assert_eq!(self.call, None);
        assert_eq!(self.is_online, transition == Transition::Offline);
        self.call = Some(Call { user, transition, caller });
    }

    fn claim(&mut self) {
        let owed = self.naive.claimable(self.now, self.has_turned);
        assert!(owed.is_empty() || self.presence.is_claimable(), "nobody wakes the reactor for {owed:?}");
        let mut work = Vec::new();
        match (self.presence.claim(self.now, 1, &mut work), &work[..]) {
            (None, []) => {
                assert_eq!(owed, []);
                assert!(!self.presence.is_claimable());
            }
            (Some(_), []) => {}
            (Some(transition), [Claimed { user, id, .. }]) => {
                assert_eq!(*id, OwnedId::String { bytes: (*b"ada").into(), class: 1, label: 2 });
                self.naive.claimed(KEY, transition, self.now);
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
                assert_eq!(announced, self.naive.announced(KEY, self.now, TIMEOUTS[1], outcome));
                self.is_online = announced != Announced::Offline;
                if announced == Announced::Depart {
                    self.call(user, Transition::Offline, caller);
                }
            }
            Transition::Offline => {
                assert_eq!(self.presence.departed(user), self.naive.departed(KEY));
                self.is_online = false;
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.presence.is_online(id()), self.naive.is_online(KEY));
        assert_eq!(self.presence.is_known(id()), self.naive.users.contains_key(&KEY));
        let counts = self.presence.counts();
        assert_eq!(Counts { due: 0, ..counts }, self.naive.counts());
        assert!(counts.due <= 1, "in line twice");
        match (self.presence.last_seen(id(), self.now), self.naive.last_seen(KEY)) {
            (None, None) => {}
            (Some(real), Some(seen)) => {
                assert!(real <= self.now && real + TICK > seen.earliest && real < seen.latest + TICK)
            }
            (real, seen) => panic!("seen {seen:?}, not at {real:?}"),
        }
        // What is true between the callbacks is what the last one said.
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

    /// From any state on, if everybody does what is expected, the user ends offline and nothing is kept.
    fn settle(mut self) {
        let mut rounds = 0;
        while self.presence.kept() > 0 {
            self.take(Step::Turn(usize::MAX));
            if self.can_take(Step::Claim) {
                self.take(Step::Claim);
            }
            self.take(if self.call.is_some() { Step::End(CallbackOutcome::Returned) } else { Step::Wait });
            self.check();
            rounds += 1;
            assert!(rounds < 30, "for ever online, or never forgotten: {:?}", self.presence);
        }
        assert!(!self.is_online);
    }
}

#[test]
fn whatever_happens_to_one_user_in_whatever_order_keeps_the_rules() {
    let start = State::new();
    let mut reached = HashSet::from([start.key()]);
    let mut to_go_on_from = VecDeque::from([start]);
    let mut rules = 0;
    while let Some(state) = to_go_on_from.pop_front() {
        for step in steps().into_iter().filter(|step| state.can_take(*step)) {
            let mut next = state.clone();
            rules |= next.take(step);
            next.check();
            if next.presence.kept() <= MOST_KEPT && reached.insert(next.key()) {
                next.clone().settle();
                to_go_on_from.push_back(next);
            }
        }
    }
    let shown: Vec<u32> = (1..=13).filter(|rule| rules & 1 << rule != 0).collect();
    assert_eq!(shown, (1..=13).collect::<Vec<_>>(), "the search has not shown every rule");
    assert!(reached.len() > 1_000, "only {} states", reached.len());
    println!("{} states", reached.len());
}
