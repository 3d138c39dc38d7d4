//! What a member does next: a state machine without I/O. [`MemberState::step`] takes the time and what became of the last
//! call, and returns what to do: a call of the store, a pass over this process' users, or a wait.
//!
//! It reads no clock, takes no lock and waits for nothing, so that the simulator runs it in any order of events. The thread
//! that does run it is in `thread.rs`.
//!
//! Over 400 lines: it is one state machine, and each of its states depends on the others.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use online_manager_tracker::invariant::violated;
use online_manager_tracker::{Nanos, Stall, TICK};

use super::slow_calls::SlowCalls;
use super::{Phase, SECOND, milliseconds, seconds};
use crate::coalescer::Heard;
use crate::error::StoreError;
use crate::id::UserId;
use crate::log::{Log, backoff};
use crate::outbox::{Batch, Outbox, UNCERTAIN_ORDER};
use crate::store::{
    Commit, Handled, Known, LeaseRequest, LeaseState, Membership, OVERDUE, Partition, PollRequest, PollResult, Purpose,
    Token, Write, WriteResult,
};

/// How many users are written in one call: the others wait for a few milliseconds, and no longer.
const WRITE_BATCH_SIZE: usize = 1_000;

/// How many users of a partition one sweep sets offline.
const SWEEP_BATCH_SIZE: usize = 256;

/// The shortest time between two writes, so that a crowd is not written one by one.
const MIN_WRITE_INTERVAL: Nanos = milliseconds(2);

/// The shortest wait after a cycle in which the store neither took nor gave anything: 200 cycles a second at most.
const MIN_IDLE_WAIT: Nanos = milliseconds(5);

/// The shortest time between the beginnings of two cycles, whatever the store took or gave, unless the member is woken.
const MIN_CYCLE: Nanos = milliseconds(1);

/// How often an unreachable store is tried again: soon at first.
const MIN_RETRY_DELAY: Nanos = milliseconds(100);
const MAX_RETRY_DELAY: Nanos = seconds(2);

/// When a partition that failed by itself is tried again.
const PARTITION_RETRY_DELAY: Nanos = milliseconds(500);

/// For how many lease lengths at most a lease is left to another member, however often the connection is lost meanwhile.
const MAX_WAITS: u64 = 3;

/// After this time without another failure, the failure of a kind of call is forgotten: a kind that is no longer needed
/// cannot succeed.
const FORGOTTEN_AFTER: Nanos = seconds(300);

/// How long after something has happened the log is polled more often.
const ACTIVE_WINDOW: Nanos = seconds(2);

/// How long a stop waits for a store that is away.
const SHUTDOWN_TIMEOUT: Nanos = seconds(5);

/// How long a stop waits before it looks again whether a callback has returned, and before it tries a store again.
const SHUTDOWN_POLL_INTERVAL: Nanos = milliseconds(5);
const SHUTDOWN_RETRY_DELAY: Nanos = milliseconds(50);

/// A lease lasts for at least this many cycles, up to [`MAX_LEASE`], however slow the store is.
const CYCLES_PER_LEASE: u64 = 8;
const MAX_LEASE: Nanos = seconds(60);

/// The number of lease lengths for which a member keeps an orphaned lease above its share. The registration of a dead member
/// lasts for one.
const KEPT_LEASES: u64 = 2;

/// What a store says of itself when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreTraits {
    /// The number of partitions.
    pub(crate) partitions: Partition,
    /// Nanoseconds between two polls of the log while something happens, and while nothing does.
    pub(crate) poll_interval: Nanos,
    pub(crate) idle_poll_interval: Nanos,
    /// Nanoseconds between two polls of a lease that another member holds.
    pub(crate) lease_poll_interval: Nanos,
}

/// What the state machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Do this, and report the outcome with the next step.
    Call(Call),
    /// Wait for this number of nanoseconds, or until the member is woken.
    Wait(Nanos),
    /// The member has ended.
    End,
}

/// A call of the store, or a pass over the users of this process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    /// Open the store unless it is open; connect again if the connection was lost.
    Open,
    Register(Membership),
    Deregister(Membership),
    Commit(Membership, Vec<(Partition, Commit)>),
    Write(Membership, Vec<Write>),
    Poll(Membership, Vec<PollRequest>),
    /// Close the connection if the store can go on with a new one, and the store otherwise.
    Recover,
    /// Put into the outbox the users whose last heartbeat has not been written for long enough, and forget who has been
    /// silent for a timeout, as of `last_ok`.
    Scan {
        last_ok: Nanos,
        timeout: Nanos,
    },
    /// Put everyone into the outbox whose timeout was not over at a moment, in each partition that has one.
    Resend(Resend),
    /// Put the users into the outbox who were due in a stall, or soon, with later deadlines: heartbeats may wait to be read.
    Prolong {
        stall: Stall,
        /// Whether the stall is not over.
        is_lasting: bool,
    },
    /// The deadlines of users were moved forward, in this process or another one.
    Hear(Vec<Heard>),
    /// Put every heartbeat into the outbox that has not been written.
    EnqueueUnwritten,
}

/// A pass that has users written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resend {
    /// By partition, the moment as of which everything is delivered; `None` for a partition that is left out.
    pub(crate) settled_at: Vec<Option<Nanos>>,
    /// Whether the store has lost what it knew, and not only perhaps what was written last.
    pub(crate) is_lost: bool,
}

impl Resend {
    /// The moment for a user, if its partition is not left out.
    pub(crate) fn settled_at(&self, id: &UserId) -> Option<Nanos> {
        *self.settled_at.get(usize::from(id.partition(self.settled_at.len() as Partition)))?
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// There was none: the member starts, or has waited.
    None,
    /// The store is open, or not. The flag is set if there was a connection before, and it was lost.
    Opened(Result<(StoreTraits, bool), StoreError>),
    /// The number of partitions whose lease this member may hold.
    Registered(Result<Partition, StoreError>),
    Deregistered(Result<(), StoreError>),
    Committed(Result<Vec<Result<bool, StoreError>>, StoreError>),
    Written(Result<Vec<WriteResult>, StoreError>),
    Polled(Result<Vec<Result<PollResult, StoreError>>, StoreError>),
    /// The call cannot fail.
    Done,
}

/// A kind of call that can fail while the others work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Register,
    Commit,
    Write,
    Poll,
    /// A poll that sets users offline. Others may succeed where it fails.
    Sweep,
}

impl Kind {
    const COUNT: usize = 6;

    /// `None` for a reply that cannot be an error.
    fn of(reply: &Reply) -> Option<Kind> {
        match reply {
            Reply::None | Reply::Done => None,
            Reply::Opened(_) => Some(Kind::Open),
            Reply::Registered(_) | Reply::Deregistered(_) => Some(Kind::Register),
            Reply::Committed(_) => Some(Kind::Commit),
            Reply::Written(_) => Some(Kind::Write),
            Reply::Polled(_) => Some(Kind::Poll),
        }
    }
}

/// How often each kind of call has failed since it last succeeded, and when last.
#[derive(Clone, Copy, Debug)]
struct Failures([(u32, Nanos); Kind::COUNT]);

impl Failures {
    const NONE: Failures = Failures([(0, 0); Kind::COUNT]);

    fn failed(&mut self, kind: Kind, now: Nanos) {
        if let Some((count, at)) = self.0.get_mut(kind as usize) {
            (*count, *at) = (count.saturating_add(1), now);
        }
    }

    fn succeeded(&mut self, kind: Kind) {
        if let Some(failure) = self.0.get_mut(kind as usize) {
            *failure = (0, 0);
        }
    }

