//! Real stores against the model: random sequences of calls get the same replies, step by step.
//!
//! Times are ages: a call that "happens" at a virtual second has an age of what is left until the horizon, and the real
//! calls of a sequence take less than a second. So the real clocks decide nothing, and no test waits.
//!
//! Over 400 lines: each call has a function, and all share what they know of the pair.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use online_manager_tracker::{Nanos, Transition};

use self::support::{Folder, MEMBER_A, MEMBER_B, Place, Server, user};
use crate::id::UserId;
use crate::model::Model;
use crate::simulator::random::Random;
use crate::store::{
    Commit, DeadLetter, Event, Heartbeat, Known, LeaseRequest, Leave, Membership, Partition, PollRequest, PollResult,
    Purpose, Store, Sweep, Token, Write,
};

const SECOND: Nanos = 1_000_000_000;

/// The virtual present, in seconds.
const HORIZON: u64 = 100_000;

/// A timeout that is over by the horizon unless its heartbeat is as late as that, and one that is not.
const SHORT: Nanos = 100 * SECOND;
const LONG: Nanos = 2 * HORIZON * SECOND;

const USERS: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];
const MEMBERS: [Token; 3] = [MEMBER_A, MEMBER_B, Token([3; 16])];

/// The sequences of one test run, and the calls of each.
const SEQUENCES: u64 = 60;
const CALLS: u64 = 60;

/// A store and what its numbers are in the model.
struct Pair<'a> {
    place: &'a dyn Place,
    store: Box<dyn Store>,
    model: Model,
    count: Partition,
    /// By partition and number of the store's event, the number of the model's.
    numbers: BTreeMap<(Partition, u64), u64>,
    /// What each member knows of the store and of the model.
    known: [(Vec<Known>, Vec<Known>); MEMBERS.len()],
    /// How far each member has read the leaves, in the store and in the model.
    notices: [Vec<(u64, u64)>; MEMBERS.len()],
    fetched: BTreeMap<(usize, Partition), Vec<u64>>,
    second: u64,
    /// The application's last version, which a member says that knows no data; 0 if it says none.
    last_version: u64,
    history: Vec<String>,
}

/// A reply without what may differ between a store and its model: numbers, versions and the exact time.
#[derive(Debug, PartialEq, Eq)]
struct Comparable {
    lease: String,
    expired: Option<usize>,
    has_next: Option<bool>,
    events: Vec<(UserId, Transition, String, u32)>,
    notices: Vec<(UserId, bool, bool)>,
    /// Whether every event is delivered.
    is_all_delivered: bool,
}

fn comparable(result: &PollResult) -> Comparable {
    Comparable {
        lease: format!("{:?}", result.lease),
        expired: result.sweep.map(|sweep| sweep.expired),
        has_next: result.sweep.map(|Sweep { next, .. }| next.is_some()),
        events: result
            .events
            .iter()
            .map(|event| (event.id.clone(), event.transition, format!("{:?}", event.reason), event.failures))
            .collect(),
        notices: result
            .notices
            .iter()
            .map(|notice| (notice.id.clone(), notice.due > 0, notice.left.is_some()))
            .collect(),
        is_all_delivered: result.delivered_through == result.known.last,
    }
}

