use super::*;
use crate::id::{Charset, Kind as IdKind};
use crate::store::Written;

const TRAITS: StoreTraits = StoreTraits {
    partitions: 2,
    poll_interval: 20 * MILLISECOND,
    idle_poll_interval: 20 * MILLISECOND,
    lease_poll_interval: 20 * MILLISECOND,
};

/// A member of a store of two partitions, whose calls work unless a test lets them fail.
struct Driver {
    state: MemberState,
    now: Nanos,
    calls: [usize; Kind::COUNT],
    /// The kind of call that fails: in the first partition, or as a whole.
    failing: Option<(Kind, bool)>,
}

impl Driver {
    fn new() -> Driver {
        let mut state = MemberState::new("the store".into(), Token([1; 16]), 1, 0);
        state.phase = Phase::Running;
        state.timeout = 20 * SECOND;
        Driver { state, now: SECOND, calls: [0; Kind::COUNT], failing: None }
    }

    /// A heartbeat of a user in the first partition.
    fn heartbeat(&mut self, timeout: Nanos) {
        let id = (0..).map(|number: u8| UserId::new(IdKind::String(Charset::Ascii), &[b'a' + number]));
        let id = id.into_iter().find(|id| id.partition(2) == 0).unwrap();
        self.state.outbox.heartbeat(id, self.now, timeout, false);
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
            self.now += MILLISECOND / 10;
        }
        self.state.outages.drain(..).collect()
    }

    fn answer(&mut self, call: &Call) -> Reply {
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
            Call::Open => Reply::Opened(whole(Kind::Open).map(|()| (TRAITS, false))),
            Call::Register(_) => Reply::Registered(whole(Kind::Register).map(|()| 2)),
            Call::Write(_, writes) => Reply::Written(
                whole(Kind::Write)
                    .map(|()| writes.iter().map(|_| (0, part(Kind::Write, 0).map(|()| Written::default()))).collect()),
            ),
            Call::Poll(_, requests) => Reply::Polled(whole(Kind::Poll).map(|()| {
                requests.iter().map(|request| part(Kind::Poll, request.partition).map(|()| polled(request))).collect()
            })),
            _ => return Reply::Done,
        };
        if let Some(kind) = Kind::of(&reply) {
            self.calls[kind as usize] += 1;
        }
        reply
    }
}

fn polled(request: &PollRequest) -> PollResult {
    let is_asked = matches!(request.lease, LeaseRequest::Acquire | LeaseRequest::Renew);
    PollResult {
        lease: if is_asked { LeaseState::Renewed } else { LeaseState::Free },
        sweep: None,
        events: Vec::new(),
        leaves: Vec::new(),
        leaves_until: 0,
        oldest: None,
        known: Known::default(),
    }
}

#[test]
fn writes_that_fail_in_a_partition_while_polls_work_are_one_outage() {
    let mut driver = Driver::new();
    assert_eq!(driver.run(SECOND), [""; 0]);
    driver.failing = Some((Kind::Write, false));
    driver.heartbeat(20 * SECOND);
    let before = driver.calls;
    assert_eq!(driver.run(5 * SECOND), ["a part of it"]);
    assert!(driver.calls[Kind::Write as usize] > before[Kind::Write as usize] + 5, "it is tried again");
    assert!(driver.calls[Kind::Poll as usize] > before[Kind::Poll as usize] + 50, "polls go on");
    driver.failing = None;
    assert_eq!(driver.run(5 * SECOND), [""; 0]);
    driver.failing = Some((Kind::Write, false));
    driver.heartbeat(20 * SECOND);
    assert_eq!(driver.run(5 * SECOND).len(), 1, "another outage");
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
        reports.extend(driver.run(5 * SECOND));
    }
    assert_eq!(reports.len(), 1, "{reports:?}");
}

#[test]
fn a_registration_that_fails_by_itself_is_one_outage() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Register, true));
    assert_eq!(driver.run(20 * SECOND).len(), 1);
    assert!(driver.calls[Kind::Register as usize] > 5);
}

#[test]
fn a_failure_that_nothing_follows_hides_no_later_outage_for_ever() {
    let mut driver = Driver::new();
    driver.run(SECOND);
    driver.failing = Some((Kind::Write, true));
    driver.heartbeat(SECOND);
    assert_eq!(driver.run(5 * SECOND).len(), 1);
    driver.failing = Some((Kind::Open, true));
    assert_eq!(driver.run(5 * SECOND), [""; 0], "it is the same outage");
    driver.failing = None;
    driver.run(FORGOTTEN_AFTER + SECOND);
    driver.failing = Some((Kind::Open, true));
    assert_eq!(driver.run(5 * SECOND).len(), 1);
}
