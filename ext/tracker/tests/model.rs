//! Random sequences of everything that can happen, compared with the naive model after each step.
//!
//! Over 400 lines: each step is defined, taken and compared here; otherwise a step would be in three files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod naive;

use std::collections::{BTreeSet, HashMap};

use naive::{Naive, Source, UserIndex};
use online_manager_tracker::presence::{Next, Presence};
use online_manager_tracker::{
    Announced, CallbackOutcome, Claimed, Counts, Departed, HeartbeatOutcome, Id, Nanos, OwnedId, Stall, StringId, TICK,
    Transition, User,
};
use proptest::prelude::*;

const SECOND: Nanos = 1_000_000_000;
const HOUR: Nanos = 3_600 * SECOND;
const DAY: Nanos = 24 * HOUR;
const YEAR: Nanos = 365 * DAY;

/// The timeout passed for an `online` that follows an `offline`. It never counts: the remembered heartbeat brings its
/// own.
const REJOIN_TIMEOUT: Nanos = 3 * SECOND;

/// How long a user may wait for a claim, or a callback may run. An entry is read correctly for 39 days after its
/// deadline, or after the last heartbeat while a callback runs.
const LONGEST_WAIT: Nanos = 38 * DAY;

#[derive(Clone, Debug)]
enum Step {
    Heartbeat {
        index: UserIndex,
        source: Source,
        timeout: Nanos,
    },
    Leave {
        index: UserIndex,
        after: Nanos,
    },
    LeaveSession {
        index: UserIndex,
        source: Source,
        after: Nanos,
    },
    Wait(Nanos),
    /// Waits until the deadline of one of the users, and `offset` nanoseconds more or less.
    WaitFor {
        which: usize,
        offset: i64,
    },
    /// Steps of the timer, each of which checks up to `budget` users.
    Advance {
        budget: usize,
        times: usize,
    },
    Claim {
        max: usize,
    },
    /// One of the callbacks ends.
    EndCallback {
        which: usize,
        outcome: CallbackOutcome,
    },
    /// One of the callbacks was never entered.
    Unclaim {
        which: usize,
    },
    /// The user gets another key, if only the wheel knows the present one.
    Rekey {
        index: UserIndex,
    },
    /// Everything stood still for this long until now, or since the last sign of life.
    Stall(Nanos),
    /// A sign of life: no later stall begins before it.
    Run,
    Stop,
}

fn timeouts() -> impl Strategy<Value = Nanos> {
    prop_oneof![
        6 => (1u64..=40).prop_map(|seconds| seconds * SECOND),
        2 => prop::sample::select(vec![0, 1, 999_999, TICK, 2 * TICK, 64 * TICK, 4_096 * TICK]),
        2 => prop::sample::select(vec![HOUR, 9 * HOUR, 12 * HOUR, DAY, 6 * DAY, 7 * DAY, 14 * DAY]),
        1 => prop::sample::select(vec![YEAR, u64::MAX - 1, u64::MAX]),
    ]
}

/// The session of a heartbeat or a leave: half of the users have no named one. Users with the same remainder by four
/// share session ids.
fn source_of(index: UserIndex, session: usize) -> Source {
    match session {
        _ if index % 4 < 2 => Source::Unnamed,
        0 => Source::Unnamed,
        session => Source::Named(session - 1),
    }
}

fn waits() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..3 * TICK).prop_map(Step::Wait),
        4 => (1..20 * SECOND).prop_map(Step::Wait),
        1 => (1..HOUR).prop_map(Step::Wait),
        1 => (1..30 * HOUR).prop_map(Step::Wait),
        1 => (1..10 * DAY).prop_map(Step::Wait),
        8 => (any::<usize>(), -2 * TICK as i64..4 * TICK as i64)
            .prop_map(|(which, offset)| Step::WaitFor { which, offset }),
        2 => (any::<usize>(), -1i64..=1).prop_map(|(which, offset)| Step::WaitFor { which, offset }),
    ]
}