impl<'a> Pair<'a> {
    fn new(place: &'a dyn Place, last_version: u64) -> Pair<'a> {
        let store = place.open();
        let count = store.partitions();
        let mut model = Model::new(count, None);
        model.now = HORIZON * SECOND;
        model.wall = 1_700_000_000_000_000;
        let nothing = || (vec![Known::default(); usize::from(count)], vec![Known::default(); usize::from(count)]);
        Pair {
            place,
            store,
            model,
            count,
            numbers: BTreeMap::new(),
            known: std::array::from_fn(|_| nothing()),
            notices: std::array::from_fn(|_| vec![(0, 0); usize::from(count)]),
            fetched: BTreeMap::new(),
            second: 1,
            last_version,
            history: Vec::new(),
        }
    }

    /// A real moment passes in the model too.
    fn pass_time(&mut self, time: Nanos) {
        self.model.now += time;
        self.model.wall += time / 1_000;
    }

    fn memberships(&self, member: usize, lease: Nanos) -> (Membership, Membership) {
        let said = |known: &Known| if known.epoch == 0 { Known { last: self.last_version, ..*known } } else { *known };
        let of = |known: &Vec<Known>| Membership {
            token: MEMBERS[member],
            name: format!("here:{member}"),
            lease,
            timeout: SHORT,
            known: known.iter().map(said).collect(),
        };
        (of(&self.known[member].0), of(&self.known[member].1))
    }

    fn note(&mut self, member: usize, partition: Partition, real: Option<Known>, model: Option<Known>) {
        self.known[member].0[usize::from(partition)] = real.unwrap_or_default();
        self.known[member].1[usize::from(partition)] = model.unwrap_or_default();
    }

    /// Random writes of one moment, perhaps of an earlier one than the last.
    fn write(&mut self, random: &mut Random) {
        self.second += random.range(1, 10) * 10;
        let mut writes = Vec::new();
        for _ in 0..random.range(1, 4) {
            let late = if random.percent(20) { random.range(1, 30) * 7 } else { 0 };
            let age = (HORIZON - self.second.saturating_sub(late)) * SECOND;
            let id = user(random.choose(&USERS));
            if writes.iter().any(|write: &Write| *write.id() == id) {
                continue;
            }
            if random.percent(15) {
                // A leave that seems a little older than the heartbeat before it, or too much.
                let seen = age - random.choose(&[20_000_000, 40_000_000]);
                let heartbeat = Heartbeat { id: id.clone(), age: seen, timeout: LONG, purpose: Purpose::Report };
                writes.push(Write::Heartbeat(heartbeat));
                writes.push(Write::Leave(Leave { id, age, after: 0 }));
                continue;
            }
            writes.push(match random.range(0, 9) {
                0..=5 => Write::Heartbeat(Heartbeat {
                    id,
                    age,
                    timeout: random.choose(&[SHORT, LONG, LONG]),
                    purpose: random.choose(&[Purpose::Report, Purpose::Report, Purpose::Resend, Purpose::Prolong]),
                }),
                6..=7 => Write::Leave(Leave { id, age, after: 0 }),
                _ => Write::Leave(Leave { id, age, after: LONG / 2 }),
            });
        }
        let member = random.range(0, 2) as usize;
        self.history.push(format!("member {member} writes {writes:?}"));
        let (real, model) = self.memberships(member, SECOND);
        let real = self.store.write(&real, &writes).unwrap();
        let model = self.model.write(&model, &writes);
        let by_partition = |results: &[(Partition, Result<_, _>)]| -> BTreeMap<Partition, bool> {
            results
                .iter()
                .map(|(partition, result): &(_, Result<crate::store::Written, _>)| (*partition, result.is_ok()))
                .collect()
        };
        assert_eq!(by_partition(&real), by_partition(&model), "{}", self.calls());
        for (partition, result) in &model {
            let known = real.iter().find(|(other, _)| other == partition).and_then(|(_, real)| real.as_ref().ok());
            self.note(member, *partition, known.map(|written| written.known), result.as_ref().ok().map(|w| w.known));
        }
    }

    fn poll(&mut self, random: &mut Random) {
        let member = random.range(0, 2) as usize;
        let partition = random.range(0, u64::from(self.count) - 1) as Partition;
        // A lease of a millisecond has run out by the next call.
        let lease = random.choose(&[3_600 * SECOND, 3_600 * SECOND, 1_000_000]);
        let request = random.choose(&[
            LeaseRequest::None,
            LeaseRequest::Renew,
            LeaseRequest::Acquire,
            LeaseRequest::Acquire,
            LeaseRequest::Release,
        ]);
        let sweep = random.percent(60).then_some(random.choose(&[1, 3, 100]));
        let limit = random.choose(&[1, 3, 100]);
        let asks = random.percent(70);
        let (real_notices, model_notices) = self.notices[member][usize::from(partition)];
        let request = |notices_after| PollRequest {
            partition,
            lease: request,
            sweep,
            events: asks.then_some((0, limit)),
            notices_after: Some(notices_after),
            handled: None,
        };
        self.history.push(format!("member {member} polls {:?}, lease of {lease}", request(0)));
        let (real, model) = self.memberships(member, lease);
        let real = self.store.poll(&real, &[request(real_notices)]).unwrap().remove(0);
        let model = self.model.poll(&model, &[request(model_notices)]).remove(0);
        if lease < SECOND {
            std::thread::sleep(std::time::Duration::from_millis(6));
            self.pass_time(6_000_000);
        }
        match (&real, &model) {
            (Ok(real), Ok(model)) => {
                assert_eq!(comparable(real), comparable(model), "{}", self.calls());
                // SQLite may count from an earlier time than the deadline.
                assert!(real.oldest.is_some() || model.oldest.is_none(), "{}", self.calls());
                for (one, other) in real.events.iter().zip(&model.events) {
                    self.check_seen(one, other);
                    self.numbers.insert((partition, one.number), other.number);
                }
                self.check_versions(&real.events);
                self.check_versions(&model.events);
                for result in [real, model] {
                    // Each poll asks from the beginning of the log.
                    let first = result.events.first().map(|event| event.number - 1);
                    let through = first.unwrap_or(result.delivered_through);
                    assert_eq!(result.delivered_through, through, "{}", self.calls());
                }
                let numbers = real.events.iter().map(|event| event.number).collect();
                self.fetched.insert((member, partition), numbers);
                self.note(member, partition, Some(real.known), Some(model.known));
                self.notices[member][usize::from(partition)] = (real.notices_until, model.notices_until);
            }
            (Err(one), Err(other)) => {
                let kind = std::mem::discriminant(one) == std::mem::discriminant(other);
                assert!(kind, "{one:?} where the model says {other:?}\n{}", self.calls());
                self.note(member, partition, None, None);
                self.notices[member][usize::from(partition)] = (u64::MAX, u64::MAX);
                self.fetched.retain(|(_, other), _| *other != partition);
            }
            _ => panic!("{real:?} where the model says {model:?}\n{}", self.calls()),
        }
    }

    /// The last heartbeats are the same, but for the time between two calls.
    fn check_seen(&self, real: &Event, model: &Event) {
        let (id, ago, expected) = (&real.id, real.seen_ago, model.seen_ago);
        assert!(ago.abs_diff(expected) < 3 * SECOND, "{id:?} was seen {ago} ns ago, not {expected}\n{}", self.calls());
    }

    /// Every version is above the application's last one.
    fn check_versions(&self, events: &[Event]) {
        for event in events {
            assert!(event.version as u64 > self.last_version, "{event:?}\n{}", self.calls());
        }
    }

    fn commit(&mut self, random: &mut Random) {
        let member = random.range(0, 2) as usize;
        let partition = random.range(0, u64::from(self.count) - 1) as Partition;
        let Some(fetched) = self.fetched.get(&(member, partition)).cloned() else { return };
        let (mut real, mut model) = (Commit::default(), Commit::default());
        for number in fetched {
            let Some(other) = self.numbers.get(&(partition, number)).copied() else { continue };
            match random.range(0, 5) {
                0..=2 => {
                    real.done.push(number);
                    model.done.push(other);
                }
                3 => {
                    let failures = random.range(1, 4) as u32;
                    real.failed.push((number, failures, "it failed".into()));
                    model.failed.push((other, failures, "it failed".into()));
                }
                4 => {
                    let failures = random.range(1, 9) as u32;
                    real.dead.push((number, failures, "it failed".into()));
                    model.dead.push((other, failures, "it failed".into()));
                }
                _ => {}
            }
        }
        if real.is_empty() {
            return;
        }
        self.history.push(format!("member {member} commits {real:?}"));
        self.fetched.remove(&(member, partition));
        let memberships = self.memberships(member, SECOND);
        let real = self.store.commit(&memberships.0, &[(partition, real)]).unwrap().remove(0);
        let model = self.model.commit(&memberships.1, &[(partition, model)]).remove(0);
        let kinds = (real.as_ref().ok(), model.as_ref().ok());
        assert_eq!(kinds.0, kinds.1, "{}", self.calls());
        if model.is_err() {
            self.note(member, partition, None, None);
        }
    }

    fn ask(&mut self) {
        self.history.push("somebody asks".into());
        let snapshot = self.store.snapshot().unwrap();
        let online: Vec<UserId> =
            snapshot.users.keys().cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let model = self.model.online_users();
        assert_eq!(online, model.keys().cloned().collect::<Vec<_>>(), "{}", self.calls());
        for (id, ago) in model {
            let real = snapshot.users[&id];
            assert!(real.abs_diff(ago) < 3 * SECOND, "{id:?} was seen {real} ns ago, not {ago}\n{}", self.calls());
        }
        assert_eq!(snapshot.undelivered_events as usize, self.model.undelivered().len(), "{}", self.calls());
        let letters = self.store.dead_letters().unwrap();
        let described = |letters: &[DeadLetter]| {
            let mut all: Vec<_> = letters
                .iter()
                .map(|DeadLetter { event, is_superseded, .. }| {
                    (event.id.clone(), format!("{:?}", event.transition), event.failures, *is_superseded)
                })
                .collect();
            all.sort();
            all
        };
        assert_eq!(described(&letters), described(&self.model.dead_letters()), "{}", self.calls());
        let mut model = self.model.dead_letters();
        for real in &letters {
            let of_same = |other: &DeadLetter| {
                other.event.id == real.event.id && other.event.seen_ago.abs_diff(real.event.seen_ago) < 3 * SECOND
            };
            let found = model.iter().position(of_same);
            model.remove(found.unwrap_or_else(|| panic!("{real:?} is not in {model:?}\n{}", self.calls())));
        }
        let summary = self.store.summary().unwrap();
        let sum =
            |figure: fn(&crate::store::PartitionSummary) -> u64| summary.partitions.iter().map(figure).sum::<u64>();
        assert_eq!(sum(|partition| partition.online), online.len() as u64, "{}", self.calls());
        assert_eq!(sum(|partition| partition.undelivered), snapshot.undelivered_events, "{}", self.calls());
        assert_eq!(sum(|partition| partition.dead_letters), letters.len() as u64, "{}", self.calls());
    }

    fn requeue(&mut self) {
        self.history.push("the dead letters are requeued".into());
        assert_eq!(self.store.requeue_dead_letters().unwrap(), self.model.requeue_dead_letters(), "{}", self.calls());
        self.fetched.clear();
    }

    fn lose(&mut self) {
        self.history.push("the data are lost".into());
        self.place.lose();
        self.model.lose();
        self.fetched.clear();
        // The store may hold a file or a connection that is gone: like a member it opens anew.
        self.store = self.place.open();
    }

    fn calls(&self) -> String {
        self.history.join("\n")
    }
}

fn compare(place: &dyn Place, seed: u64) {
    let mut random = Random::new(seed);
    // From before the clock was set back by decades.
    let last_version = if random.percent(50) { 3_000_000_000_000_000 } else { 0 };
    let mut pair = Pair::new(place, last_version);
    for _ in 0..CALLS {
        // Two calls never come at the same moment of either clock.
        std::thread::sleep(std::time::Duration::from_micros(1_100));
        pair.pass_time(1_100_000);
        match random.range(0, 99) {
            0..=39 => pair.write(&mut random),
            40..=74 => pair.poll(&mut random),
            75..=89 => pair.commit(&mut random),
            90..=95 => pair.ask(),
            96..=97 => pair.requeue(),
            _ => pair.lose(),
        }
    }
    pair.ask();
}

fn compare_all(place: impl Fn() -> Box<dyn Place>) {
    let first = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in first.map_or(0..SEQUENCES, |seed| seed..seed + 1) {
        let place = place();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(&*place, seed)));
        if let Err(panic) = result {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn sqlite_replies_as_the_model_does() {
    compare_all(|| Box::new(Folder::new()));
}

#[test]
fn redis_replies_as_the_model_does() {
    let server = std::rc::Rc::new(Server::new());
    compare_all(|| {
        server.command(&["FLUSHALL"]);
        Box::new(SharedServer(std::rc::Rc::clone(&server)))
    });
}

/// One server for all sequences: to start one takes longer than a sequence.
struct SharedServer(std::rc::Rc<Server>);

impl Place for SharedServer {
    fn url(&self) -> String {
        self.0.url()
    }

    fn lose(&self) {
        self.0.command(&["FLUSHALL"]);
    }
}
