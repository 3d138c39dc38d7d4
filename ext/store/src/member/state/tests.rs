//! Outages, their delays, and what follows when the data were lost or went back.
//!
//! Over 400 lines: all tests share one driver.

use super::*;
use crate::id::{Charset, Kind as IdKind};
use crate::store::{Event, Heartbeat, Notice, Purpose, Sweep, Written};
use online_manager_tracker::{Reason, Transition};

const TRAITS: StoreTraits = StoreTraits {
    partitions: 2,
    poll_interval: milliseconds(20),
    idle_poll_interval: milliseconds(20),
    lease_poll_interval: milliseconds(20),
};

/// A member of a store of two partitions, whose calls work unless a test lets them fail.
struct Driver {
    state: MemberState,
    now: Nanos,
    calls: [usize; Kind::COUNT],
    /// The kind of call that fails: in the first partition, or as a whole.
    failing: Option<(Kind, bool)>,
    /// The partitions whose data are others, until the next call on them.
    replaced: [bool; 2],
    was_away: bool,
    /// Another member holds every lease.
    is_leased_by_other: bool,
    /// Each sweep sets somebody offline, and somebody else is due.
    is_always_sweeping: bool,
    /// When a lease was asked for by each poll that did, and which polls asked for events.
    acquired_at: Vec<Nanos>,
    fetches: Vec<PollRequest>,
    /// What the store says of its data, and after which number it was first asked for notices of the first partition.
    known: Known,
    first_notices_after: Option<u64>,
    /// The passes over the users that were asked for.
    resends: Vec<Resend>,
    /// Whether each heartbeat was written as one that is resent.
    written: Vec<bool>,
}

impl Driver {
    fn new() -> Driver {
        let mut state = MemberState::new("the store".into(), Token([1; 16]), 1, 0);
        state.phase = Phase::Running;
        state.timeout = seconds(20);
        Driver {
            state,
            now: SECOND,
            calls: [0; Kind::COUNT],
            failing: None,
            replaced: [false; 2],
            was_away: false,
            is_leased_by_other: false,
            is_always_sweeping: false,
            acquired_at: Vec::new(),
            fetches: Vec::new(),
            known: KNOWN,
            first_notices_after: None,
            resends: Vec::new(),
            written: Vec::new(),
        }
    }

    /// A heartbeat of a user in the first partition.
    fn heartbeat(&mut self, timeout: Nanos) {
        let id = (0..).map(|number: u8| UserId::new(IdKind::String(Charset::Ascii), &[b'a' + number]));
        let id = id.into_iter().find(|id| id.partition(2) == 0).unwrap();
        self.state.outbox.heartbeat(id, self.now, timeout, Purpose::Report);
    }

    /// Runs for a while. Returns what was reported.
    fn run(&mut self, length: Nanos) -> Vec<String> {
        let until = self.now + length;
        let mut reply = Reply::None;
        while self.now < until {
            reply = match self.state.step(self.now, reply) {
                Action::Call(call) => self.answer(&call),
                Action::Wait(duration) => {
                    self.now += duration;
                    Reply::None
                }
                Action::End => panic!("it ended"),
            };
            self.now += milliseconds(1) / 10;
        }
        self.state.outages.drain(..).collect()
    }

    /// Whether the data of a partition are others: once.
    fn is_replaced(&mut self, partition: Partition) -> bool {
        std::mem::take(&mut self.replaced[usize::from(partition)])
    }

