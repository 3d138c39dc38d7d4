//! A store in memory, in the plainest code there is: the specification of what every store does. The simulator runs members
//! against it, and the real stores are compared with it, call by call.
//!
//! Times are nanoseconds of the server's clock. Each partition's clock never goes back.
//!
//! Over 400 lines: it is one specification, and a store is compared with it as a whole.

use std::collections::BTreeMap;

use online_manager_tracker::{Nanos, Reason, Transition};

use crate::error::StoreError;
use crate::id::UserId;
use crate::store::{
    Commit, DeadLetter, Event, Heartbeat, Known, LeaseRequest, LeaseState, Leave, Membership, Notice, ORDER_TOLERANCE,
    OVERDUE, Partition, PollRequest, PollResult, Purpose, Sweep, Token, Write, Written, online_margin,
};

const SECOND: Nanos = 1_000_000_000;

/// For how long after the data went back no event is handed out: nearly every member polls within that time, and says what it
/// has delivered. A slower one that held the lease finds it free: the others leave it alone for one lease length.
const SETTLING: Nanos = SECOND;

/// One rule each that a store must follow. The simulator has to find a store that breaks any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A heartbeat that is older than the last one known changes the deadline.
    LateHeartbeat,
    /// A leave of a user whom the store does not know is dropped.
    LeaveOfUnknown,
    /// A heartbeat of the moment of a leave undoes the leave.
    EqualTimes,
    /// A leave that is older than the last heartbeat counts.
    LateLeave,
    /// A leave that seems a little older than the last heartbeat does not count.
    NoTolerance,
    /// Of several leaves the last deadline counts, not the soonest.
    LastLeave,
    /// A user who went offline is forgotten after the config's timeout, not after the longest in use.
    ForgetByConfig,
    /// The members do not hear of each other's leaves.
    NoLeaves,
    /// The members do not hear of a heartbeat with a much shorter timeout.
    NoNoticeOfShorter,
    /// Older data are not noticed.
    OlderData,
    /// Lost data are not noticed.
    LostData,
    /// The age of the oldest undelivered event is not reported.
    NoOldest,
    /// Nobody's deadline is held after an outage.
    NoHold,
    /// A commit counts although another member has the lease.
    Unfenced,
    /// A lease can be acquired while another member holds it.
    SharedLease,
    /// A lease that ran out stays with its last holder.
    LeaseForEver,
    /// A renewal extends nothing.
    NoRenewal,
    /// Versions go by the wall clock alone.
    WallVersions,
    /// The sweep sets a user offline without an event.
    NoEvent,
    /// A heartbeat that is written again, and is no longer good, makes no event.
    NoResend,
    /// A heartbeat that is no longer good brings its user online.
    OnlineByLate,
    /// A heartbeat that only puts a deadline off brings its user online.
    OnlineByProlong,
    /// Who has left is held for as long as who is silent.
    HeldLeaves,
}

impl Broken {
    pub(crate) const ALL: [Broken; 23] = [
        Broken::LateHeartbeat,
        Broken::LeaveOfUnknown,
        Broken::EqualTimes,
        Broken::LateLeave,
        Broken::NoTolerance,
        Broken::LastLeave,
        Broken::ForgetByConfig,
        Broken::NoLeaves,
        Broken::NoNoticeOfShorter,
        Broken::OlderData,
        Broken::LostData,
        Broken::NoOldest,
        Broken::NoHold,
        Broken::Unfenced,
        Broken::SharedLease,
        Broken::LeaseForEver,
        Broken::NoRenewal,
        Broken::WallVersions,
        Broken::NoEvent,
        Broken::NoResend,
        Broken::OnlineByLate,
        Broken::OnlineByProlong,
        Broken::HeldLeaves,
    ];
}

/// Stands for a generation that is not that of the data.
const UNCERTAIN: u64 = u64::MAX;

#[derive(Clone, Debug)]
struct User {
    is_online: bool,
    /// The time of the last heartbeat; none if the store only knows a leave.
    seen: Option<Nanos>,
    timeout: Nanos,
    deadline: Nanos,
    /// The last leave since the last heartbeat, and the soonest deadline that such leaves set to heartbeats before it.
    left: Option<(Nanos, Nanos)>,
    /// Whether a leave has set the deadline, or would if that were not held.
    is_leave: bool,
    /// The generation of the data when a transition was last appended for the user, or [`UNCERTAIN`]. In another generation
    /// the application may know of a transition that the store forgot.
    generation: u64,
}