fn steps(users: usize) -> impl Strategy<Value = Vec<Step>> {
    let outcomes = prop_oneof![4 => Just(CallbackOutcome::Returned), 1 => Just(CallbackOutcome::Aborted)];
    let step = prop_oneof![
        200 => (0..users, 0..4usize, timeouts()).prop_map(|(index, session, timeout)| {
            Step::Heartbeat { index, source: source_of(index, session), timeout }
        }),
        50 => (0..users, prop_oneof![Just(0), timeouts()]).prop_map(|(index, after)| Step::Leave { index, after }),
        50 => (0..users, 0..4usize, prop_oneof![2 => Just(0), 1 => timeouts()]).prop_map(|(index, session, after)| {
            Step::LeaveSession { index, source: source_of(index, session), after }
        }),
        120 => waits(),
        60 => (prop_oneof![Just(1usize), Just(usize::MAX)], 1usize..4)
            .prop_map(|(budget, times)| Step::Advance { budget, times }),
        100 => (1usize..4).prop_map(|max| Step::Claim { max }),
        160 => (any::<usize>(), outcomes).prop_map(|(which, outcome)| Step::EndCallback { which, outcome }),
        20 => any::<usize>().prop_map(|which| Step::Unclaim { which }),
        20 => (0..users / 2).prop_map(|index| Step::Rekey { index: 2 * index + 1 }),
        8 => prop_oneof![1..3 * TICK, 1..20 * SECOND, 1..HOUR].prop_map(Step::Stall),
        8 => Just(Step::Run),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 1..300)
}

/// The first moment: zero, any, or a little before ticks need one bit more than a field has.
fn starts() -> impl Strategy<Value = Nanos> {
    let edges = prop::sample::select(vec![6u32, 12, 18, 24, 25, 26, 27, 28, 30, 31, 32, 33, 36, 40]);
    prop_oneof![
        Just(0),
        (edges, 0..100 * SECOND).prop_map(|(bits, before)| (TICK << bits).saturating_sub(before)),
        (edges_of_days(), 0u64..1 << 41).prop_map(|(days, more)| days + more),
    ]
}

fn edges_of_days() -> impl Strategy<Value = Nanos> {
    (0u64..2_000).prop_map(|days| days * DAY)
}

/// A running `online` or `offline`.
#[derive(Clone, Copy, Debug)]
struct Callback {
    index: UserIndex,
    user: User,
    transition: Transition,
    timeout: Nanos,
}

struct Run {
    presence: Presence,
    naive: Naive,
    users: usize,
    /// For each user: how often the key has changed.
    versions: Vec<u64>,
    /// How many keys the wheel may have for users who are gone (rule 16); `None` if timeouts may be so short that the
    /// wheel is not swept of their keys.
    max_spare_keys: Option<usize>,
    now: Nanos,
    callbacks: Vec<Callback>,
    /// When the last sign of life was.
    running_until: Nanos,
    /// How many sessions a user may have.
    max_sessions: usize,
    /// The session keys that the caller holds objects for.
    held_keys: BTreeSet<u64>,
    /// When the timer last checked everyone.
    advanced_at: Nanos,
    /// What the timer waits for.
    timer: Next,
    /// How long a user may have waited for a claim, in nanoseconds.
    waited: Nanos,
    /// The last callback of each user, and whether it has ended: independent of the naive model.
    last_callbacks: HashMap<UserIndex, (Transition, bool)>,
}