    fn answer(&mut self, call: &Call) -> Reply {
        match call {
            Call::Resend(resend) => self.resends.push(resend.clone()),
            Call::Write(_, writes) => {
                let heartbeats = writes.iter().filter_map(|write| match write {
                    Write::Heartbeat(heartbeat) => Some(heartbeat.purpose == Purpose::Resend),
                    Write::Leave(_) => None,
                });
                self.written.extend(heartbeats);
            }
            Call::Poll(_, requests) => {
                let acquires = requests.iter().any(|request| request.lease == LeaseRequest::Acquire);
                self.acquired_at.extend(acquires.then_some(self.now));
                let first =
                    requests.iter().filter(|request| request.partition == 0).find_map(|request| request.notices_after);
                self.first_notices_after = self.first_notices_after.or(first);
                self.fetches.extend(requests.iter().filter(|request| request.events.is_some()).cloned());
            }
            _ => {}
        }
        let asked: Vec<Partition> = match call {
            Call::Write(..) => vec![0],
            Call::Poll(_, requests) => requests.iter().map(|request| request.partition).collect(),
            _ => Vec::new(),
        };
        let replaced: Vec<bool> = asked.into_iter().map(|partition| self.is_replaced(partition)).collect();
        let other = || StoreError::Replaced("other data".into());
        let whole = |kind: Kind| match self.failing {
            Some((failing, true)) if failing == kind => Err(StoreError::Unavailable("all of it".into())),
            _ => Ok(()),
        };
        let part = |kind: Kind, partition: Partition| match self.failing {
            Some((failing, false)) if failing == kind && partition == 0 => {
                Err(StoreError::Unavailable("a part of it".into()))
            }
            _ => Ok(()),
        };
        let reply = match call {
            Call::Open => Reply::Opened(whole(Kind::Open).map(|()| (TRAITS, std::mem::take(&mut self.was_away)))),
            Call::Write(..) if replaced == [true] => Reply::Written(Ok(vec![(0, Err(other()))])),
            Call::Register(_) => Reply::Registered(whole(Kind::Register).map(|()| 2)),
            Call::Write(_, writes) => Reply::Written(whole(Kind::Write).map(|()| {
                writes
                    .iter()
                    .map(|_| (0, part(Kind::Write, 0).map(|()| Written { known: self.known, ..Written::default() })))
                    .collect()
            })),
            Call::Poll(_, requests) => Reply::Polled(whole(Kind::Poll).map(|()| {
                let part = |request: &PollRequest| {
                    let lease = if self.is_leased_by_other {
                        LeaseState::HeldByOther
                    } else if self.state.log.is_leased(request.partition) {
                        LeaseState::Renewed
                    } else {
                        polled(request).lease
                    };
                    let swept = if is_sweep(request) { part(Kind::Sweep, request.partition) } else { Ok(()) };
                    let expired = request.sweep.filter(|_| self.is_always_sweeping);
                    let sweep = expired.map(|expired| Sweep { expired, lag: 0, next: Some(0) });
                    let result = PollResult { lease, sweep, known: self.known, ..polled(request) };
                    part(Kind::Poll, request.partition).and(swept).map(|()| result)
                };
                let results = requests.iter().zip(replaced);
                results.map(|(request, is_other)| if is_other { Err(other()) } else { part(request) }).collect()
            })),
            _ => return Reply::Done,
        };
        if let Some(kind) = Kind::of(&reply) {
            self.calls[kind as usize] += 1;
        }
        reply
    }
}

const KNOWN: Known = Known { epoch: 1, generation: 0, last: 0 };

fn polled(request: &PollRequest) -> PollResult {
    let is_asked = matches!(request.lease, LeaseRequest::Acquire | LeaseRequest::Renew);
    PollResult {
        lease: if is_asked { LeaseState::Renewed } else { LeaseState::Free },
        sweep: None,
        events: Vec::new(),
        notices: Vec::new(),
        notices_until: 0,
        oldest: None,
        delivered_through: 0,
        known: KNOWN,
    }
}

#[test]
fn writes_that_fail_in_a_partition_while_polls_work_are_one_outage() {
    let mut driver = Driver::new();
    assert_eq!(driver.run(SECOND), [""; 0]);
    driver.failing = Some((Kind::Write, false));
    driver.heartbeat(seconds(20));
    let before = driver.calls;
    assert_eq!(driver.run(seconds(5)), ["a part of it"]);
    assert!(driver.calls[Kind::Write as usize] > before[Kind::Write as usize] + 5, "it is tried again");
    assert!(driver.calls[Kind::Poll as usize] > before[Kind::Poll as usize] + 50, "polls go on");
    driver.failing = None;
    assert_eq!(driver.run(seconds(5)), [""; 0]);
    driver.failing = Some((Kind::Write, false));
    driver.heartbeat(seconds(20));
    assert_eq!(driver.run(seconds(5)).len(), 1, "another outage");
}