impl User {
    /// Returns a user whom the store does not know.
    fn new(generation: u64) -> User {
        User { is_online: false, seen: None, timeout: 0, deadline: 0, left: None, is_leave: false, generation }
    }
}

#[derive(Clone, Debug)]
struct Logged {
    id: UserId,
    reason: Reason,
    due: Nanos,
    /// When the last heartbeat was.
    seen: Nanos,
    version: i64,
    failures: u32,
}

#[derive(Clone, Debug)]
struct Dead {
    event: Logged,
    error: String,
}

/// The data of one partition.
#[derive(Clone, Debug, Default)]
struct Data {
    epoch: u64,
    generation: u64,
    /// The highest number that was given out.
    last: u64,
    lease: Option<(Token, Nanos)>,
    /// Who held the lease last, unless it was released.
    holder: Option<Token>,
    swept: Option<Nanos>,
    /// Who is silent is not set offline before the first time, and who has left not before the second.
    hold: Nanos,
    leave_hold: Nanos,
    /// What is added to the server's clock, which may have been set back.
    shift: Nanos,
    /// No event is handed out before then: the data went back, and members say what they delivered.
    silent_until: Nanos,
    /// The longest timeout in use, and until when it counts.
    longest: (Nanos, Nanos),
    /// How late users were set offline at most, of those who were late, and the number of the last of their events.
    overdue: (Nanos, u64),
    users: BTreeMap<UserId, User>,
    log: BTreeMap<u64, Logged>,
    /// Whose deadline was moved forward, and when the store got the leave or heartbeat that did.
    notices: BTreeMap<u64, (UserId, Nanos)>,
    dead: BTreeMap<u64, Dead>,
    superseded: BTreeMap<UserId, i64>,
}

/// A partition, with older data of it to go back to.
#[derive(Debug, Default)]
struct PartitionModel {
    data: Data,
    backup: Data,
    is_away: bool,
}

/// The server. Every call is one atomic step.
#[derive(Debug)]
pub(crate) struct Model {
    partitions: Vec<PartitionModel>,
    members: BTreeMap<[u8; 16], Nanos>,
    /// The server's monotonic clock, and its wall clock in microseconds.
    pub(crate) now: Nanos,
    pub(crate) wall: u64,
    broken: Option<Broken>,
}

impl Model {
    pub(crate) fn new(partitions: Partition, broken: Option<Broken>) -> Model {
        let partitions = (0..partitions).map(|_| PartitionModel::default()).collect();
        Model { partitions, members: BTreeMap::new(), now: 0, wall: 1, broken }
    }

    pub(crate) fn partitions(&self) -> Partition {
        self.partitions.len() as Partition
    }