    fn count(&self, kind: Kind) -> u32 {
        self.0.get(kind as usize).map_or(0, |(count, _)| *count)
    }

    fn is_any(&self) -> bool {
        self.0.iter().any(|(count, _)| *count > 0)
    }

    fn are_over(&self, now: Nanos) -> bool {
        self.0.iter().all(|(count, at)| *count == 0 || now.saturating_sub(*at) >= FORGOTTEN_AFTER)
    }
}

/// What the member knows of a partition. Times are those of this process' clock.
#[derive(Clone, Debug)]
struct PartitionState {
    /// When to ask for the lease, or to renew it.
    lease_at: Nanos,
    sweep_at: Nanos,
    fetch_at: Nanos,
    /// The partition has failed, and is left alone until then.
    retry_at: Nanos,
    /// Every event that was due before then is delivered.
    settled_at: Nanos,
    /// Until then that time stays: the data are new to this member, and others may be about to write their users again.
    unsettled_until: Nanos,
    /// The notices after this number are to be asked for; `None` before the first poll.
    notices_after: Option<u64>,
    /// What was delivered before the data were lost or went back, or the connection was lost, to be sent with the next poll.
    handled: Option<Handled>,
    /// Whether the partition has been polled since the member knows it, noticed other data in any partition, or lost its
    /// connection. Before that nothing is written.
    is_polled: bool,
    /// Whether it has failed since the last poll that succeeded: what was written last may be lost.
    was_away: bool,
    /// Whether nobody held the lease at the last poll.
    is_free: bool,
    /// Since when polls found that nobody held the lease.
    free_since: Option<Nanos>,
    /// Until then the lease is kept though it is more than this member's share.
    keep_until: Nanos,
    /// When the data perhaps went back, if ever: first of several times with less than a lease length in between, and last. For
    /// one lease length from then on, the lease is left to the member that held it before, whatever the store says.
    uncertain_since: Option<(Nanos, Nanos)>,
    /// Until then that member is this one.
    held_until: Nanos,
    /// Whether the lease is to be released as soon as everything that was delivered is committed.
    is_releasing: bool,
    known: Known,
    /// The calls that failed in this partition by itself.
    failures: Failures,
}

impl PartitionState {
    /// From when on the lease may be acquired, if it is free.
    fn acquire_at(&self, now: Nanos, lease_length: Nanos) -> Nanos {
        let since = self.uncertain_since.filter(|_| now >= self.held_until);
        since.map_or(0, |(first, last)| (last + lease_length).min(first + MAX_WAITS * lease_length))
    }

    /// A partition of which nothing is known.
    const NEW: PartitionState = PartitionState {
        lease_at: 0,
        sweep_at: 0,
        fetch_at: 0,
        retry_at: 0,
        settled_at: 0,
        unsettled_until: 0,
        notices_after: None,
        handled: None,
        is_polled: false,
        was_away: false,
        is_free: true,
        free_since: None,
        keep_until: 0,
        uncertain_since: None,
        held_until: 0,
        is_releasing: false,
        known: Known { epoch: 0, generation: 0, last: 0 },
        failures: Failures::NONE,
    };
}

/// The duties of one cycle, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Scan,
    Open,
    Register,
    Commit,
    FirstPoll,
    Write,
    Poll,
    Rest,
}

/// The duties of a stop, or of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndStage {
    Enqueue,
    Open,
    Write,
    Commit,
    Release,
    Deregister,
    Done,
}

/// The call in progress. Commits and writes are put back when it fails. Writes and polls have the time of the call.
#[derive(Debug)]
enum InFlight {
    Nothing,
    Commits(Vec<(Partition, Commit)>),
    Writes(Batch, Vec<Write>, Nanos),
    Polls(Vec<PollRequest>, Nanos),
}

/// After this time a process that stands still counts as dead: its users expire.
const LONGEST_STALL: Nanos = seconds(60);

/// While a stall lasts, a user who is due within this time is written again with a later deadline.
const STALL_MARGIN: Nanos = milliseconds(500);

/// For how long no partition is swept after a stall, so that the later deadlines are written first.
const SWEEP_DELAY: Nanos = milliseconds(50);

/// After a longer gap between two steps the member itself stood still, or the store was slow. Another member may have set its
/// users offline meanwhile, whom later deadlines would bring back.
const LONGEST_GAP: Nanos = milliseconds(300);

/// A member's counters, for an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Nanoseconds by which the last sweep that set somebody offline was late.
    pub(crate) sweep_lag: Nanos,
    /// The number of calls of the store that failed.
    pub(crate) store_errors: u64,
    /// The number of calls of the store, without those that open it.
    pub(crate) calls: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct MemberState {
    pub(crate) outbox: Outbox,
    pub(crate) log: Log,
    pub(crate) phase: Phase,
    pub(crate) has_seen_heartbeat: bool,
    /// Whether the application is to be asked for its last version first. Until it has answered, the store is left alone: what
    /// is written there gets a version.
    pub(crate) awaits_last_version: bool,
    /// Whether it has answered.
    pub(crate) has_last_version: bool,
    /// Every version that is given out is greater than this.
    last_version: u64,
    /// The config's timeout.
    pub(crate) timeout: Nanos,
    /// What the application is to hear: one message for each outage, one more if a permanent error follows in it, and one
    /// more if the data are others.
    pub(crate) outages: VecDeque<String>,
    pub(crate) counters: Counters,
    /// When this member last changed something in the store, or was about to.
    pub(crate) changed_at: Nanos,
    /// The jitter of this process' clock.
    jitter: Nanos,
    token: Token,
    random: FixedState,
    /// None before the store has been opened.
    store: Option<StoreTraits>,
    partitions: Vec<PartitionState>,
    max_leases: usize,
    stage: Stage,
    end_stage: EndStage,
    in_flight: InFlight,
    /// Passes over this process' users that come before all else.
    resends: VecDeque<Resend>,
    /// Whose deadline was moved forward, as the store has reported.
    heard: Vec<Heard>,
    /// Since when what reads the heartbeats of this process stands still, if it does.
    pub(crate) stalled_since: Option<Nanos>,
    /// When the deadlines are put off next while that stall lasts.
    prolong_at: Nanos,
    /// When the member last took a step, and until when it stood still itself.
    stepped_at: Nanos,
    slept_until: Nanos,
    /// Stalls that are over, and whose users are to be written again with later deadlines.
    stalls: VecDeque<Stall>,
    /// Whether the store took or gave anything in this cycle.
    has_progressed: bool,
    /// Whether the last write left something in the outbox that can be written at once.
    has_more: bool,
    register_at: Nanos,
    scan_at: Nanos,
    write_at: Nanos,
    /// Something happens, and probably will until then.
    active_until: Nanos,
    /// The store is left alone until then.
    retry_at: Nanos,
    cycle_began_at: Nanos,
    /// How long a cycle takes in which the store is called, and how long the latest of them took.
    cycle_time: Nanos,
    latest_cycle_time: Nanos,
    has_called_store: bool,
    slow_calls: SlowCalls,
    cycles: u64,
    /// The first error of a partition in this cycle.
    partition_error: Option<StoreError>,
    /// The last error of a partition while the member stops.
    stop_error: Option<StoreError>,
    /// The calls that failed as a whole.
    failures: Failures,
    /// Whether a kind of call fails, and the application has the message. What works meanwhile does not end an outage: on a
    /// full disk every write fails, and polls work.
    is_outage: bool,
    /// Whether it was reported of this outage that the data are others, or older.
    is_loss_reported: bool,
    /// Whether a permanent error was reported of this outage.
    is_refusal_reported: bool,
    /// Until then other data belong to the same outage: another member may notice later that a partition has older ones.
    replaced_until: Nanos,
    /// Until when a stop waits for the store.
    shutdown_deadline: Option<Nanos>,
    /// What a stop reports if it cannot write everything.
    label: String,
    /// See [`Membership::name`].
    pub(crate) name: String,
}