#[test]
fn writes_that_fail_as_a_whole_are_one_outage_though_nothing_is_written_meanwhile() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Write, true));
    let mut reports = Vec::new();
    for _ in 0..5 {
        // It is given up after its timeout, and then there are only polls.
        driver.heartbeat(SECOND);
        reports.extend(driver.run(seconds(5)));
    }
    assert_eq!(reports.len(), 1, "{reports:?}");
}

#[test]
fn a_registration_that_fails_by_itself_is_one_outage() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Register, true));
    assert_eq!(driver.run(seconds(20)).len(), 1);
    assert!(driver.calls[Kind::Register as usize] > 5);
}

#[test]
fn a_permanent_error_in_an_outage_is_reported_too_and_once() {
    let mut driver = Driver::new();
    let errors = [
        StoreError::Unavailable("away".into()),
        StoreError::Misconfigured("no permission".into()),
        StoreError::Unavailable("away".into()),
        StoreError::Misconfigured("no permission".into()),
    ];
    for error in &errors {
        driver.state.note_failure(SECOND, None, Kind::Poll, error);
    }
    assert_eq!(driver.state.outages.drain(..).collect::<Vec<_>>(), ["away", "no permission"]);
    driver.run(seconds(60));
    errors.iter().rev().for_each(|error| driver.state.note_failure(driver.now, None, Kind::Poll, error));
    assert_eq!(driver.state.outages.drain(..).collect::<Vec<_>>(), ["no permission"]);
}

#[test]
fn sweeps_that_fail_while_other_polls_work_are_one_outage() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    // With each new connection the first polls sweep nobody, and succeed.
    let reports = |driver: &mut Driver| {
        let runs = (0..10).map(|_| {
            driver.was_away = true;
            driver.run(seconds(3)).len()
        });
        runs.sum::<usize>()
    };
    driver.failing = Some((Kind::Sweep, false));
    assert_eq!(reports(&mut driver), 1);
    driver.failing = None;
    assert_eq!(reports(&mut driver), 0);
    driver.failing = Some((Kind::Sweep, false));
    assert_eq!(reports(&mut driver), 1, "another outage");
}

#[test]
fn a_failure_that_nothing_follows_hides_no_later_outage_for_ever() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Write, true));
    driver.heartbeat(SECOND);
    assert_eq!(driver.run(seconds(5)).len(), 1);
    driver.failing = Some((Kind::Open, true));
    assert_eq!(driver.run(seconds(5)), [""; 0], "it is the same outage");
    driver.failing = None;
    driver.run(FORGOTTEN_AFTER + SECOND);
    driver.failing = Some((Kind::Open, true));
    assert_eq!(driver.run(seconds(5)).len(), 1);
}

#[test]
fn heartbeats_that_wait_while_the_data_are_lost_are_written_again_as_resent() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.heartbeat(seconds(20));
    driver.replaced = [true, false];
    // The heartbeat meets the other data before a poll does.
    driver.state.partitions.iter_mut().for_each(|partition| {
        (partition.lease_at, partition.sweep_at, partition.fetch_at) = (Nanos::MAX, Nanos::MAX, Nanos::MAX);
    });
    assert_eq!(driver.run(SECOND), ["other data"]);
    assert_eq!(driver.written, [false, true]);
}

#[test]
fn everyone_is_sent_again_after_a_connection_was_lost() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.was_away = true;
    driver.run(SECOND);
    let [resend] = &driver.resends[..] else { panic!("{:?}", driver.resends) };
    assert!(!resend.is_lost && resend.settled_at.iter().all(Option::is_some), "{resend:?}");
}

#[test]
fn the_users_of_a_partition_that_was_away_are_sent_again() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Poll, false));
    driver.run(seconds(2));
    assert_eq!(driver.resends.len(), 0, "{:?}", driver.resends);
    driver.failing = None;
    driver.run(seconds(2));
    let [resend] = &driver.resends[..] else { panic!("{:?}", driver.resends) };
    assert!(!resend.is_lost && matches!(resend.settled_at[..], [Some(_), None]), "{resend:?}");
}