    fn is(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    // -- faults -------------------------------------------------------------------------------

    /// Keeps the present data of a partition, to go back to.
    pub(crate) fn back_up(&mut self, partition: Partition) {
        if let Some(partition) = self.partitions.get_mut(usize::from(partition)) {
            partition.backup = partition.data.clone();
        }
    }

    /// Goes back to the data of a partition that were kept.
    pub(crate) fn roll_back(&mut self, partition: Partition) {
        if let Some(partition) = self.partitions.get_mut(usize::from(partition)) {
            partition.data = partition.backup.clone();
        }
    }

    /// Whether the data that were kept are older ones of the present data, and not of data that were lost since.
    pub(crate) fn is_backup_of_these(&self, partition: Partition) -> bool {
        self.partitions
            .get(usize::from(partition))
            .is_some_and(|partition| partition.backup.epoch == partition.data.epoch)
    }

    /// Loses the data.
    pub(crate) fn lose(&mut self) {
        self.partitions.iter_mut().for_each(|partition| partition.data = Data::default());
        self.members.clear();
    }

    /// Ends the lease of a partition before its time.
    pub(crate) fn end_lease(&mut self, partition: Partition) {
        if let Some(partition) = self.partitions.get_mut(usize::from(partition)) {
            partition.data.lease = None;
        }
    }

    pub(crate) fn set_away(&mut self, partition: Partition, is_away: bool) {
        if let Some(partition) = self.partitions.get_mut(usize::from(partition)) {
            partition.is_away = is_away;
        }
    }

    // -- what the judge asks ------------------------------------------------------------------

    /// The member that holds the lease of a partition, if any does.
    pub(crate) fn lease_holder(&self, partition: Partition) -> Option<Token> {
        let data = &self.partitions.get(usize::from(partition))?.data;
        data.lease.filter(|(_, until)| *until > self.clock(data)).map(|(token, _)| token)
    }

    /// The longest timeout that heartbeats in a partition have had lately.
    pub(crate) fn longest_timeout(&self, partition: Partition) -> Nanos {
        self.partitions.get(usize::from(partition)).map_or(0, |model| model.data.longest.0)
    }

    /// The member that may commit: it holds the lease, or was the last to hold it.
    pub(crate) fn last_lease_holder(&self, partition: Partition) -> Option<Token> {
        self.partitions.get(usize::from(partition))?.data.holder
    }

    /// How long the longest lease lasts from now.
    pub(crate) fn longest_lease(&self) -> Nanos {
        let left = |data: &Data| data.lease.map_or(0, |(_, until)| until.saturating_sub(self.clock(data)));
        self.partitions.iter().map(|partition| left(&partition.data)).max().unwrap_or(0)
    }

    pub(crate) fn is_online(&self, id: &UserId) -> bool {
        self.user(id).is_some_and(|user| user.is_online)
    }

    /// When the last heartbeat was of a user who is offline by a timeout.
    pub(crate) fn expired_seen(&self, id: &UserId) -> Option<Nanos> {
        let generation = self.generation(id.partition(self.partitions()));
        self.user(id).filter(|user| !user.is_online && user.left.is_none() && user.generation == generation)?.seen
    }

    /// When the last heartbeat was of a user who is online by one that is still good.
    pub(crate) fn online_seen(&self, id: &UserId) -> Option<Nanos> {
        self.user(id).filter(|user| user.is_online && user.generation != UNCERTAIN)?.seen
    }

    /// Whether a user is online, and a leave has set the deadline.
    pub(crate) fn is_leaving(&self, id: &UserId) -> bool {
        self.user(id).is_some_and(|user| user.is_online && user.is_leave)
    }

    /// Whether a user is online and has left.
    pub(crate) fn has_left(&self, id: &UserId) -> bool {
        self.user(id).is_some_and(|user| user.is_online && user.left.is_some())
    }

    fn user(&self, id: &UserId) -> Option<&User> {
        self.partitions.get(usize::from(id.partition(self.partitions())))?.data.users.get(id)
    }

    /// How long ago the last heartbeat was of a user who is online.
    pub(crate) fn seen_ago(&self, id: &UserId) -> Option<Nanos> {
        let data = &self.partitions.get(usize::from(id.partition(self.partitions())))?.data;
        let user = self.user(id).filter(|user| user.is_online)?;
        Some(self.clock(data).saturating_sub(user.seen?))
    }

    /// Whether the user is online, or has an event that is later than a version.
    pub(crate) fn knows(&self, id: &UserId, version: i64) -> bool {
        let is_later = |event: &Logged| event.id == *id && event.version > version;
        self.is_online(id) || self.partitions.iter().any(|model| model.data.log.values().any(is_later))
    }

    /// The highest number that was given out in a partition.
    pub(crate) fn last(&self, partition: Partition) -> u64 {
        self.partitions.get(usize::from(partition)).map_or(0, |model| model.data.last)
    }

    /// How often the data of a partition were found to be older.
    pub(crate) fn generation(&self, partition: Partition) -> u64 {
        self.partitions.get(usize::from(partition)).map_or(0, |model| model.data.generation)
    }

    /// Whether a member that knows this notices that the data are older.
    pub(crate) fn is_older_than(&self, partition: Partition, known: Known) -> bool {
        let data = self.partitions.get(usize::from(partition)).map(|model| &model.data);
        data.is_some_and(|data| known.epoch == data.epoch && is_older(data, known))
    }

    /// The numbers of the events that are not delivered, with their users.
    pub(crate) fn undelivered(&self) -> BTreeMap<(Partition, u64), UserId> {
        let of = |(partition, model): (Partition, &PartitionModel)| -> Vec<_> {
            model.data.log.iter().map(|(number, event)| ((partition, *number), event.id.clone())).collect()
        };
        (0..).zip(&self.partitions).flat_map(of).collect()
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        for PartitionModel { data, .. } in &self.partitions {
            for (number, Dead { event, error }) in &data.dead {
                let newest = data.superseded.get(&event.id).copied().unwrap_or(0);
                letters.push(DeadLetter {
                    event: event.read(*number, self.clock(data)),
                    error: error.clone(),
                    is_superseded: newest > event.version,
                });
            }
        }
        letters
    }

    /// Who is online, and how long ago each was seen.
    pub(crate) fn online_users(&self) -> BTreeMap<UserId, Nanos> {
        let mut online = BTreeMap::new();
        for PartitionModel { data, .. } in &self.partitions {
            let now = self.clock(data);
            online.extend(
                data.users
                    .iter()
                    .filter(|(_, user)| user.is_online)
                    .map(|(id, user)| (id.clone(), now.saturating_sub(user.seen.unwrap_or(0)))),
            );
        }
        online
    }

    // -- calls --------------------------------------------------------------------------------

    /// Returns how many members there are.
    pub(crate) fn register(&mut self, membership: &Membership) -> usize {
        let now = self.now;
        self.members.retain(|_, until| *until > now);
        self.members.insert(membership.token.0, now + membership.lease);
        self.members.len()
    }

    pub(crate) fn deregister(&mut self, membership: &Membership) {
        self.members.remove(&membership.token.0);
    }

    pub(crate) fn write(
        &mut self,
        membership: &Membership,
        writes: &[Write],
    ) -> Vec<(Partition, Result<Written, StoreError>)> {
        let count = self.partitions();
        let mut by_partition: BTreeMap<Partition, Vec<&Write>> = BTreeMap::new();
        writes.iter().for_each(|write| by_partition.entry(write.id().partition(count)).or_default().push(write));
        let mut results = Vec::new();
        for (partition, writes) in by_partition {
            let result = self.enter(partition, membership).map(|now| {
                let mut appended = 0;
                for write in writes {
                    appended += match write {
                        Write::Heartbeat(heartbeat) => self.heartbeat(partition, now, heartbeat),
                        Write::Leave(leave) => self.leave(partition, now, leave),
                    };
                }
                Written { appended, known: self.known(partition) }
            });
            results.push((partition, result));
        }
        results
    }

    pub(crate) fn poll(
        &mut self,
        membership: &Membership,
        requests: &[PollRequest],
    ) -> Vec<Result<PollResult, StoreError>> {
        requests.iter().map(|request| self.poll_partition(membership, request)).collect()
    }

    fn poll_partition(&mut self, membership: &Membership, request: &PollRequest) -> Result<PollResult, StoreError> {
        let partition = request.partition;
        let now = self.enter(partition, membership)?;
        let lease = self.lease(partition, now, membership, request.lease);
        let sweep = request.sweep.map(|limit| self.sweep(partition, now, membership, limit));
        let is_silent = self.is(Broken::NoLeaves);
        let hides_oldest = self.is(Broken::NoOldest);
        let data = self.data(partition);
        if let Some(handled) = request.handled.as_ref().filter(|handled| handled.epoch == data.epoch) {
            data.log.retain(|number, _| *number > handled.through || handled.except.contains(number));
        }
        let is_silent_yet = now < data.silent_until;
        let events = match request.events.filter(|_| lease.is_held() && !is_silent_yet) {
            Some((after, limit)) => {
                data.log.range(after + 1..).take(limit).map(|(number, event)| event.read(*number, now)).collect()
            }
            None => Vec::new(),
        };
        let notice = |(_, (id, _)): (&u64, &(UserId, Nanos))| {
            let user = data.users.get(id);
            let due = user.filter(|user| user.is_online).map_or(0, |user| user.deadline.saturating_sub(now));
            let left = user
                .and_then(|user| user.left)
                .map(|(left, until)| (now.saturating_sub(left), until.saturating_sub(left)));
            Notice { id: id.clone(), due, left }
        };
        let notices = match request.notices_after.filter(|_| !is_silent) {
            Some(after) => data.notices.range(after.saturating_add(1)..).map(notice).collect(),
            None => Vec::new(),
        };
        let first = data.log.keys().next().copied();
        let lateness = first.filter(|first| *first <= data.overdue.1).map_or(0, |_| data.overdue.0);
        let event = data.log.values().next().map(|event| event.due.saturating_sub(lateness));
        let deadlines = data.users.values().filter(|user| user.is_online).map(|user| user.deadline);
        let first_due = deadlines.filter(|deadline| *deadline <= now).chain(event).min();
        let oldest = first_due.map(|due| now.saturating_sub(due)).filter(|_| !hides_oldest);
        let known = self.known(partition);
        let delivered_through = first.map_or(known.last, |number| number - 1);
        Ok(PollResult { lease, sweep, events, notices, notices_until: known.last, oldest, delivered_through, known })
    }

    pub(crate) fn commit(
        &mut self,
        membership: &Membership,
        commits: &[(Partition, Commit)],
    ) -> Vec<Result<bool, StoreError>> {
        commits.iter().map(|(partition, commit)| self.commit_partition(membership, *partition, commit)).collect()
    }

    fn commit_partition(
        &mut self,
        membership: &Membership,
        partition: Partition,
        commit: &Commit,
    ) -> Result<bool, StoreError> {
        self.enter(partition, membership)?;
        let is_unfenced = self.is(Broken::Unfenced);
        let data = self.data(partition);
        if data.holder != Some(membership.token) && !is_unfenced {
            return Ok(false);
        }
        for (number, failures, _) in &commit.failed {
            if let Some(event) = data.log.get_mut(number) {
                event.failures = *failures;
            }
        }
        for (number, failures, error) in &commit.dead {
            let Some(event) = data.log.remove(number) else { continue };
            let later = data.log.range(number + 1..).filter(|(_, later)| later.id == event.id);
            let newest = later.map(|(_, later)| later.version).max().unwrap_or(event.version);
            let known = data.superseded.entry(event.id.clone()).or_insert(0);
            *known = newest.max(*known).max(event.version);
            let event = Logged { failures: *failures, ..event };
            data.dead.insert(*number, Dead { event, error: error.clone() });
        }
        for number in &commit.done {
            data.log.remove(number);
        }
        Ok(true)
    }

    /// Puts the dead letters at the end of the log, but those that are superseded. Returns how many there were of both.
    pub(crate) fn requeue_dead_letters(&mut self) -> (usize, usize) {
        let (mut requeued, mut dropped) = (0, 0);
        let wall = self.wall;
        for PartitionModel { data, .. } in &mut self.partitions {
            for Dead { event, .. } in std::mem::take(&mut data.dead).into_values() {
                if data.superseded.get(&event.id).copied().unwrap_or(0) > event.version {
                    dropped += 1;
                } else {
                    requeued += 1;
                    data.last = wall.max(data.last + 1);
                    data.log.insert(data.last, Logged { failures: 0, ..event });
                }
            }
            data.superseded.clear();
        }
        (requeued, dropped)
    }

    // -- the rules ----------------------------------------------------------------------------

    fn data(&mut self, partition: Partition) -> &mut Data {
        &mut self.partitions[usize::from(partition)].data
    }

    fn clock(&self, data: &Data) -> Nanos {
        (self.now + data.shift).max(data.swept.unwrap_or(0))
    }

    fn known(&mut self, partition: Partition) -> Known {
        let data = self.data(partition);
        Known { epoch: data.epoch, generation: data.generation, last: data.last }
    }

    /// What every call on a partition begins with. Returns the partition's time.
    fn enter(&mut self, partition: Partition, membership: &Membership) -> Result<Nanos, StoreError> {
        let known = membership.known(partition);
        let (now, wall) = (self.now, self.wall);
        let (ignores_older, ignores_loss) = (self.is(Broken::OlderData), self.is(Broken::LostData));
        let Some(PartitionModel { data, is_away, .. }) = self.partitions.get_mut(usize::from(partition)) else {
            return Err(StoreError::Unavailable("no such partition".into()));
        };
        if *is_away {
            return Err(StoreError::Unavailable("the partition is away".into()));
        }
        // The clock never goes back.
        if let Some(swept) = data.swept.filter(|swept| now + data.shift < *swept) {
            data.shift = swept - now;
        }
        let now = now + data.shift;
        if data.epoch == 0 {
            data.epoch = wall;
        }
        if known.epoch == 0 {
            // The caller knew other data before, or none.
            data.last = data.last.max(known.last);
        }
        let is_lost = known.epoch != 0 && (known.epoch, known.generation) != (data.epoch, data.generation);
        let is_older = known.epoch == data.epoch && is_older(data, known);
        if (is_lost && !ignores_loss) || (is_older && !ignores_older) {
            data.hold(now, membership);
            data.last = data.last.max(known.last);
            if is_older {
                data.generation = wall.max(known.generation + 1);
                data.silent_until = now + SETTLING;
            }
            return Err(StoreError::Replaced("the data are others, or older".into()));
        }
        Ok(now)
    }

    fn lease(
        &mut self,
        partition: Partition,
        now: Nanos,
        membership: &Membership,
        request: LeaseRequest,
    ) -> LeaseState {
        let (is_shared, is_for_ever, extends_nothing) =
            (self.is(Broken::SharedLease), self.is(Broken::LeaseForEver), self.is(Broken::NoRenewal));
        let token = membership.token;
        let data = self.data(partition);
        let current = data.lease.filter(|(_, until)| *until > now || is_for_ever).map(|(token, _)| token);
        let is_mine = current == Some(token) || (current.is_none() && data.holder == Some(token));
        match request {
            LeaseRequest::Release if is_mine => {
                data.lease = None;
                data.holder = None;
                LeaseState::Free
            }
            LeaseRequest::Renew if is_mine => {
                if !extends_nothing {
                    data.lease = Some((token, now + membership.lease));
                }
                LeaseState::Renewed
            }
            LeaseRequest::Acquire if is_mine || current.is_none() || is_shared => {
                data.lease = Some((token, now + membership.lease));
                data.holder = Some(token);
                if is_mine { LeaseState::Renewed } else { LeaseState::Acquired }
            }
            _ if is_mine => LeaseState::Renewed,
            _ if current.is_some() => LeaseState::HeldByOther,
            _ => LeaseState::Free,
        }
    }

    fn sweep(&mut self, partition: Partition, now: Nanos, membership: &Membership, limit: usize) -> Sweep {
        let (never_holds, is_silent, forgets_by_config, holds_leaves) = (
            self.is(Broken::NoHold),
            self.is(Broken::NoEvent),
            self.is(Broken::ForgetByConfig),
            self.is(Broken::HeldLeaves),
        );
        let timeout = membership.timeout;
        let wall = self.wall;
        let mut versions = Vec::new();
        let data = self.data(partition);
        let first = |data: &Data| data.users.values().filter(|user| user.is_online).map(|user| data.due(user)).min();
        if data.swept.is_some_and(|swept| now - swept > timeout / 2) && first(data).is_some() && !never_holds {
            // Nobody has swept for too long: perhaps the heartbeats had nowhere to go.
            data.hold(now, membership);
        }
        if holds_leaves {
            data.leave_hold = data.hold;
        }
        data.swept = Some(now);
        let longest = if forgets_by_config { timeout } else { data.longest.0.max(timeout) };
        data.users.retain(|_, user| {
            let last = user.seen.unwrap_or(0).max(user.left.map_or(0, |(left, _)| left));
            user.is_online || now < last.saturating_add(longest)
        });
        data.notices.retain(|_, (_, at)| now < at.saturating_add(longest.max(SECOND)));
        let generation = data.generation;
        let mut due: Vec<(Nanos, UserId)> = data
            .users
            .iter()
            .filter(|(_, user)| user.is_online && data.due(user) <= now)
            .map(|(id, user)| (user.deadline, id.clone()))
            .collect();
        due.sort();
        due.truncate(limit);
        let overdue = due.first().map(|(deadline, _)| now - deadline).filter(|lateness| *lateness > OVERDUE);
        let first_event = data.log.keys().next().copied();
        let mut lag = 0;
        for (_, id) in &due {
            let Some(due) = data.users.get(id).map(|user| data.due(user)) else { continue };
            let Some(user) = data.users.get_mut(id) else { continue };
            lag = lag.max(now - due);
            user.is_online = false;
            user.generation = generation;
            let reason = if user.is_leave { Reason::Leave } else { Reason::Timeout };
            if !is_silent {
                versions.push((id.clone(), reason, (due, user.seen.unwrap_or(due))));
            }
        }
        for (id, reason, times) in versions {
            self.append(partition, wall, id, reason, times);
        }
        let data = self.data(partition);
        if let Some(lateness) = overdue {
            let (before, through) = data.overdue;
            let is_undelivered = first_event.is_some_and(|first| first <= through);
            data.overdue = (if is_undelivered { lateness.max(before) } else { lateness }, data.last);
        }
        Sweep { expired: due.len(), lag, next: first(data).map(|first| first.saturating_sub(now)) }
    }

    fn append(&mut self, partition: Partition, wall: u64, id: UserId, reason: Reason, (due, seen): (Nanos, Nanos)) {
        let goes_by_wall = self.is(Broken::WallVersions);
        let data = self.data(partition);
        let version = if goes_by_wall { wall } else { wall.max(data.last + 1) };
        data.last = data.last.max(version);
        if let Some(newest) = data.superseded.get_mut(&id) {
            *newest = version as i64;
        }
        let mut number = version;
        while data.log.contains_key(&number) {
            number += 1;
        }
        data.log.insert(number, Logged { id, reason, due, seen, version: version as i64, failures: 0 });
    }

    fn heartbeat(&mut self, partition: Partition, now: Nanos, heartbeat: &Heartbeat) -> usize {
        let (brings_back, takes_late, undoes_equal, never_resends, takes_expired, is_silent_about_it) = (
            self.is(Broken::OnlineByProlong),
            self.is(Broken::LateHeartbeat),
            self.is(Broken::EqualTimes),
            self.is(Broken::NoResend),
            self.is(Broken::OnlineByLate),
            self.is(Broken::NoNoticeOfShorter),
        );
        let (seen, timeout) = (now.saturating_sub(heartbeat.age), heartbeat.timeout);
        let wall = self.wall;
        let data = self.data(partition);
        let (generation, held_until) = (data.generation, data.held_until(now));
        let is_certain = |user: &User| user.is_online && user.generation == generation;
        let is_prolonged = heartbeat.purpose == Purpose::Prolong && !brings_back;
        if is_prolonged && !data.users.get(&heartbeat.id).is_some_and(is_certain) {
            return 0;
        }
        if timeout >= data.longest.0 || now > data.longest.1 {
            data.longest = (timeout, now + 2 * timeout);
        }
        let user = data.users.entry(heartbeat.id.clone()).or_insert_with(|| User::new(generation));
        // Of two heartbeats without a certain order the later arrival counts: its timeout may be another one.
        let is_late = |before| seen + ORDER_TOLERANCE < before || user.left.is_some();
        let is_uncertain = user.generation != generation;
        // After the data went back, the clock may have been set back too: a resent heartbeat counts whatever its time.
        let is_resend = heartbeat.purpose == Purpose::Resend && is_uncertain;
        let is_certainly_online = user.is_online && !is_uncertain;
        // The longest one in use is found anew when the one before has not been used for long.
        let longest = data.longest.0.max(user.timeout).max(timeout);
        let is_shorter = |timeout: Nanos| timeout.saturating_mul(3) < longest.saturating_mul(2) && !is_silent_about_it;
        if user.seen.is_some_and(|before| seen < before && is_late(before)) && !takes_late && !is_resend {
            let is_overtaken = is_certainly_online && user.left.is_none() && seen + timeout > user.deadline;
            if is_overtaken && is_shorter(user.timeout) {
                data.last = wall.max(data.last + 1);
                data.notices.insert(data.last, (heartbeat.id.clone(), now));
            }
            return 0;
        }
        // What is resent is after a leave only if it was itself, and not because a later heartbeat is known.
        let came = seen;
        let seen = if takes_late { seen } else { user.seen.map_or(seen, |before| seen.max(before)) };
        let is_new = user.seen.is_none() || is_uncertain;
        user.seen = Some(seen);
        user.timeout = timeout;
        let is_after_leave = user.left.is_none_or(|(left, _)| if undoes_equal { came >= left } else { came > left });
        let is_moved_forward = is_certainly_online && is_after_leave && seen + timeout < user.deadline;
        if is_after_leave {
            user.deadline = seen + timeout;
            user.left = None;
            user.is_leave = false;
        } else if let Some((_, until)) = user.left {
            user.is_leave = until < (seen + timeout).max(held_until);
            user.deadline = until.min(seen + timeout);
        }
        if is_certainly_online {
            if is_moved_forward && is_shorter(timeout) {
                data.last = wall.max(data.last + 1);
                data.notices.insert(data.last, (heartbeat.id.clone(), now));
            }
            return 0;
        }
        if user.deadline > now + online_margin(timeout) || takes_expired {
            user.is_online = true;
            user.generation = generation;
            self.append(partition, wall, heartbeat.id.clone(), Reason::Heartbeat, (seen, seen));
            1
        } else {
            if heartbeat.purpose == Purpose::Resend && is_new && !never_resends {
                // The data may have lost that the user was online. The sweep sets the user offline, but not before each
                // process had time to write a later heartbeat.
                user.is_online = true;
                user.generation = UNCERTAIN;
                // A number of its own: this, too, is noticed if the data go back.
                data.last = wall.max(data.last + 1);
            } else if is_new {
                // An older heartbeat may follow that another process writes again: these data know no transition.
                user.generation = UNCERTAIN;
            }
            0
        }
    }

    fn leave(&mut self, partition: Partition, now: Nanos, leave: &Leave) -> usize {
        let (drops_unknown, takes_late, is_last_deadline) =
            (self.is(Broken::LeaveOfUnknown), self.is(Broken::LateLeave), self.is(Broken::LastLeave));
        let tolerance = if self.is(Broken::NoTolerance) { 0 } else { ORDER_TOLERANCE };
        let left = now.saturating_sub(leave.age);
        let until = left + leave.after;
        let wall = self.wall;
        let data = self.data(partition);
        if !data.users.contains_key(&leave.id) {
            if drops_unknown {
                return 0;
            }
            data.users.insert(leave.id.clone(), User::new(data.generation));
        }
        let held_until = data.held_until(now);
        let Some(user) = data.users.get_mut(&leave.id) else { return 0 };
        if user.seen.is_some_and(|seen| left + tolerance < seen) && !takes_late {
            return 0;
        }
        if user.is_online && until < user.deadline.max(held_until) {
            user.deadline = until.min(user.deadline);
            user.is_leave = true;
        }
        let (last, sooner) = user.left.unwrap_or((left, until));
        user.left = Some((left.max(last), if is_last_deadline { until } else { until.min(sooner) }));
        if left >= last || until < sooner {
            data.last = wall.max(data.last + 1);
            data.notices.insert(data.last, (leave.id.clone(), now));
        }
        0
    }
}

impl Data {
    /// Holds the deadlines, as heartbeats may be missing: for one timeout. Those of users who have left are held for one lease
    /// length: within it each member writes what it knows, so that a later heartbeat undoes the leave. No member shortens
    /// the hold of another one.
    fn hold(&mut self, now: Nanos, membership: &Membership) {
        self.hold = self.hold.max(now + membership.timeout);
        self.leave_hold = self.leave_hold.max(now + membership.lease.min(membership.timeout));
    }

    /// Until when deadlines are held, if they are.
    fn held_until(&self, now: Nanos) -> Nanos {
        if now < self.hold { self.hold } else { 0 }
    }

    /// When the user is set offline, if nothing comes.
    fn due(&self, user: &User) -> Nanos {
        let held_until = user.left.map_or(self.hold, |(_, until)| self.hold.min(self.leave_hold.max(until)));
        user.deadline.max(held_until)
    }
}

/// Whether a member knows newer data of the same epoch.
fn is_older(data: &Data, known: Known) -> bool {
    known.generation > data.generation || (known.generation == data.generation && known.last > data.last)
}

impl Logged {
    fn read(&self, number: u64, now: Nanos) -> Event {
        Event {
            number,
            id: self.id.clone(),
            transition: if self.reason == Reason::Heartbeat { Transition::Online } else { Transition::Offline },
            reason: self.reason,
            lateness: now.saturating_sub(self.due),
            seen_ago: now.saturating_sub(self.seen),
            version: self.version,
            failures: self.failures,
        }
    }
}