impl AsMut<Outbox> for MemberState {
    fn as_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}

impl MemberState {
    /// Returns a member that has not started. `label` is what messages call the store; `seed` and `token` are drawn at random.
    pub(crate) fn new(label: String, token: Token, seed: u64, jitter: Nanos) -> MemberState {
        MemberState {
            outbox: Outbox::default(),
            log: Log::default(),
            phase: Phase::Inactive,
            has_seen_heartbeat: false,
            awaits_last_version: false,
            has_last_version: false,
            last_version: 0,
            timeout: SECOND,
            outages: VecDeque::new(),
            counters: Counters::default(),
            changed_at: 0,
            jitter,
            token,
            random: FixedState::with_seed(seed),
            store: None,
            partitions: Vec::new(),
            max_leases: 0,
            stage: Stage::Scan,
            end_stage: EndStage::Enqueue,
            in_flight: InFlight::Nothing,
            resends: VecDeque::new(),
            heard: Vec::new(),
            stalled_since: None,
            stepped_at: 0,
            slept_until: 0,
            prolong_at: 0,
            stalls: VecDeque::new(),
            has_progressed: false,
            has_more: false,
            register_at: 0,
            scan_at: 0,
            write_at: 0,
            active_until: 0,
            retry_at: 0,
            cycle_began_at: 0,
            cycle_time: 0,
            latest_cycle_time: 0,
            has_called_store: false,
            slow_calls: SlowCalls::default(),
            cycles: 0,
            partition_error: None,
            stop_error: None,
            failures: Failures::NONE,
            is_outage: false,
            is_loss_reported: false,
            is_refusal_reported: false,
            replaced_until: 0,
            shutdown_deadline: None,
            label,
            name: String::new(),
        }
    }

    /// Takes in what became of the last call, and returns what to do next.
    pub(crate) fn step(&mut self, now: Nanos, reply: Reply) -> Action {
        self.stepped_at = now;
        let kind = Kind::of(&reply);
        let result = self.take_in(now, reply);
        if let (Err(error), Some(kind)) = (&result, kind) {
            self.note_failure(now, None, kind, error);
        }
        self.is_outage = self.is_outage && (self.is_failing(now) || self.may_be_replaced(now));
        if !self.is_outage {
            (self.is_loss_reported, self.is_refusal_reported) = (false, false);
        }
        match self.phase {
            Phase::Inactive | Phase::Closing | Phase::Ended => Action::End,
            Phase::Running => {
                if let Err(error) = result {
                    return self.handle_failure(now, kind, &error);
                }
                if self.awaits_last_version { Action::Wait(SECOND) } else { self.run(now) }
            }
            Phase::Pausing if self.has_seen_heartbeat || self.store.is_none() => Action::End,
            Phase::Pausing | Phase::Stopping => self.end(now, result),
        }
    }

    /// Makes ready for a thread that starts anew: after a fork, or after a panic.
    pub(crate) fn restart(&mut self) {
        if let InFlight::Writes(batch, ..) = std::mem::replace(&mut self.in_flight, InFlight::Nothing) {
            self.outbox.put_back(batch);
        }
        self.store = None;
        for state in &mut self.partitions {
            *state = PartitionState {
                known: state.known,
                settled_at: state.settled_at,
                unsettled_until: state.unsettled_until,
                notices_after: state.notices_after,
                handled: state.handled.take(),
                uncertain_since: state.uncertain_since,
                held_until: state.held_until,
                failures: state.failures,
                ..PartitionState::NEW
            };
        }
        self.stage = Stage::Scan;
        self.end_stage = EndStage::Enqueue;
        self.register_at = 0;
        self.max_leases = 0;
        self.has_called_store = false;
        self.partition_error = None;
    }

    /// Takes in the application's last version, 0 if it has none or none is known.
    pub(crate) fn set_last_version(&mut self, version: u64) {
        self.awaits_last_version = false;
        self.has_last_version = true;
        self.last_version = self.last_version.max(version);
    }

    /// Whether the reactor has something to do.
    pub(crate) fn has_news(&self, now: Nanos) -> bool {
        self.awaits_last_version
            || !self.outages.is_empty()
            || (self.log.next(now) == Some(0) && !self.log.is_calling())
    }

    /// The time goes on, on any thread: notes whether the member has stood still itself.
    pub(crate) fn awake(&mut self, now: Nanos) {
        if now > self.stepped_at.saturating_add(LONGEST_GAP) {
            self.slept_until = now;
        }
    }

    /// What reads the heartbeats of this process stood still, and goes on.
    pub(crate) fn stall_ended(&mut self, stall: Stall) {
        if stall.start < self.slept_until {
            return;
        }
        for partition in &mut self.partitions {
            partition.sweep_at = partition.sweep_at.max(stall.end + SWEEP_DELAY);
        }
        self.stalls.push_back(stall);
    }

    /// Returns the next stall whose users are to be written again: one that is over, or what there is of one that lasts.
    fn next_stall(&mut self, now: Nanos) -> Option<Call> {
        if let Some(stall) = self.stalls.pop_front() {
            return Some(Call::Prolong { stall, is_lasting: false });
        }
        let is_known = |start: &Nanos| *start >= self.slept_until && now < start.saturating_add(LONGEST_STALL);
        let start = self.stalled_since.filter(is_known)?;
        if now < self.prolong_at {
            return None;
        }
        self.prolong_at = now + STALL_MARGIN / 4;
        Some(Call::Prolong { stall: Stall { start, end: now + STALL_MARGIN }, is_lasting: true })
    }

    // -- one cycle ---------------------------------------------------------------------------

    fn run(&mut self, now: Nanos) -> Action {
        if let Some(call) = self.next_stall(now) {
            return Action::Call(call);
        }
        if let Some(resend) = self.resends.pop_front() {
            return Action::Call(Call::Resend(resend));
        }
        if !self.heard.is_empty() {
            return Action::Call(Call::Hear(std::mem::take(&mut self.heard)));
        }
        if now < self.retry_at {
            return Action::Wait(self.retry_at - now);
        }
        loop {
            let stage = self.stage;
            let call = match stage {
                Stage::Scan => {
                    self.stage = Stage::Open;
                    self.cycle_began_at = now;
                    self.scan(now)
                }
                Stage::Open => {
                    self.cycles += 1;
                    self.stage = Stage::Register;
                    Some(Call::Open)
                }
                Stage::Register => {
                    self.stage = Stage::Commit;
                    (now >= self.register_at).then(|| self.asked(Call::Register(self.membership())))
                }
                Stage::Commit => {
                    self.stage = Stage::FirstPoll;
                    self.commit(now)
                }
                Stage::FirstPoll => {
                    self.stage = Stage::Write;
                    self.first_poll(now)
                }
                Stage::Write => {
                    self.stage = Stage::Poll;
                    self.write(now)
                }
                Stage::Poll => {
                    self.stage = Stage::Rest;
                    self.poll_what_is_due(now)
                }
                Stage::Rest => {
                    self.stage = Stage::Scan;
                    let wait = self.finish_cycle(now);
                    return Action::Wait(wait);
                }
            };
            if let Some(call) = call {
                return Action::Call(call);
            }
        }
    }

    fn asked(&mut self, call: Call) -> Call {
        self.has_called_store = true;
        self.counters.calls += 1;
        call
    }