#[test]
fn data_that_are_lost_in_every_partition_are_one_outage() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.replaced = [true, true];
    // The other partition is not due for long.
    driver.state.partitions[1].lease_at = Nanos::MAX;
    driver.state.partitions[1].sweep_at = Nanos::MAX;
    driver.state.partitions[1].fetch_at = Nanos::MAX;
    assert_eq!(driver.run(seconds(10)), ["other data"]);
    assert_eq!(driver.replaced, [false, false]);
}

#[test]
fn data_that_are_found_to_be_older_one_partition_after_the_other_are_one_outage() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.replaced = [true, false];
    assert_eq!(driver.run(SECOND), ["other data"]);
    // Another member noticed this a moment ago.
    driver.replaced = [false, true];
    assert_eq!(driver.run(seconds(10)), [""; 0]);
    driver.replaced = [false, true];
    assert_eq!(driver.run(SECOND), ["other data"], "another outage");
}

#[test]
fn a_lost_connection_and_the_other_data_behind_it_are_reported_once_each() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Open, true));
    assert_eq!(driver.run(seconds(5)), ["all of it"]);
    (driver.failing, driver.was_away, driver.replaced) = (None, true, [true, true]);
    assert_eq!(driver.run(SECOND), ["other data"]);
    assert_eq!(driver.replaced, [false, false]);
}

#[test]
fn a_lease_that_another_member_held_is_left_to_it_for_one_lease_after_the_data_perhaps_went_back() {
    let mut driver = Driver::new();
    driver.is_leased_by_other = true;
    driver.run(SECOND);
    driver.acquired_at.clear();
    // The connection was lost, and the data say now that nobody holds a lease.
    (driver.was_away, driver.is_leased_by_other) = (true, false);
    let lost_at = driver.now;
    driver.run(seconds(10));
    let length = driver.state.lease_length();
    assert!(driver.acquired_at[0] - lost_at >= length, "{:?}", driver.acquired_at);
    assert!(driver.acquired_at[0] - lost_at < length + SECOND, "{:?}", driver.acquired_at);
}

#[test]
fn the_member_that_held_a_lease_acquires_it_at_once_after_the_data_went_back() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.acquired_at.clear();
    driver.replaced = [true, true];
    let lost_at = driver.now;
    driver.run(SECOND);
    assert!(driver.acquired_at[0] - lost_at < SECOND / 2, "{:?}", driver.acquired_at);
    // Its lease is over before it hears of the loss: another one may hold it.
    driver.acquired_at.clear();
    driver.replaced = [true, true];
    driver.now += seconds(10);
    let lost_at = driver.now;
    driver.run(SECOND);
    assert_eq!(driver.acquired_at, [0; 0]);
    driver.run(seconds(10));
    assert!(driver.acquired_at[0] - lost_at >= driver.state.lease_length(), "{:?}", driver.acquired_at);
}

#[test]
fn a_lease_is_acquired_though_the_connection_is_lost_again_and_again() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    let lease = driver.state.lease_length();
    // Its lease is over before it hears of the loss: another one may hold it.
    driver.replaced = [true, true];
    driver.now += 2 * lease;
    driver.acquired_at.clear();
    let lost_at = driver.now;
    while driver.acquired_at.is_empty() && driver.now < lost_at + 10 * lease {
        driver.was_away = true;
        driver.run(lease / 4);
    }
    let waited = driver.acquired_at.first().expect("it acquires the lease") - lost_at;
    assert!((MAX_WAITS * lease..(MAX_WAITS + 1) * lease).contains(&waited), "{waited}");
}