/// Users with an odd index have keys, the others strings. Each two strings have the same bytes and different classes.
/// Each time that a user gets another key, `version` is one more.
fn with_id<T>(index: UserIndex, version: u64, use_id: impl FnOnce(Id<'_>) -> T) -> T {
    let [_, _, class, label] = parts_of(index);
    let bytes = format!("user {}", index / 4);
    match index % 2 {
        0 => use_id(Id::String(StringId { bytes: bytes.as_bytes(), class: class as u8, label: label as u16 })),
        _ => use_id(Id::Key(key_of(index, version))),
    }
}

fn key_of(index: UserIndex, version: u64) -> u64 {
    version << 32 | (index as u64) << 2 | 1
}

fn owned_id(index: UserIndex, version: u64) -> OwnedId {
    let [_, _, class, label] = parts_of(index);
    match index % 2 {
        0 => OwnedId::String {
            bytes: format!("user {}", index / 4).into_bytes().into(),
            class: class as u8,
            label: label as u16,
        },
        _ => OwnedId::Key(key_of(index, version)),
    }
}

fn parts_of(index: UserIndex) -> [usize; 4] {
    [index / 4, index % 2, index / 2 % 2, index * 7]
}

/// The first session has a string, the others have keys.
fn with_session<T>(session: usize, use_id: impl FnOnce(Id<'_>) -> T) -> T {
    match session {
        0 => use_id(Id::String(StringId { bytes: b"tab", class: 1, label: 7 })),
        _ => use_id(Id::Key(session as u64)),
    }
}

fn source_of_id(id: Option<OwnedId>) -> Source {
    match id {
        None => Source::Unnamed,
        Some(OwnedId::Key(key)) => Source::Named(key as usize),
        Some(string) => {
            assert_eq!(string, OwnedId::String { bytes: (*b"tab").into(), class: 1, label: 7 });
            Source::Named(0)
        }
    }
}

impl Run {
    fn new(users: usize, start: Nanos, jitter: Nanos, max_sessions: usize) -> Run {
        let mut presence = Presence::new(start, jitter);
        presence.set_max_sessions(max_sessions);
        presence.set_running_until(start);
        presence.count_session_keys(|_| true);
        Run {
            presence,
            running_until: start,
            max_sessions,
            held_keys: BTreeSet::new(),
            naive: Naive::new(jitter),
            users,
            versions: vec![0; users],
            max_spare_keys: (jitter > 4 * TICK).then_some(6),
            now: start,
            callbacks: Vec::new(),
            advanced_at: start,
            timer: Next::Never,
            waited: 0,
            last_callbacks: HashMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Heartbeat { index, source, timeout } => self.heartbeat(index, source, timeout),
            Step::Leave { index, after } => self.leave(index, after),
            Step::LeaveSession { index, source, after } => self.leave_session(index, source, after),
            Step::Wait(time) => self.wait(time),
            Step::WaitFor { which, offset } => {
                let deadlines: Vec<Nanos> = self.naive.deadlines().collect();
                if !deadlines.is_empty() {
                    let moment = deadlines[which % deadlines.len()].saturating_add_signed(offset);
                    // A deadline a year away is not waited for, or the sequences would test nothing else.
                    self.wait(moment.saturating_sub(self.now).min(20 * DAY));
                }
            }
            Step::Advance { budget, times } => (0..times).for_each(|_| self.step(budget)),
            Step::Claim { max } => self.claim(max),
            Step::EndCallback { which, outcome } => {
                if !self.callbacks.is_empty() {
                    let callback = self.callbacks.swap_remove(which % self.callbacks.len());
                    self.end(callback, outcome);
                }
            }
            Step::Unclaim { which } => {
                if !self.callbacks.is_empty() {
                    let callback = self.callbacks.swap_remove(which % self.callbacks.len());
                    self.unclaim(callback);
                }
            }
            Step::Rekey { index } => self.rekey(index),
            Step::Run => {
                self.running_until = self.now;
                self.presence.set_running_until(self.now);
            }
            // Evicted sessions are not remembered one by one, so that their claims are put off together.
            Step::Stall(_) if self.max_sessions < 3 => {}
            Step::Stall(length) => {
                let (start, end) = (self.now.saturating_sub(length).max(self.running_until), self.now);
                self.presence.add_stall(Stall { start, end });
                self.naive.stalled(start, end);
            }
            Step::Stop => self.stop(),
        }
        self.check();
    }

    fn heartbeat(&mut self, index: UserIndex, source: Source, timeout: Nanos) {
        // Which session is evicted while `offline` runs cannot be seen.
        if self.naive.notes_in_offline(index) >= self.max_sessions {
            return;
        }
        let outcome = with_id(index, self.versions[index], |id| match source {
            Source::Named(session) => {
                with_session(session, |session| self.presence.session_heartbeat(id, session, self.now, timeout))
            }
            _ => self.presence.heartbeat(id, self.now, timeout),
        });
        if let Source::Named(session @ 1..) = source
            && outcome != HeartbeatOutcome::Ignored
        {
            self.held_keys.insert(session as u64);
        }
        assert_eq!(naive::is_announcement(outcome), self.naive.heartbeat(index, source, self.now, timeout));
        assert_eq!(outcome == HeartbeatOutcome::Ignored, self.naive.is_stopping);
        if let HeartbeatOutcome::Announce(user) = outcome {
            self.call(Callback { index, user, transition: Transition::Online, timeout });
        }
    }

    fn leave(&mut self, index: UserIndex, after: Nanos) {
        let left = with_id(index, self.versions[index], |id| self.presence.leave(id, self.now, after));
        assert_eq!((left.was_online, left.forgotten.is_some()), self.naive.leave(index, self.now, after));
    }

    fn leave_session(&mut self, index: UserIndex, source: Source, after: Nanos) {
        let left = with_id(index, self.versions[index], |id| match source {
            Source::Named(session) => {
                with_session(session, |session| self.presence.leave_session(id, Some(session), self.now, after))
            }
            _ => self.presence.leave_session(id, None, self.now, after),
        });
        let (was_there, is_forgotten) = self.naive.leave_session(index, source, self.now, after);
        let was_there = was_there.filter(|_| !self.naive.is_stopping);
        assert!(was_there.is_none_or(|was_there| was_there == left.was_there), "{source:?} of {index}: {was_there:?}");
        assert_eq!(left.forgotten.is_some(), is_forgotten);
    }

    fn wait(&mut self, time: Nanos) {
        if self.waited + time > LONGEST_WAIT {
            self.settle();
        }
        self.now += time;
        self.waited += time;
    }

    fn step(&mut self, budget: usize) {
        self.timer = self.presence.advance(self.now, budget);
        if self.timer != Next::Now {
            self.advanced_at = self.now;
        }
    }

    /// Claims and ends callbacks until nobody can be claimed and no callback runs.
    fn settle(&mut self) {
        loop {
            self.step(usize::MAX);
            self.check();
            self.claim(2);
            if self.callbacks.is_empty() && !self.presence.is_claimable() {
                break;
            }
            for callback in std::mem::take(&mut self.callbacks) {
                self.end(callback, CallbackOutcome::Returned);
            }
            self.check();
        }
        self.waited = 0;
    }

    fn claim(&mut self, max: usize) {
        let expected = self.naive.claimable(self.now, self.advanced_at == self.now);
        assert!(expected.is_empty() || self.presence.is_claimable(), "nobody wakes the reactor for {expected:?}");
        let mut claimed = Vec::new();
        let transition = self.presence.claim(self.now, max, &mut claimed);
        assert!(transition.is_some() || claimed.is_empty());
        assert!(claimed.len() <= if transition == Some(Transition::Online) { 1 } else { max });
        for Claimed { user, id, seen_ago, .. } in claimed {
            let index = (0..self.users)
                .find(|index| owned_id(*index, self.versions[*index]) == id)
                .expect("the id comes back as it came in");
            let transition = transition.expect("a user was claimed");
            self.naive.claimed(index, transition, self.now);
            let (real, seen) = (self.now - seen_ago, self.naive.last_seen_in_callback(index));
            assert!(
                real + TICK > seen.earliest && real <= seen.latest + TICK,
                "{index} was seen {seen:?}, not at {real}, when it was claimed"
            );
            self.call(Callback { index, user, transition, timeout: REJOIN_TIMEOUT });
        }
        if transition.is_none() {
            // No user may be left out.
            assert_eq!(self.naive.claimable(self.now, self.advanced_at == self.now), []);
            assert!(!self.presence.is_claimable());
        }
    }

    /// Starts a callback, and asserts rule 1: `online` and `offline` alternate and never overlap.
    fn call(&mut self, callback: Callback) {
        let before = self.last_callbacks.insert(callback.index, (callback.transition, false));
        let alternates = match before {
            None => callback.transition == Transition::Online,
            Some((last, is_over)) => is_over && last != callback.transition,
        };
        assert!(alternates, "{before:?} of {} is followed by {:?}", callback.index, callback.transition);
        self.callbacks.push(callback);
    }

    fn record_end(&mut self, callback: &Callback, is_offline: bool) {
        let last = self.last_callbacks.get_mut(&callback.index).unwrap();
        assert_eq!(*last, (callback.transition, false));
        *last = (if is_offline { Transition::Offline } else { Transition::Online }, true);
    }

    fn end(&mut self, callback: Callback, outcome: CallbackOutcome) {
        let Callback { index, user, transition, timeout } = callback;
        match transition {
            Transition::Online => {
                let announced = self.presence.announced(user, self.now, timeout, outcome);
                assert_eq!(announced, self.naive.announced(index, self.now, timeout, outcome));
                self.record_end(&callback, announced == Announced::Offline);
                if announced == Announced::Depart {
                    let real = self.presence.last_seen_in_callback(user, self.now).unwrap();
                    let seen = self.naive.last_seen_in_callback(index);
                    assert!(real + TICK > seen.earliest && real <= seen.latest + TICK, "{seen:?}, not at {real}");
                    self.call(Callback { transition: Transition::Offline, ..callback });
                }
            }
            Transition::Offline => {
                assert_eq!(self.presence.departed(user), self.naive.departed(index));
                self.record_end(&callback, true);
            }
        }
    }

    fn unclaim(&mut self, callback: Callback) {
        let Callback { index, user, transition, .. } = callback;
        let unclaimed = self.presence.unclaim(user, transition, self.now);
        assert_eq!(unclaimed, self.naive.unclaim(index, transition, self.now));
        // The callback counts as never called.
        self.record_end(&callback, transition == Transition::Online);
        if unclaimed == Departed::Rejoining {
            assert!(self.presence.is_claimable(), "{index} is the next to be claimed");
        }
    }

    fn rekey(&mut self, index: UserIndex) {
        let version = self.versions[index];
        if self.presence.rekey(key_of(index, version), key_of(index, version + 1)) {
            let state = self.naive.users.get(&index);
            assert!(!self.naive.is_stopping && matches!(state, Some(naive::UserState::Online { .. })), "{state:?}");
            self.versions[index] += 1;
        }
    }

    fn stop(&mut self) {
        let dropped = self.presence.stop().len();
        assert_eq!(dropped, self.naive.stop().len());
    }

    fn check(&mut self) {
        for index in 0..self.users {
            let (is_online, is_known, last_seen) = with_id(index, self.versions[index], |id| {
                (self.presence.is_online(id), self.presence.is_known(id), self.presence.last_seen(id, self.now))
            });
            assert_eq!(is_online, self.naive.is_online(index), "user {index}");
            assert_eq!(is_known, self.naive.users.contains_key(&index), "user {index}");
            match (last_seen, self.naive.last_seen(index)) {
                (None, None) => {}
                (Some(real), Some(seen)) => assert!(
                    real <= self.now && real + TICK > seen.earliest && real <= seen.latest + TICK,
                    "{index} was seen {seen:?}, not at {real}"
                ),
                (real, seen) => panic!("{index} was seen {seen:?}, not at {real:?}"),
            }
        }

        let mut certain = 0;
        for index in 0..self.users {
            certain += self.check_sessions(index);
        }
        for key in self.presence.take_released_sessions() {
            assert!(self.held_keys.remove(&key), "{key} is released twice");
            assert!(!self.naive.is_in_use(Source::Named(key as usize), self.now), "{key} is in use");
        }

        let counts = self.presence.counts();
        assert_eq!(Counts { due: 0, sessions: 0, ..counts }, self.naive.counts());
        let sessions = certain..=self.naive.session_count();
        let is_right = self.naive.is_stopping || sessions.contains(&counts.sessions);
        assert!(is_right, "{} sessions are counted, not {sessions:?}", counts.sessions);
        assert!(counts.due <= counts.present - counts.announcing, "a user is in the due queue twice");

        if let Some(spare) = self.max_spare_keys {
            let words = self.presence.wheel_words();
            assert!(words <= 2 * self.naive.users.len() + spare, "{words} keys on the wheel: {:?}", self.presence);
        }

        let online = (0..Presence::PARTS).flat_map(|part| self.presence.online_users(part));
        let online: BTreeSet<UserIndex> = online
            .map(|id| (0..self.users).find(|index| owned_id(*index, self.versions[*index]) == id).unwrap())
            .collect();
        assert_eq!(online, (0..self.users).filter(|index| self.naive.is_online(*index)).collect());

        if self.presence.take_wake_request() {
            self.timer = Next::Now;
        }
        if !self.naive.is_stopping
            && let Some(by) = self.naive.timer_is_needed_by()
        {
            match self.timer {
                Next::Now => {}
                Next::At(moment) if moment <= by => {}
                // A user is in the due queue already.
                _ if counts.due > 0 => {}
                timer => panic!("the timer comes {timer:?}, but is needed by {by}"),
            }
        }
    }

    /// Compares the sessions of a user. Returns how many are certain to be there.
    fn check_sessions(&mut self, index: UserIndex) -> usize {
        let ids = with_id(index, self.versions[index], |id| self.presence.session_ids(id, self.now));
        let ids: BTreeSet<Source> = ids.into_iter().map(source_of_id).collect();
        assert!(ids.len() <= self.max_sessions);
        if self.naive.is_stopping {
            // Everyone is due, whatever the sessions.
            return 0;
        }
        let mut expected = self.naive.session_ids(index, self.now);
        let is_full = ids.len() == self.max_sessions;
        for (source, is_certain) in expected.clone().into_iter().filter(|(source, _)| !ids.contains(source)) {
            assert!(is_full || !is_certain, "{source:?} of {index} is gone");
            if is_full && (is_certain || matches!(self.naive.users[&index], naive::UserState::Online { .. })) {
                self.naive.evicted(index, source, &ids);
                expected.remove(&source);
            }
        }
        assert!(ids.iter().all(|id| expected.contains_key(id)), "{index} has the sessions {ids:?}, not {expected:?}");
        expected.values().filter(|is_certain| **is_certain).count()
    }

    /// Makes all users leave, and asserts that nothing is kept.
    fn finish(mut self) {
        self.settle();
        for index in 0..self.users {
            self.leave(index, 0);
        }
        self.settle();
        self.check();
        assert_eq!(self.held_keys, [].into());
        assert_eq!(self.naive.users, [].into());
        assert_eq!(self.presence.counts(), Counts::default());
        // All keys that are left on the wheel come up within its 9.8 hours.
        self.now += 30 * HOUR;
        self.step(usize::MAX);
        assert_eq!(self.presence.kept(), 0, "{:?}", self.presence);
        assert!(self.last_callbacks.values().all(|last| *last == (Transition::Offline, true)));
    }
}

fn run(users: usize, start: Nanos, jitter: Nanos, max_sessions: usize, steps: &[Step]) {
    let mut run = Run::new(users, start, jitter, max_sessions);
    for step in steps {
        run.take(step);
    }
    run.finish();
}

/// Runs `cases` cases, or PROPTEST_CASES of them: `PROPTEST_CASES=1000000` takes a night. PROPTEST_MAX_SHRINK_ITERS
/// limits the search for a shorter failure, which `rake mutants` does without.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let or_default = |name, own, default| if std::env::var_os(name).is_some() { default } else { own };
    ProptestConfig {
        cases: or_default("PROPTEST_CASES", cases, default.cases),
        max_shrink_iters: or_default("PROPTEST_MAX_SHRINK_ITERS", 20_000, default.max_shrink_iters),
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config(5_000))]

    #[test]
    fn a_few_users_behave_as_in_the_naive_model(
        start in starts(),
        jitter in prop::sample::select(vec![0, 1, 5_000_000]),
        steps in steps(4),
    ) {
        run(4, start, jitter, 100, &steps);
    }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn rule_s16_a_few_users_with_two_sessions_at_most_behave_as_in_the_naive_model(
        start in starts(),
        jitter in prop::sample::select(vec![0, 1, 5_000_000]),
        steps in steps(4),
    ) {
        run(4, start, jitter, 2, &steps);
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn a_crowd_with_more_timeouts_than_numbers_behaves_as_in_the_naive_model(
        start in starts(),
        arrivals in prop::collection::vec((timeouts(), 1u64..SECOND), 60..61),
        steps in steps(60),
    ) {
        // All users come online first, each with another timeout.
        let arrivals = arrivals.into_iter().enumerate().flat_map(|(index, (timeout, wait))| {
            let end = Step::EndCallback { which: 0, outcome: CallbackOutcome::Returned };
            let source = source_of(index, index / 4 % 4);
            [Step::Heartbeat { index, source, timeout: timeout.saturating_add(index as u64) }, Step::Wait(wait), end]
        });
        run(60, start, 5_000_000, 100, &arrivals.chain(steps).collect::<Vec<_>>());
    }
}