    fn scan(&mut self, now: Nanos) -> Option<Call> {
        if now < self.scan_at {
            return None;
        }
        self.scan_at = now + (self.timeout / 6).clamp(milliseconds(10), seconds(5));
        let last_ok = self.partitions.iter().map(|partition| partition.settled_at).min().unwrap_or(0);
        self.slow_calls.forget(last_ok);
        self.outbox.update_first_due();
        Some(Call::Scan { last_ok, timeout: self.timeout })
    }

    fn commit(&mut self, now: Nanos) -> Option<Call> {
        let partitions = &self.partitions;
        let commits = self.log.take_commits(|partition| is_available(partitions, partition, now));
        if commits.is_empty() {
            return None;
        }
        let call = self.asked(Call::Commit(self.membership(), commits.clone()));
        self.in_flight = InFlight::Commits(commits);
        Some(call)
    }

    /// Polls once each partition that has not been polled, before anything is written there: while no user is online, a
    /// sweep after a gap postpones no deadline.
    fn first_poll(&mut self, now: Nanos) -> Option<Call> {
        if self.partitions.iter().all(|partition| partition.is_polled) {
            return None;
        }
        self.poll(now, |state, request| {
            let is_polled = state.partition(request.partition).is_none_or(|partition| partition.is_polled);
            (!is_polled).then_some(PollRequest { sweep: Some(0), ..request })
        })
    }

    fn write(&mut self, now: Nanos) -> Option<Call> {
        self.has_more = false;
        if now < self.write_at && !self.is_ending() {
            return None;
        }
        let count = self.count();
        let batch = self.outbox.take_batch(WRITE_BATCH_SIZE);
        if batch.is_empty() {
            return None;
        }
        let partitions = &self.partitions;
        let (batch, held) = batch.split(|id| is_available(partitions, id.partition(count), now));
        self.outbox.put_back(held);
        let writes = batch.writes(now, self.clock_error());
        if writes.is_empty() {
            return None;
        }
        let call = self.asked(Call::Write(self.membership(), writes.clone()));
        self.in_flight = InFlight::Writes(batch, writes, now);
        Some(call)
    }

    fn poll_what_is_due(&mut self, now: Nanos) -> Option<Call> {
        self.log.take_reports().into_iter().for_each(|partition| self.report_handled(partition));
        let leeway = self.poll_interval(now) / 2;
        let soon = now + leeway;
        let mut free = self.max_leases.saturating_sub(self.log.leases());
        let fetches = (0..)
            .zip(&self.partitions)
            .filter(|(partition, state)| self.log.is_leased(*partition) && state.fetch_at <= soon)
            .count();
        let mut budget = FetchBudget::new(self.log.free_slots(), free + fetches);
        self.poll(now, |state, request| state.plan((now, leeway), request, &mut free, &mut budget))
    }

    /// What is due in a partition. Where anything is due, so is what will be within a `leeway`: one poll is for all of it.
    fn plan(
        &self,
        (now, leeway): (Nanos, Nanos),
        request: PollRequest,
        free: &mut usize,
        budget: &mut FetchBudget,
    ) -> Option<PollRequest> {
        let partition = self.partition(request.partition)?;
        let is_leased = self.log.is_leased(request.partition);
        let may_fetch = is_leased && !self.log.has_orphan(request.partition);
        let fetch_at = if may_fetch { partition.fetch_at } else { Nanos::MAX };
        let has_news = partition.is_releasing || request.handled.is_some();
        if now < partition.lease_at.min(partition.sweep_at).min(fetch_at) && !has_news {
            return None;
        }
        let may_acquire = partition.is_free && partition.acquire_at(now, self.lease_length()) <= now;
        let now = now + leeway;
        let lease = if partition.is_releasing {
            if self.log.is_settled(request.partition) { LeaseRequest::Release } else { LeaseRequest::Renew }
        } else if is_leased {
            if partition.lease_at <= now { LeaseRequest::Renew } else { LeaseRequest::None }
        } else if may_acquire && partition.lease_at <= now && (*free > 0 || self.is_orphan(partition, now)) {
            *free = free.saturating_sub(1);
            LeaseRequest::Acquire
        } else {
            LeaseRequest::None
        };
        let sweep = (partition.sweep_at <= now).then_some(SWEEP_BATCH_SIZE);
        let is_to_fetch = (may_fetch && partition.fetch_at <= now && !partition.is_releasing)
            || (lease == LeaseRequest::Acquire && !self.log.has_orphan(request.partition));
        let events = Some((self.log.last_fetched(request.partition), if is_to_fetch { budget.take() } else { 0 }));
        let events = events.filter(|(_, limit)| *limit > 0);
        let is_due =
            has_news || partition.lease_at <= now || lease != LeaseRequest::None || sweep.is_some() || events.is_some();
        is_due.then_some(PollRequest { lease, sweep, events, ..request })
    }

    /// Returns whether no member has held the lease for half a lease length. Then any member takes it, whatever its share: a
    /// member that died may still be registered, and counts.
    fn is_orphan(&self, partition: &PartitionState, now: Nanos) -> bool {
        partition.free_since.is_some_and(|since| now.saturating_sub(since) >= self.lease_length() / 2)
    }

    /// A poll of those partitions for which there is a plan.
    fn poll(&mut self, now: Nanos, mut plan: impl FnMut(&Self, PollRequest) -> Option<PollRequest>) -> Option<Call> {
        let count = self.count();
        // Another partition is first in each cycle, so that a scarce budget goes round.
        let first = (self.cycles % u64::from(count.max(1))) as Partition;
        // What was written last may be lost: heartbeats, and commits.
        let away = (0..).zip(&self.partitions).filter(|(_, partition)| partition.was_away).map(|(number, _)| number);
        away.collect::<Vec<_>>().into_iter().for_each(|partition| self.report_handled(partition));
        let requests: Vec<PollRequest> = (0..count)
            .map(|number| (number + first) % count)
            .filter(|partition| is_available(&self.partitions, *partition, now))
            .filter_map(|partition| plan(self, self.empty_request(partition)))
            .collect();
        if requests.is_empty() {
            return None;
        }
        let call = self.asked(Call::Poll(self.membership(), requests.clone()));
        self.in_flight = InFlight::Polls(requests, now);
        Some(call)
    }

    /// A request for what every poll asks for.
    fn empty_request(&self, partition: Partition) -> PollRequest {
        let state = self.partition(partition);
        PollRequest {
            partition,
            lease: LeaseRequest::None,
            sweep: None,
            events: None,
            notices_after: state.and_then(|state| state.notices_after),
            handled: state.and_then(|state| state.handled.clone()),
        }
    }

    /// Returns how long to wait.
    fn finish_cycle(&mut self, now: Nanos) -> Nanos {
        self.record_cycle_time(now.saturating_sub(self.cycle_began_at));
        if self.partition_error.take().is_some() {
            self.counters.store_errors += 1;
        }
        let partitions = &self.partitions;
        let has_commits = self.log.has_commits(|partition| is_available(partitions, partition, now));
        let wait = if self.has_more || has_commits { 0 } else { self.next_wait(now) };
        // Whatever the store replies, a member does not ask again at once.
        let rest = MIN_CYCLE.saturating_sub(now.saturating_sub(self.cycle_began_at));
        wait.max(if std::mem::take(&mut self.has_progressed) { rest } else { MIN_IDLE_WAIT })
    }