#[test]
fn an_event_in_a_callback_while_the_data_go_back_is_reported_and_not_fetched_before() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    let id = UserId::new(IdKind::String(Charset::Ascii), b"a");
    let partition = id.partition(2);
    let event = Event {
        number: 7,
        id,
        transition: Transition::Online,
        reason: Reason::Heartbeat,
        lateness: 0,
        seen_ago: 0,
        version: 7,
        failures: 0,
    };
    driver.state.log.add_fetched(partition, vec![event], driver.now);
    assert_eq!(driver.state.log.claim(driver.now, |_| false).1.len(), 1);
    driver.replaced[usize::from(partition)] = true;
    driver.fetches.clear();
    driver.run(SECOND);
    assert!(driver.acquired_at.len() > 1, "it holds the lease again");
    driver.fetches.retain(|request| request.partition == partition);
    // The poll that learns of the other data may ask.
    assert!(driver.fetches.len() <= 1, "{:?}", driver.fetches);
    driver.fetches.clear();
    driver.state.log.delivered(&crate::log::DeliveryOutcome::Returned, driver.now);
    driver.run(SECOND);
    let first = driver.fetches.iter().find(|request| request.partition == partition).unwrap();
    assert_eq!(first.handled, Some(Handled { epoch: KNOWN.epoch, through: 7, except: vec![] }));
}

#[test]
fn an_offline_that_waits_is_written_again_with_its_last_heartbeat() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    let id = UserId::new(IdKind::String(Charset::Ascii), b"a");
    let partition = id.partition(2);
    let event = Event {
        number: 1,
        id: id.clone(),
        transition: Transition::Offline,
        reason: Reason::Timeout,
        lateness: seconds(10),
        seen_ago: seconds(30),
        version: 1,
        failures: 0,
    };
    driver.now = seconds(100);
    driver.state.log.add_fetched(partition, vec![event], driver.now);
    driver.now += SECOND;
    driver.state.partition_replaced(driver.now, partition);
    let (age, timeout) = (seconds(31), 1);
    let expected = Write::Heartbeat(Heartbeat { id, age, timeout, purpose: Purpose::Resend });
    assert_eq!(driver.state.outbox.take_batch(10).writes(driver.now, 0), [expected]);
}

#[test]
#[should_panic(expected = "a store answers each request")]
fn a_store_that_leaves_an_answer_out_is_a_bug() {
    let _ = next_answer::<()>(&mut std::iter::empty());
}

#[test]
fn nothing_is_called_before_the_application_has_said_its_last_version() {
    let mut driver = Driver::new();
    driver.state.awaits_last_version = true;
    driver.state.has_seen_heartbeat = true;
    driver.heartbeat(seconds(20));
    assert_eq!(driver.run(seconds(10)), Vec::<String>::new());
    assert_eq!(driver.calls, [0; Kind::COUNT]);
    assert!(driver.state.has_news(driver.now), "the reactor is to ask");
    driver.state.set_last_version(0);
    driver.run(SECOND);
    assert!(!driver.state.has_news(driver.now));
    assert_eq!(driver.written, [false]);
}

#[test]
fn every_call_says_the_last_version_until_the_data_have_come_as_far() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    // Late: an answer before it was none.
    let known = Known { epoch: 5, generation: 1, last: 6_999 };
    driver.state.partitions.iter_mut().for_each(|partition| partition.known = known);
    assert_eq!(driver.state.membership().known, [known; 2]);
    driver.state.set_last_version(7_000);
    let newcomer = Known { epoch: 0, generation: 0, last: 7_000 };
    assert_eq!(driver.state.membership().known, [newcomer; 2]);
    let raised = Known { last: 7_001, ..known };
    driver.state.partition_mut(0).unwrap().known = raised;
    assert_eq!(driver.state.membership().known, [raised, newcomer]);
    driver.state.set_last_version(0);
    assert_eq!(driver.state.membership().known, [raised, newcomer], "never back");
}

#[test]
fn a_stop_waits_for_the_last_version_but_not_for_ever() {
    let mut driver = Driver::new();
    driver.state.awaits_last_version = true;
    driver.state.has_seen_heartbeat = true;
    driver.heartbeat(seconds(20));
    driver.state.phase = Phase::Stopping;
    let began = driver.now;
    while let Action::Wait(duration) = driver.state.step(driver.now, Reply::None) {
        driver.now += duration;
    }
    assert!((SHUTDOWN_TIMEOUT..SHUTDOWN_TIMEOUT + SECOND).contains(&(driver.now - began)), "it writes then");

    let mut idle = Driver::new();
    idle.state.awaits_last_version = true;
    idle.state.phase = Phase::Stopping;
    assert_eq!(idle.state.step(idle.now, Reply::None), Action::End, "nothing is to be written");
    assert_eq!(idle.state.phase, Phase::Closing);
}