    /// How long until something is due.
    fn next_wait(&self, now: Nanos) -> Nanos {
        let mut wait = self.poll_interval(now).min(self.scan_at.saturating_sub(now));
        if !self.outbox.is_empty() {
            wait = wait.min(self.write_at.saturating_sub(now));
        }
        let has_budget = self.log.free_slots() > 0;
        for (number, partition) in (0..).zip(&self.partitions) {
            let mut at = partition.lease_at.min(partition.sweep_at);
            let may_fetch = self.log.is_leased(number) && !self.log.has_orphan(number);
            if has_budget && !partition.is_releasing && may_fetch {
                at = at.min(partition.fetch_at);
            }
            wait = wait.min(at.max(partition.retry_at).saturating_sub(now));
        }
        match self.log.next(now) {
            Some(next) if next > 0 => wait.min(next),
            _ => wait,
        }
    }

    // -- replies ------------------------------------------------------------------------------

    fn take_in(&mut self, now: Nanos, reply: Reply) -> Result<(), StoreError> {
        match reply {
            Reply::None | Reply::Done => Ok(()),
            Reply::Opened(result) => result.map(|(store, was_away)| self.opened(now, store, was_away)),
            Reply::Registered(result) => self.registered(now, result),
            Reply::Deregistered(result) => result.map(|()| self.failures.succeeded(Kind::Register)),
            Reply::Committed(result) => self.committed(now, result),
            Reply::Written(result) => self.written(now, result),
            Reply::Polled(result) => self.polled(now, result),
        }
    }

    fn opened(&mut self, now: Nanos, store: StoreTraits, was_away: bool) {
        // After a fork the store is opened anew. Its connection was lost too if something failed before.
        let is_new = self.store.is_none();
        let was_away = was_away || (is_new && self.failures.is_any());
        self.store = Some(store);
        self.failures.succeeded(Kind::Open);
        self.partitions.resize(usize::from(store.partitions), PartitionState::NEW);
        if was_away {
            // What was written last may be lost: heartbeats, and commits.
            self.resend(None, false);
            (0..store.partitions).for_each(|partition| self.leave_lease(now, partition));
            self.poll_anew();
        }
        if was_away || is_new {
            (0..store.partitions).for_each(|partition| self.report_handled(partition));
        }
    }

    /// Has the next poll say what was delivered of a partition: the store may have events again that it had not.
    fn report_handled(&mut self, partition: Partition) {
        let handled = self.log.handled(partition);
        if let Some(state) = self.partition_mut(partition) {
            state.handled = handled;
        }
    }

    /// Leaves the lease of a partition, for one lease length, to the member that holds it: the data perhaps went back, and
    /// then they name a holder of before, or none.
    fn leave_lease(&mut self, now: Nanos, partition: Partition) {
        let (held_until, lease_length) = (self.log.leased_until(partition), self.lease_length());
        if let Some(state) = self.partition_mut(partition) {
            let before = state.uncertain_since.filter(|(_, last)| now < last + lease_length);
            let first = before.map_or(now, |(first, _)| first);
            state.uncertain_since = Some((first, now));
            state.held_until = state.held_until.max(held_until);
        }
    }

    /// Whether a lease that this member leaves to another one from `now` on, or within a second, would not be left for as long as
    /// it lasts: the connection was lost again and again before.
    #[cfg(test)]
    pub(crate) fn has_waited_enough(&self, now: Nanos) -> bool {
        let lease_length = self.lease_length();
        let is_over = |(first, last): (Nanos, Nanos)| {
            now < last + lease_length && first + MAX_WAITS * lease_length < now + SECOND + lease_length
        };
        self.partitions.iter().any(|partition| partition.uncertain_since.is_some_and(is_over))
    }

    /// Takes in how many leases this member may hold, and marks those for release that are too many.
    fn registered(&mut self, now: Nanos, result: Result<Partition, StoreError>) -> Result<(), StoreError> {
        match result {
            Ok(share) => {
                self.failures.succeeded(Kind::Register);
                self.max_leases = usize::from(share);
            }
            // Where the members are counted may be away by itself. Every partition needs a lease holder then too.
            Err(error) if self.count() > 1 => {
                self.note_failure(now, None, Kind::Register, &error);
                self.partition_error.get_or_insert(error);
                if self.max_leases == 0 {
                    self.max_leases = self.partitions.len();
                }
            }
            Err(error) => return Err(error),
        }
        self.register_at = now + self.jittered(now, self.lease_length() / 3);
        let mut surplus = self.log.leases().saturating_sub(self.max_leases);
        for (number, partition) in (0..).zip(&mut self.partitions) {
            partition.is_releasing = surplus > 0 && self.log.is_leased(number) && partition.keep_until <= now;
            if partition.is_releasing {
                surplus -= 1;
            }
            // Nothing more is delivered of what is about to be released. What was fetched stays: the release may be called off.
            self.log.set_releasing(number, partition.is_releasing);
        }
        Ok(())
    }

    fn committed(
        &mut self,
        now: Nanos,
        result: Result<Vec<Result<bool, StoreError>>, StoreError>,
    ) -> Result<(), StoreError> {
        let InFlight::Commits(commits) = std::mem::replace(&mut self.in_flight, InFlight::Nothing) else {
            return Ok(());
        };
        let answers = match result {
            Ok(answers) => answers,
            Err(error) => {
                commits.into_iter().for_each(|(partition, commit)| self.log.not_committed(partition, commit));
                return Err(error);
            }
        };
        self.failures.succeeded(Kind::Commit);
        self.changed(now);
        let mut answers = answers.into_iter();
        for (partition, commit) in commits {
            match next_answer(&mut answers) {
                Ok(is_held) => {
                    self.has_progressed = true;
                    self.succeeded(partition, Kind::Commit);
                    self.log.committed(&commit);
                    if !is_held {
                        self.log.forget_partition(partition);
                    }
                }
                Err(error) => {
                    self.log.not_committed(partition, commit);
                    self.partition_failed(now, partition, Kind::Commit, error);
                }
            }
        }
        Ok(())
    }

    fn written(&mut self, now: Nanos, result: Result<Vec<WriteResult>, StoreError>) -> Result<(), StoreError> {
        let InFlight::Writes(batch, writes, asked_at) = std::mem::replace(&mut self.in_flight, InFlight::Nothing)
        else {
            return Ok(());
        };
        let timeouts = writes.iter().filter_map(|write| match write {
            Write::Heartbeat(heartbeat) => Some(heartbeat.timeout),
            Write::Leave(_) => None,
        });
        // Also if the call failed: it may have arrived.
        if let Some(timeout) = timeouts.max() {
            self.slow_calls.add(now.saturating_sub(asked_at), now.saturating_add(timeout));
        }
        let results = match result {
            Ok(results) => results,
            Err(error) => {
                self.outbox.put_back(batch);
                return Err(error);
            }
        };
        self.failures.succeeded(Kind::Write);
        let count = self.count();
        for write in &writes {
            // A user may be due now.
            if let Write::Leave(leave) = write
                && let Some(partition) = self.partition_mut(leave.id.partition(count))
            {
                partition.sweep_at = 0;
            }
        }
        self.active_until = now + ACTIVE_WINDOW;
        let mut failed = Vec::new();
        for (number, result) in results {
            match result {
                Ok(written) => {
                    self.has_progressed = true;
                    self.succeeded(number, Kind::Write);
                    if let Some(partition) = self.partition_mut(number) {
                        partition.known = written.known;
                        if written.appended > 0 {
                            partition.fetch_at = 0;
                        }
                    }
                }
                Err(error) => failed.push((number, error)),
            }
        }
        let (_, unwritten) = batch.split(|id| failed.iter().all(|(partition, _)| *partition != id.partition(count)));
        self.outbox.put_back(unwritten);
        failed.into_iter().for_each(|(partition, error)| self.partition_failed(now, partition, Kind::Write, error));
        self.changed(now);
        if self.outbox.is_empty() {
            // Others may be about to send a heartbeat too.
            self.write_at = now + MIN_WRITE_INTERVAL;
        }
        self.has_more = !self.outbox.is_empty();
        Ok(())
    }

    fn polled(
        &mut self,
        now: Nanos,
        result: Result<Vec<Result<PollResult, StoreError>>, StoreError>,
    ) -> Result<(), StoreError> {
        let InFlight::Polls(requests, asked_at) = std::mem::replace(&mut self.in_flight, InFlight::Nothing) else {
            return Ok(());
        };
        let answers = result?;
        self.failures.succeeded(Kind::Poll);
        let mut failed = Vec::new();
        let mut answers = answers.into_iter();
        for request in requests {
            match next_answer(&mut answers) {
                Ok(result) => {
                    self.succeeded(request.partition, Kind::Poll);
                    if is_sweep(&request) {
                        self.succeeded(request.partition, Kind::Sweep);
                    }
                    if self.partition_mut(request.partition).is_some_and(|state| std::mem::take(&mut state.was_away)) {
                        self.resend(Some(request.partition), false);
                    }
                    self.apply_poll(request, result, asked_at, now);
                }
                Err(error) => {
                    let kind = if is_sweep(&request) { Kind::Sweep } else { Kind::Poll };
                    failed.push((request.partition, kind, error));
                }
            }
        }
        // Last: a partition with other data has all of them polled anew, also those of this reply.
        failed.into_iter().for_each(|(partition, kind, error)| self.partition_failed(now, partition, kind, error));
        Ok(())
    }

    fn apply_poll(&mut self, request: PollRequest, result: PollResult, asked_at: Nanos, now: Nanos) {
        let length = self.lease_length();
        let lease_poll_interval = self.store.map_or(SECOND, |store| store.lease_poll_interval);
        let (renewal, next_ask) = (self.jittered(now, length / 3), self.jittered(now, lease_poll_interval));
        if !result.events.is_empty() || result.sweep.is_some_and(|sweep| sweep.expired > 0) {
            self.active_until = now + ACTIVE_WINDOW;
        }
        let (poll_interval, max_leases, timeout) = (self.poll_interval(now), self.max_leases, self.timeout);
        let clock_error = self.clock_error();
        let log = &mut self.log;
        let Some(partition) = self.partitions.get_mut(usize::from(request.partition)) else {
            return violated("a request is about a partition that the store has");
        };
        self.has_progressed |= !result.events.is_empty() || result.sweep.is_some_and(|sweep| sweep.expired > 0);
        // Before the first who has not gone.
        let unsettled = result.oldest.map_or(0, |oldest| oldest + OVERDUE);
        // A deadline is later in the store than here: by what was added to the timeout, by as much as the clock was late when the
        // age was measured, by as long as the call took, and by as much as a heartbeat is dated forward: that of a return, or one
        // that is written again in place of another process' that came at nearly the same moment.
        let later = 2 * clock_error + self.slow_calls.longest() + UNCERTAIN_ORDER;
        let settled_at = asked_at.saturating_sub(unsettled).saturating_sub(later);
        // After a loss the store does not know yet whom this process writes again.
        let unwritten = self.outbox.first_due().map_or(Nanos::MAX, |due| due.saturating_sub(TICK));
        if partition.known.epoch == 0 {
            // A member that has not polled within a lease length is away, and cannot write either.
            partition.unsettled_until = asked_at.saturating_add(length);
        }
        let is_unsettled = !self.resends.is_empty() || asked_at < partition.unsettled_until;
        let pending = if is_unsettled { partition.settled_at } else { Nanos::MAX };
        partition.settled_at = settled_at.min(unwritten).min(pending);
        // The first poll has asked for no notices. Those matter that came since the first heartbeat which waits: their numbers are
        // microseconds of the wall clock, or greater.
        let waits_for = self.outbox.lag(now).saturating_add(SECOND) / 1_000;
        partition.notices_after = Some(match request.notices_after {
            Some(_) => result.notices_until,
            None => result.known.last.saturating_sub(waits_for),
        });
        // The poll may have arrived as late as it was answered: times count from the question, and users are due that much later.
        if let Some(due) = result.notices.iter().filter(|notice| notice.left.is_some()).map(|notice| notice.due).max() {
            self.slow_calls.add(now.saturating_sub(asked_at), now.saturating_add(due));
        }
        self.heard.extend(result.notices.into_iter().map(|notice| Heard {
            id: notice.id,
            due_at: asked_at.saturating_add(notice.due),
            left: notice.left.map(|(age, after)| (asked_at.saturating_sub(age), after)),
        }));
        log.polled(request.partition, result.known.epoch, result.delivered_through);
        partition.handled = None;
        partition.known = result.known;
        partition.is_polled = true;
        partition.is_free = result.lease != LeaseState::HeldByOther;
        let was_leased = log.is_leased(request.partition);
        match (result.lease, request.lease) {
            (_, LeaseRequest::Release) => {
                log.forget_partition(request.partition);
                partition.is_releasing = false;
                // Other members come first.
                partition.lease_at = now + 4 * next_ask;
            }
            (LeaseState::Renewed | LeaseState::Acquired, LeaseRequest::Renew | LeaseRequest::Acquire) => {
                if log.leases() >= max_leases && !was_leased {
                    partition.keep_until = now + KEPT_LEASES * length;
                }
                // The length counts from the request, less an eighth: the lease ends here sooner than in the store.
                log.set_lease(request.partition, asked_at + length - length / 8);
                partition.lease_at = asked_at + renewal;
                partition.free_since = None;
            }
            // It is held, and is renewed in time.
            (LeaseState::Renewed | LeaseState::Acquired, _) if was_leased => {}
            // Whatever this member believed: the lease is not its own, or it does not know what belongs to it.
            (lease, _) => {
                if was_leased {
                    log.forget_partition(request.partition);
                    partition.is_releasing = false;
                }
                partition.free_since = (lease == LeaseState::Free).then(|| partition.free_since.unwrap_or(asked_at));
                let is_to_be_had = lease != LeaseState::HeldByOther && log.leases() < max_leases;
                // An orphaned lease is acquired in time, however often the partition is polled for something else.
                let orphaned_at = partition.free_since.map_or(Nanos::MAX, |since| since + length / 2);
                let acquire_at = if is_to_be_had { now } else { orphaned_at }.max(partition.acquire_at(now, length));
                partition.lease_at = acquire_at.clamp(now, now + next_ask);
            }
        }
        let is_leased = log.is_leased(request.partition);
        if let Some((_, limit)) = request.events.filter(|_| is_leased) {
            partition.fetch_at = if result.events.len() < limit { now + poll_interval } else { now };
            log.add_fetched(request.partition, result.events, now);
        } else if is_leased && !was_leased {
            partition.fetch_at = now;
        }
        if let Some(sweep) = result.sweep {
            if sweep.expired > 0 {
                self.changed_at = self.changed_at.max(now);
                self.counters.sweep_lag = sweep.lag;
                partition.fetch_at = now;
            }
            // A member without the lease sweeps too, but seldom: in case the lease holder is gone.
            let often = if is_leased { poll_interval } else { (timeout / 4).max(poll_interval) };
            // A millisecond more, so that the next user is due by any clock.
            let wait = sweep.next.map_or(often, |next| next.saturating_add(milliseconds(1)).min(often));
            partition.sweep_at = if request.sweep == Some(sweep.expired) { now } else { now + wait };
        }
    }

    // -- failures -----------------------------------------------------------------------------