#[test]
fn a_stop_that_leaves_users_unwritten_says_why() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Write, false));
    driver.heartbeat(seconds(20));
    driver.run(SECOND);
    driver.state.phase = Phase::Stopping;
    let mut reply = Reply::None;
    loop {
        reply = match driver.state.step(driver.now, reply) {
            Action::Call(call) => driver.answer(&call),
            Action::Wait(duration) => {
                driver.now += duration;
                Reply::None
            }
            Action::End => break,
        };
        driver.now += milliseconds(1) / 10;
    }
    let reports: Vec<String> = driver.state.outages.drain(..).collect();
    assert_eq!(reports, ["a part of it; 1 user had heartbeats or leaves that could not be written before the end"]);
}

/// The store has dated them later. Otherwise they were forgotten before their `offline`, which was lost with the data.
#[test]
fn after_a_slow_write_its_users_are_kept_for_as_long_as_it_took() {
    let mut driver = Driver::new();
    driver.state.timeout = seconds(2);
    driver.run(seconds(3));
    driver.heartbeat(seconds(2));
    let mut kept = Vec::new();
    let mut reply = Reply::None;
    let until = driver.now + seconds(20);
    while driver.now < until {
        reply = match driver.state.step(driver.now, reply) {
            Action::Call(call) => {
                let reply = driver.answer(&call);
                match call {
                    Call::Write(..) => driver.now += milliseconds(600),
                    Call::Scan { last_ok, .. } => kept.push(driver.now - last_ok),
                    _ => {}
                }
                reply
            }
            Action::Wait(duration) => {
                driver.now += duration;
                Reply::None
            }
            Action::End => panic!("it ended"),
        };
        driver.now += milliseconds(1) / 10;
    }
    let [during, .., after] = &kept[..] else { panic!("{kept:?}") };
    assert!(*during >= milliseconds(600) && *after < milliseconds(500), "{kept:?}");
}

/// A poll of new data, which know nobody who has not gone, in a second.
fn poll_new_data(driver: &mut Driver) {
    driver.now += SECOND;
    let (lease, now) = (LeaseRequest::None, driver.now);
    let request = PollRequest { partition: 0, lease, sweep: None, events: None, notices_after: None, handled: None };
    let result = polled(&request);
    driver.state.apply_poll(request, result, now, now);
}

/// A poll that takes a second, and replies that a user left two seconds ago, with five seconds of grace.
fn hear_of_a_leave_slowly(driver: &mut Driver) -> Heard {
    let asked_at = driver.now;
    driver.now += SECOND;
    let (lease, notices_after) = (LeaseRequest::None, Some(0));
    let request = PollRequest { partition: 0, lease, sweep: None, events: None, notices_after, handled: None };
    let id = UserId::new(IdKind::String(Charset::Ascii), b"ada");
    let notice = Notice { id, due: seconds(3), left: Some((seconds(2), seconds(5))) };
    let result = PollResult { notices: vec![notice], ..polled(&request) };
    driver.state.apply_poll(request, result, asked_at, driver.now);
    driver.state.heard.pop().expect("it has heard of the leave")
}

/// It has the heartbeats of users who may have left elsewhere since. Their notices have microseconds as numbers.
#[test]
fn a_member_that_starts_while_the_store_is_away_asks_for_the_notices_since_its_first_heartbeat() {
    let mut driver = Driver::new();
    driver.failing = Some((Kind::Poll, true));
    driver.heartbeat(seconds(20));
    driver.run(seconds(3));
    driver.failing = None;
    driver.known = Known { last: 1_000_000_000, ..KNOWN };
    driver.run(milliseconds(200));
    let asked_at = driver.first_notices_after.expect("it has asked for notices");
    assert!((995_000_000..996_500_000).contains(&asked_at), "{asked_at}");
}