    /// The whole store has failed: waits before the next attempt.
    fn handle_failure(&mut self, now: Nanos, kind: Option<Kind>, error: &StoreError) -> Action {
        self.partition_error = None;
        self.counters.store_errors += 1;
        self.stage = Stage::Scan;
        if let StoreError::Replaced(_) = error {
            self.replaced(now);
            return Action::Wait(0);
        }
        // At most a third of a lease, so that a store that fails intermittently lets no lease expire.
        let max_delay = MAX_RETRY_DELAY.min(self.lease_length() / 3);
        let failures = kind.map_or(1, |kind| self.failures.count(kind));
        self.retry_at = now + backoff(MIN_RETRY_DELAY, max_delay, failures);
        Action::Call(Call::Recover)
    }

    /// Notes that a call failed, in one partition or as a whole. Reports it if nothing else fails, if it is the first permanent
    /// error of the outage, or if it is the first one that says that the data are others. The outage is over when each kind
    /// of call has succeeded that failed, and no other data can turn up that belong to it.
    fn note_failure(&mut self, now: Nanos, partition: Option<Partition>, kind: Kind, error: &StoreError) {
        if self.phase == Phase::Pausing {
            // What fails before a fork mends itself: an event is delivered twice, a lease runs out.
            return;
        }
        let is_loss = matches!(error, StoreError::Replaced(_));
        if is_loss {
            self.replaced_until = now + self.lease_length();
        }
        // Whichever call replied that the data is another: the polls that come first now show that it is there.
        let kind = if is_loss { Kind::Poll } else { kind };
        let state = partition.and_then(|partition| self.partitions.get_mut(usize::from(partition)));
        state.map_or(&mut self.failures, |state| &mut state.failures).failed(kind, now);
        let was_outage = std::mem::replace(&mut self.is_outage, true);
        // A store that restarts with older data, or that refuses its user then, is away first: an operator who reads only
        // that would not know what to mend.
        let is_news = match error {
            StoreError::Replaced(_) => !std::mem::replace(&mut self.is_loss_reported, true),
            StoreError::Misconfigured(_) => !std::mem::replace(&mut self.is_refusal_reported, true),
            StoreError::Unavailable(_) | StoreError::Missing(_) => false,
        };
        if !was_outage || is_news {
            self.outages.push_back(error.to_string());
        }
    }

    /// A call succeeded in a partition.
    fn succeeded(&mut self, partition: Partition, kind: Kind) {
        if let Some(state) = self.partition_mut(partition) {
            state.failures.succeeded(kind);
        }
    }

    /// Whether calls fail, and none of their kind has succeeded since.
    pub(crate) fn is_failing(&self, now: Nanos) -> bool {
        !self.failures.are_over(now) || self.partitions.iter().any(|partition| !partition.failures.are_over(now))
    }

    /// Whether further partitions may turn out to have other data, of the same outage: some are not polled again, or other
    /// members are about to notice that theirs are older.
    fn may_be_replaced(&self, now: Nanos) -> bool {
        now < self.replaced_until || self.partitions.iter().any(|partition| !partition.is_polled)
    }

    /// A partition has failed by itself.
    fn partition_failed(&mut self, now: Nanos, partition: Partition, kind: Kind, error: StoreError) {
        self.note_failure(now, Some(partition), kind, &error);
        if let StoreError::Replaced(_) = error {
            self.partition_replaced(now, partition);
        } else {
            if matches!(kind, Kind::Poll | Kind::Sweep) {
                self.leave_lease(now, partition);
            }
            if let Some(state) = self.partition_mut(partition) {
                state.retry_at = now + PARTITION_RETRY_DELAY;
                state.was_away = true;
            }
        }
        self.partition_error.get_or_insert(error);
    }

    /// A partition has lost its data, or has older ones. The member writes its users again, and those whose
    /// `offline` is not delivered.
    fn partition_replaced(&mut self, now: Nanos, partition: Partition) {
        self.poll_anew();
        for (id, seen) in self.log.undelivered_offline(partition, now) {
            // The last heartbeat. Its timeout is over, whatever it was. With a later deadline than the process that got the
            // heartbeat knows, the user would seem settled there.
            self.outbox.heartbeat(id, seen, 1, Purpose::Resend);
        }
        let count = self.count();
        self.outbox.mark_resend(|id| id.partition(count) == partition);
        self.leave_lease(now, partition);
        self.report_handled(partition);
        self.log.forget_partition(partition);
        self.resend(Some(partition), true);
        if let Some(state) = self.partition_mut(partition) {
            // The data may be lost again before the next call: no version is lower than what this member knew.
            let known = Known { last: state.known.last, ..PartitionState::NEW.known };
            *state = PartitionState {
                known,
                settled_at: state.settled_at,
                notices_after: state.notices_after,
                handled: state.handled.take(),
                uncertain_since: state.uncertain_since,
                held_until: state.held_until,
                failures: state.failures,
                ..PartitionState::NEW
            };
        }
    }

    /// Has all partitions polled at once: one message is for all whose data are others.
    fn poll_anew(&mut self) {
        self.partitions.iter_mut().for_each(|partition| partition.is_polled = false);
    }

    /// Has everyone written again who was online when their partition last answered: of one partition, or of all.
    fn resend(&mut self, partition: Option<Partition>, is_lost: bool) {
        let settled_at = (0..)
            .zip(&self.partitions)
            .map(|(number, state)| partition.is_none_or(|partition| partition == number).then_some(state.settled_at));
        let settled_at = settled_at.collect();
        self.resends.push_back(Resend { settled_at, is_lost });
    }

    /// The whole store has lost its data, or has older ones.
    fn replaced(&mut self, now: Nanos) {
        (0..self.count()).for_each(|partition| self.partition_replaced(now, partition));
    }

    // -- the end ------------------------------------------------------------------------------

    fn is_ending(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Writes everything, and releases the leases. Before a fork of a member that has never sent a heartbeat, it only
    /// commits and releases, and does not try twice.
    fn end(&mut self, now: Nanos, result: Result<(), StoreError>) -> Action {
        let is_stopping = self.phase == Phase::Stopping;
        if self.awaits_last_version {
            let deadline = *self.shutdown_deadline.get_or_insert(now.saturating_add(SHUTDOWN_TIMEOUT));
            if !self.has_seen_heartbeat {
                return self.ended(is_stopping);
            }
            if now < deadline {
                return Action::Wait(SHUTDOWN_POLL_INTERVAL);
            }
            // The application does not answer: what is unwritten counts more than its versions.
            self.awaits_last_version = false;
        }
        if let Err(error) = result {
            if !is_stopping {
                self.counters.store_errors += 1;
                return self.ended(is_stopping);
            }
            self.end_stage = EndStage::Enqueue;
            if now < self.shutdown_deadline.unwrap_or(Nanos::MAX) {
                self.partition_error = None;
                self.counters.store_errors += 1;
                if let StoreError::Replaced(_) = error {
                    self.replaced(now);
                }
                self.retry_at = now + SHUTDOWN_RETRY_DELAY;
                return Action::Call(Call::Recover);
            }
            let unwritten = self.outbox.len();
            self.outages.push_back(format!("{error}{}", unwritten_users(unwritten)));
            return self.ended(is_stopping);
        }
        if now < self.retry_at {
            return Action::Wait(self.retry_at - now);
        }
        loop {
            let call = match self.end_stage {
                EndStage::Enqueue if is_stopping => {
                    self.shutdown_deadline.get_or_insert(now.saturating_add(SHUTDOWN_TIMEOUT));
                    self.end_stage = EndStage::Open;
                    Some(Call::EnqueueUnwritten)
                }
                EndStage::Enqueue => {
                    self.end_stage = EndStage::Commit;
                    None
                }
                EndStage::Open => {
                    self.cycle_began_at = now;
                    self.end_stage = EndStage::Write;
                    Some(Call::Open)
                }
                EndStage::Write => match self.resends.pop_front() {
                    Some(resend) => Some(Call::Resend(resend)),
                    None => {
                        let call = self.write(now);
                        if call.is_none() {
                            self.end_stage = EndStage::Commit;
                        }
                        call
                    }
                },
                EndStage::Commit => {
                    self.end_stage = EndStage::Release;
                    self.commit(now)
                }
                EndStage::Release if is_stopping && self.log.is_busy() => {
                    self.end_stage = EndStage::Done;
                    self.poll(now, |state, request| {
                        let is_due =
                            state.partition(request.partition).is_some_and(|partition| partition.lease_at <= now);
                        let is_leased = state.log.is_leased(request.partition);
                        (is_due && is_leased).then_some(PollRequest { lease: LeaseRequest::Renew, ..request })
                    })
                }
                EndStage::Release => {
                    self.end_stage = EndStage::Deregister;
                    self.poll(now, |_, request| Some(PollRequest { lease: LeaseRequest::Release, ..request }))
                }
                EndStage::Deregister => {
                    self.end_stage = EndStage::Done;
                    Some(self.asked(Call::Deregister(self.membership())))
                }
                EndStage::Done => return self.finish_end(now, is_stopping),
            };
            if let Some(call) = call {
                return Action::Call(call);
            }
        }
    }

    fn finish_end(&mut self, now: Nanos, is_stopping: bool) -> Action {
        if !is_stopping {
            return self.ended(is_stopping);
        }
        self.end_stage = EndStage::Enqueue;
        let is_over = now >= self.shutdown_deadline.unwrap_or(0);
        let unwritten = self.outbox.len();
        if let Some(error) = self.partition_error.take() {
            self.counters.store_errors += 1;
            if is_over {
                self.outages.push_back(format!("{error}{}", unwritten_users(unwritten)));
                return self.ended(is_stopping);
            }
            self.stop_error = Some(error);
            self.retry_at = now + SHUTDOWN_RETRY_DELAY;
            return Action::Wait(SHUTDOWN_RETRY_DELAY);
        }
        if unwritten > 0 && !is_over {
            // A partition that has failed is tried again.
            return Action::Wait(SHUTDOWN_RETRY_DELAY);
        }
        if self.log.is_busy() {
            // A callback that runs is committed first: otherwise another member would deliver its event again.
            return Action::Wait(SHUTDOWN_POLL_INTERVAL);
        }
        if unwritten > 0 {
            // The partition is not tried again in the last round.
            let cause = self.stop_error.take().map_or_else(|| self.label.clone(), |error| error.to_string());
            self.outages.push_back(format!("{cause}{}", unwritten_users(unwritten)));
        }
        self.ended(is_stopping)
    }

    fn ended(&mut self, is_stopping: bool) -> Action {
        for (partition, _) in (0..).zip(&self.partitions) {
            self.log.forget_partition(partition);
        }
        self.store = None;
        if is_stopping {
            self.phase = Phase::Closing;
        }
        Action::End
    }

    // -- what the duties share ----------------------------------------------------------------

    fn count(&self) -> Partition {
        self.store.map_or(0, |store| store.partitions)
    }

    fn partition(&self, number: Partition) -> Option<&PartitionState> {
        self.partitions.get(usize::from(number))
    }

    fn partition_mut(&mut self, number: Partition) -> Option<&mut PartitionState> {
        self.partitions.get_mut(usize::from(number))
    }

    /// A snapshot from before `now` is not the newest any more.
    pub(crate) fn changed(&mut self, now: Nanos) {
        self.changed_at = self.changed_at.max(now);
    }

    #[cfg(test)]
    pub(crate) fn known(&self, partition: Partition) -> Known {
        self.partition(partition).map_or(PartitionState::NEW.known, |state| state.known)
    }

    #[cfg(test)]
    pub(crate) fn token(&self) -> Token {
        self.token
    }

    fn membership(&self) -> Membership {
        Membership {
            token: self.token,
            name: self.name.clone(),
            lease: self.lease_length(),
            timeout: self.timeout,
            known: self.partitions.iter().map(|partition| self.known_above_last_version(partition)).collect(),
        }
    }

    /// What the member knows of a partition; as a newcomer that knows of the application's last version, if the data have
    /// given out no number as high. They do not from then on.
    fn known_above_last_version(&self, partition: &PartitionState) -> Known {
        let is_lower = partition.known.last < self.last_version;
        if is_lower { Known { last: self.last_version, ..PartitionState::NEW.known } } else { partition.known }
    }

    fn poll_interval(&self, now: Nanos) -> Nanos {
        self.store.map_or(
            SECOND,
            |store| {
                if now < self.active_until { store.poll_interval } else { store.idle_poll_interval }
            },
        )
    }

    /// By how much this process' times may be off, in nanoseconds: the clock's jitter, and a tick, in which they are kept.
    fn clock_error(&self) -> Nanos {
        self.jitter + TICK
    }

    /// Long enough for a busy machine or a slow store, short enough for events that wait for another lease holder.
    pub(crate) fn lease_length(&self) -> Nanos {
        let length = (self.timeout / 2).clamp(SECOND, seconds(5));
        length.max((self.cycle_time * CYCLES_PER_LEASE).min(MAX_LEASE))
    }

    /// Records the length of a cycle, in nanoseconds. A slow store lengthens every cycle that calls it. If only one is long, the
    /// process stood still meanwhile: longer leases would not help then, and another member would wait longer for one.
    fn record_cycle_time(&mut self, length: Nanos) {
        if std::mem::take(&mut self.has_called_store) {
            self.cycle_time = length.min(self.latest_cycle_time).max(self.cycle_time - self.cycle_time / 8);
            self.latest_cycle_time = length;
        }
    }

    /// Returns the length, less or more by up to a quarter at random, so that members do not all call at the same moment.
    fn jittered(&self, now: Nanos, length: Nanos) -> Nanos {
        let random = self.random.hash_one((self.cycles, length, now));
        length - length / 4 + random % (length / 2).max(1)
    }
}

/// Returns the answer to the next request. Without one the request counts as failed, so that nothing of it is lost.
fn next_answer<T>(answers: &mut impl Iterator<Item = Result<T, StoreError>>) -> Result<T, StoreError> {
    answers.next().unwrap_or_else(|| {
        violated("a store answers each request");
        Err(StoreError::Unavailable("the store has not answered a request".into()))
    })
}

fn is_available(partitions: &[PartitionState], partition: Partition, now: Nanos) -> bool {
    partitions.get(usize::from(partition)).is_none_or(|state| state.retry_at <= now)
}

fn unwritten_users(count: usize) -> String {
    let users = if count == 1 { "user" } else { "users" };
    format!("; {count} {users} had heartbeats or leaves that could not be written before the end")
}

/// How many events may be fetched, shared out among partitions.
struct FetchBudget {
    left: usize,
    each: usize,
}

impl FetchBudget {
    fn new(left: usize, partitions: usize) -> FetchBudget {
        FetchBudget { left, each: left.div_ceil(partitions.max(1)) }
    }

    fn take(&mut self) -> usize {
        let taken = self.left.min(self.each);
        self.left -= taken;
        taken
    }
}

/// Whether a poll may set users offline. One with a sweep of nobody does not.
pub(crate) fn is_sweep(request: &PollRequest) -> bool {
    request.sweep.is_some_and(|limit| limit > 0)
}

#[cfg(test)]
mod tests;