/// Members that have polled new data may have left notices there before this one polls.
#[test]
fn a_member_goes_on_with_the_notices_of_new_data_where_it_was() {
    let mut driver = Driver::new();
    driver.run(seconds(3));
    driver.state.partitions[0].notices_after = Some(7);
    driver.state.partition_replaced(driver.now, 0);
    assert_eq!(driver.state.partitions[0].notices_after, Some(7));
}

/// Otherwise it is written again, after a loss, as one that is due later: it might bring its user online.
#[test]
fn a_leave_keeps_its_grace_period_though_the_poll_is_slow() {
    let mut driver = Driver::new();
    driver.run(seconds(9));
    let asked_at = driver.now;
    assert_eq!(hear_of_a_leave_slowly(&mut driver).left, Some((asked_at - seconds(2), seconds(5))));
}

#[test]
fn after_a_slow_poll_who_left_is_kept_for_as_long_as_it_took() {
    let mut driver = Driver::new();
    driver.run(seconds(21));
    let late = |driver: &mut Driver| {
        poll_new_data(driver);
        driver.now - driver.state.partitions[0].settled_at
    };
    let before = late(&mut driver);
    hear_of_a_leave_slowly(&mut driver);
    assert_eq!(late(&mut driver), before + SECOND.div_ceil(TICK) * TICK);
    driver.run(seconds(9));
    assert_eq!(late(&mut driver), before, "the user has gone");
}

#[test]
fn new_data_stay_unsettled_when_the_member_starts_anew() {
    let mut driver = Driver::new();
    driver.run(SECOND / 2);
    let until = driver.state.partitions[0].unsettled_until;
    driver.state.restart();
    assert!(until > driver.now && driver.state.partitions[0].unsettled_until == until);
}

/// A store that always says that it has set users offline, for example.
#[test]
fn a_member_asks_a_thousand_times_a_second_at_most_whatever_the_store_replies() {
    let mut driver = Driver::new();
    driver.run(seconds(1));
    driver.is_always_sweeping = true;
    let before = driver.calls[Kind::Poll as usize];
    driver.run(seconds(1));
    let polls = driver.calls[Kind::Poll as usize] - before;
    assert!((500..=1_001).contains(&polls), "{polls}");
}

/// Otherwise the next loss would take them.
#[test]
fn users_who_are_due_are_kept_until_they_are_written_again() {
    let mut driver = Driver::new();
    driver.state.timeout = SECOND;
    driver.run(SECOND);
    driver.heartbeat(SECOND / 2);
    let due = driver.now + SECOND / 2;
    poll_new_data(&mut driver);
    assert!(driver.state.partitions[0].settled_at < due);
    driver.run(seconds(2));
    assert!(driver.state.partitions[0].settled_at > due + SECOND);
}

/// Within a lease length other members write their users again, whose `offline` is then due later.
#[test]
fn for_a_lease_length_nothing_new_data_say_is_settled() {
    let mut driver = Driver::new();
    driver.state.timeout = SECOND;
    driver.run(SECOND / 2);
    assert_eq!(driver.state.partitions[0].settled_at, 0);
    driver.run(SECOND);
    assert!(driver.state.partitions[0].settled_at > driver.now - SECOND / 2);
}

/// A store adds it to each deadline, so that a user is not yet due there who is due here.
#[test]
fn users_are_settled_later_by_what_the_clock_may_be_off() {
    let mut driver = Driver::new();
    driver.run(seconds(21));
    let before = driver.now;
    driver.state.jitter = milliseconds(4);
    poll_new_data(&mut driver);
    let late = driver.now - driver.state.partitions[0].settled_at;
    assert_eq!((driver.now - before, late), (SECOND, 2 * (milliseconds(4) + TICK) + UNCERTAIN_ORDER));
}

#[test]
fn users_who_are_due_are_kept_until_a_pass_has_put_them_into_the_outbox() {
    let mut driver = Driver::new();
    driver.state.timeout = SECOND;
    driver.run(seconds(2));
    let before = driver.state.partitions[0].settled_at;
    driver.state.resend(None, true);
    poll_new_data(&mut driver);
    assert_eq!(driver.state.partitions[0].settled_at, before);
    driver.run(seconds(2));
    assert!(driver.state.partitions[0].settled_at > before + SECOND);
}
