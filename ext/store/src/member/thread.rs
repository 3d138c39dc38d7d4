//! What the member's thread does again and again: it commits what was delivered, writes beats, and requests at the partitions
//! whose turn it is.
//!
//! Over 400 lines: the steps of a turn share what one turn leaves to the next, and their order counts.
//!
//! Partitions fail by themselves: one that does is left alone for a while, and the others go on. An error of the whole
//! store has the thread wait, longer each time.

use std::hash::BuildHasher;
use std::thread;
use std::time::Duration;

use foldhash::quality::RandomState;
use online_manager_tracker::{Clock, Nanos, Signal, TICK};

use super::{MILLISECOND, Phase, SECOND, Shared, draw_token};
use crate::error::StoreError;
use crate::log::backoff;
use crate::store::{LeaseRequest, LeaseState, Membership, Partition, PollRequest, PollResult, Store, Write};

/// What is written in one step: so the others wait for a few milliseconds, and no longer.
const WRITE_BATCH_SIZE: usize = 1_000;

/// How many users of a partition are set offline in one step.
const SWEEP_BATCH_SIZE: usize = 256;

/// The shortest time between two steps that write beats, so that a crowd does not come one by one.
const MIN_WRITE_INTERVAL: Nanos = 2 * MILLISECOND;

/// How often an unreachable store is tried again: soon at first.
const MIN_RETRY_DELAY: Nanos = 100 * MILLISECOND;
const MAX_RETRY_DELAY: Nanos = 2 * SECOND;

/// When a partition is tried again that has failed by itself.
const PARTITION_RETRY_DELAY: Nanos = 500 * MILLISECOND;

/// For how long after something has happened more is likely to.
const ACTIVE_WINDOW: Nanos = 2 * SECOND;

/// For how long a stop waits for a store that is away.
const SHUTDOWN_TIMEOUT: Nanos = 5 * SECOND;

/// What is said then.
const UNWRITTEN: &str = "; so many users had heartbeats that could not be written before the end:";

/// So many state a lease lasts at the least, however slow the store is.
const STEPS_PER_LEASE: u64 = 8;
const MAX_LEASE: Nanos = 60 * SECOND;

/// What the thread knows about a partition. Times are the member's clock's.
#[derive(Clone, Copy)]
struct PartitionState {
    /// When to ask whose the lease is, or to renew it.
    lease_at: Nanos,
    sweep_at: Nanos,
    fetch_at: Nanos,
    /// Not before then is it to be asked anything: it has failed.
    retry_at: Nanos,
    /// When it last answered.
    last_ok_at: Nanos,
    /// Whether the first look has been noted there. Before that, no beat is written.
    is_polled: bool,
    /// Whether the lease is to be had, as far as is known.
    is_free: bool,
    /// Whether the lease is to be given back, when all that was delivered is committed.
    is_releasing: bool,
}

impl PartitionState {
    /// Of a partition of which nothing is known.
    const NEW: PartitionState = PartitionState {
        lease_at: 0,
        sweep_at: 0,
        fetch_at: 0,
        retry_at: 0,
        last_ok_at: 0,
        is_polled: false,
        is_free: true,
        is_releasing: false,
    };
}

pub(super) struct MemberState<'a, C: Clock, S: Signal> {
    shared: &'a Shared<C, S>,
    store: Option<Box<dyn Store>>,
    partitions: Vec<PartitionState>,
    /// How many partitions this process may have.
    max_leases: usize,
    register_at: Nanos,
    scan_at: Nanos,
    /// Until when it is likely that something happens.
    active_until: Nanos,
    /// How long a turn takes of late in which the store is asked, and how long the latest of them took.
    step_time: Nanos,
    latest_step_time: Nanos,
    has_called_store: bool,
    steps: u64,
    /// The first error of a partition in this turn.
    partition_error: Option<StoreError>,
    /// How often the store has failed since it last did what it was asked for.
    failures: u32,
    /// Until when a stop waits for the store.
    shutdown_deadline: Option<Nanos>,
    random: RandomState,
}

impl<'a, C: Clock, S: Signal> MemberState<'a, C, S> {
    pub(super) fn new(shared: &'a Shared<C, S>) -> Self {
        MemberState {
            shared,
            store: None,
            partitions: Vec::new(),
            max_leases: 0,
            register_at: 0,
            scan_at: 0,
            active_until: 0,
            step_time: 0,
            latest_step_time: 0,
            has_called_store: false,
            steps: 0,
            partition_error: None,
            failures: 0,
            shutdown_deadline: None,
            random: RandomState::default(),
        }
    }

    pub(super) fn run(&mut self) {
        loop {
            self.shared.is_woken.store(false, std::sync::atomic::Ordering::Release);
            let phase = *self.shared.phase.lock();
            let rest = match phase {
                Phase::Pausing => return self.release_for_fork(),
                Phase::Inactive | Phase::Ended => return,
                Phase::Stopping => match self.shut_down() {
                    Some(rest) => rest,
                    None => return,
                },
                Phase::Running => match self.step() {
                    Ok(rest) => rest,
                    Err(error) => self.handle_failure(&error),
                },
            };
            self.shared.rest(rest);
        }
    }

    /// One turn; answers how long to rest.
    fn step(&mut self) -> Result<Nanos, StoreError> {
        let begin = self.shared.clock.now();
        if begin >= self.scan_at {
            let well = self.partitions.iter().map(|partition_state| partition_state.last_ok_at).min().unwrap_or(0);
            self.shared.coalescer.scan((begin, well), self.shared.timeout(), &self.shared.outbox);
            self.scan_at = begin + (self.shared.timeout() / 6).clamp(10 * MILLISECOND, 5 * SECOND);
        }
        self.steps += 1;
        let rest = self.with_store(Self::step_with)?;
        self.record_step_time(self.shared.clock.now().saturating_sub(begin));
        match self.partition_error.take() {
            Some(error) => self.record_error(&error),
            None => self.failures = 0,
        }
        Ok(rest)
    }

    /// Notes how long a turn took. A slow store makes all of them long in which it is asked. If only one is, the process
    /// stood still meanwhile: to have longer leases would be no help then, and whoever waits for a successor would wait longer.
    fn record_step_time(&mut self, length: Nanos) {
        if std::mem::take(&mut self.has_called_store) {
            self.step_time = length.min(self.latest_step_time).max(self.step_time - self.step_time / 8);
            self.latest_step_time = length;
        }
    }

    fn with_store<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut store = match self.store.take() {
            Some(store) => store,
            None => self.shared.store_url.open(&self.shared.namespace, &self.shared.interrupt)?,
        };
        self.partitions.resize(usize::from(store.partitions()), PartitionState::NEW);
        let result = store.reconnect().and_then(|was_away| {
            if was_away {
                // What it was told last may be lost.
                self.resend(&*store, None);
            }
            work(self, &mut *store)
        });
        self.store = Some(store);
        result
    }

    fn step_with(&mut self, store: &mut dyn Store) -> Result<Nanos, StoreError> {
        self.register(store)?;
        self.commit(store)?;
        if self.partitions.iter().any(|partition_state| !partition_state.is_polled) {
            // Before the first beat is written: with nobody online there is nobody to be held.
            self.poll(store, |state, _, request| {
                let is_polled =
                    state.partition(request.partition).is_none_or(|partition_state| partition_state.is_polled);
                (!is_polled).then_some(PollRequest { sweep: Some(0), ..request })
            })?;
        }
        let has_more = self.write(store)?;
        let leeway = self.poll_interval(store) / 2;
        let soon = self.shared.clock.now() + leeway;
        let (mut bids, mut budget) = {
            let log = self.shared.log.lock();
            let bids = self.max_leases.saturating_sub(log.leases());
            let fetches = |(partition, partition_state): &(Partition, &PartitionState)| {
                log.is_leased(*partition) && partition_state.fetch_at <= soon
            };
            (bids, FetchBudget::new(log.free_slots(), bids + (0..).zip(&self.partitions).filter(fetches).count()))
        };
        self.poll(store, |state, now, request| state.plan((now, leeway), request, &mut bids, &mut budget))?;
        Ok(if has_more || self.has_commits() { 0 } else { self.next_wait(self.poll_interval(store)) })
    }

    /// What is to be looked at in a partition by now.
    /// Where anything is due, so is what will be within a `leeway`: one look is for all of it.
    fn plan(
        &self,
        (now, leeway): (Nanos, Nanos),
        request: PollRequest,
        bids: &mut usize,
        budget: &mut FetchBudget,
    ) -> Option<PollRequest> {
        let partition_state = self.partition(request.partition)?;
        let log = self.shared.log.lock();
        let is_leased = log.is_leased(request.partition);
        let fetch_at = if is_leased { partition_state.fetch_at } else { Nanos::MAX };
        if now < partition_state.lease_at.min(partition_state.sweep_at).min(fetch_at) && !partition_state.is_releasing {
            return None;
        }
        let now = now + leeway;
        let lease = if partition_state.is_releasing {
            if log.is_settled(request.partition) { LeaseRequest::Release } else { LeaseRequest::Renew }
        } else if is_leased {
            if partition_state.lease_at <= now { LeaseRequest::Renew } else { LeaseRequest::None }
        } else if partition_state.is_free && partition_state.lease_at <= now && *bids > 0 {
            *bids -= 1;
            LeaseRequest::Acquire
        } else {
            LeaseRequest::None
        };
        let sweep = (partition_state.sweep_at <= now).then_some(SWEEP_BATCH_SIZE);
        let is_to_fetch = (is_leased && partition_state.fetch_at <= now && !partition_state.is_releasing)
            || lease == LeaseRequest::Acquire;
        let events = Some((log.last_fetched(request.partition), if is_to_fetch { budget.take() } else { 0 }));
        let events = events.filter(|(_, most)| *most > 0);
        let is_due =
            partition_state.lease_at <= now || lease != LeaseRequest::None || sweep.is_some() || events.is_some();
        is_due.then_some(PollRequest { lease, sweep, events, ..request })
    }

    /// Looks at those partitions for which there is a plan, and takes in what is found.
    fn poll(
        &mut self,
        store: &mut dyn Store,
        mut plan: impl FnMut(&Self, Nanos, PollRequest) -> Option<PollRequest>,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        let count = store.partitions();
        // Another one is first each time, so that a scarce room goes round.
        let first = (self.steps % u64::from(count.max(1))) as Partition;
        let requests: Vec<PollRequest> = (0..count)
            .map(|number| (number + first) % count)
            .filter(|partition| {
                self.partition(*partition).is_some_and(|partition_state| partition_state.retry_at <= now)
            })
            .filter_map(|partition| {
                plan(self, now, PollRequest { partition, lease: LeaseRequest::None, sweep: None, events: None })
            })
            .collect();
        if requests.is_empty() {
            return Ok(());
        }
        self.has_called_store = true;
        let answers = store.poll(&self.membership(), &requests)?;
        for (request, answer) in requests.into_iter().zip(answers) {
            match answer {
                Ok(seen) => self.apply_poll(store, request, seen, now),
                Err(error) => self.partition_failed(store, request.partition, error),
            }
        }
        Ok(())
    }

    fn apply_poll(&mut self, store: &dyn Store, request: PollRequest, seen: PollResult, asked_at: Nanos) {
        let shared = self.shared;
        let partition = request.partition;
        let length = self.lease_length();
        let (renewal, next_ask) = (self.jittered(length / 3), self.jittered(store.lease_poll_interval()));
        let now = shared.clock.now();
        if !seen.events.is_empty() || seen.sweep.is_some_and(|sweep| sweep.expired > 0) {
            self.active_until = now + ACTIVE_WINDOW;
        }
        let (poll, share) = (self.poll_interval(store), self.max_leases);
        let Some(partition_state) = self.partitions.get_mut(usize::from(partition)) else { return };
        partition_state.last_ok_at = asked_at;
        partition_state.is_polled = true;
        partition_state.is_free = seen.lease != LeaseState::HeldByOther;
        let mut log = shared.log.lock();
        let was_ours = log.is_leased(partition);
        match (seen.lease, request.lease) {
            (_, LeaseRequest::Release) => {
                log.forget_partition(partition);
                partition_state.is_releasing = false;
                // Others come first.
                partition_state.lease_at = now + 4 * next_ask;
            }
            (LeaseState::Renewed | LeaseState::Acquired, LeaseRequest::Renew | LeaseRequest::Acquire) => {
                if seen.lease == LeaseState::Acquired {
                    // Somebody else may have had it, and has delivered what we remember.
                    log.forget_partition(partition);
                }
                // From before the store was asked: so it ends here sooner than there.
                log.set_lease(partition, asked_at + length - length / 8);
                partition_state.lease_at = now + renewal;
            }
            (LeaseState::HeldByOther, _) if was_ours => {
                log.forget_partition(partition);
                partition_state.lease_at = now + next_ask;
                partition_state.is_releasing = false;
            }
            (LeaseState::Renewed | LeaseState::Acquired, _) if was_ours => {}
            // It has run out, or is to be had.
            (LeaseState::Free | LeaseState::Renewed | LeaseState::Acquired, _) if was_ours || log.leases() < share => {
                partition_state.lease_at = now;
            }
            (_, _) => partition_state.lease_at = now + next_ask,
        }
        let is_held = log.is_leased(partition);
        if let Some((_, most)) = request.events.filter(|_| is_held) {
            partition_state.fetch_at = if seen.events.len() < most { now + poll } else { now };
            log.add_fetched(partition, seen.events, now);
        } else if is_held && !was_ours {
            partition_state.fetch_at = now;
        }
        drop(log);
        if let Some(sweep) = seen.sweep {
            let timeout = shared.timeout();
            if sweep.expired > 0 {
                shared.changed();
                shared.status.lock().sweep_lag = sweep.lag;
                partition_state.fetch_at = now;
            }
            // Who has no lease does it too, but seldom: in case whoever has it is gone.
            let often = if is_held { poll } else { (timeout / 4).max(poll) };
            // A millisecond more, so that whoever is due then is due for any clock.
            let rest = sweep.next.map_or(often, |next| next.saturating_add(MILLISECOND).min(often));
            partition_state.sweep_at = if request.sweep == Some(sweep.expired) { now } else { now + rest };
        }
    }

    /// When the next partition has to be looked at.
    fn next_wait(&self, poll: Nanos) -> Nanos {
        let now = self.shared.clock.now();
        let mut rest = poll.min(self.scan_at.saturating_sub(now));
        let log = self.shared.log.lock();
        let has_room = log.free_slots() > 0;
        for (partition, partition_state) in (0..).zip(&self.partitions) {
            let mut at = partition_state.lease_at.min(partition_state.sweep_at);
            if has_room && !partition_state.is_releasing && log.is_leased(partition) {
                at = at.min(partition_state.fetch_at);
            }
            rest = rest.min(at.max(partition_state.retry_at).saturating_sub(now));
        }
        let next = log.next(now);
        if next == Some(0) && !log.is_calling() {
            self.shared.signal.raise();
        } else if let Some(next) = next.filter(|next| *next > 0) {
            rest = rest.min(next);
        }
        rest
    }

    /// Says that the process takes part, and gives up what is more than its share.
    fn register(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        if now < self.register_at {
            return Ok(());
        }
        self.has_called_store = true;
        match store.register(&self.membership()) {
            Ok(share) => self.max_leases = usize::from(share),
            // Where the processes are counted may be away by itself. All partitions have to be somebody's then too.
            Err(error) if store.partitions() > 1 => {
                self.partition_error.get_or_insert(error);
                if self.max_leases == 0 {
                    self.max_leases = self.partitions.len();
                }
            }
            Err(error) => return Err(error),
        }
        self.register_at = now + self.jittered(self.lease_length() / 3);
        let mut log = self.shared.log.lock();
        let mut surplus = log.leases().saturating_sub(self.max_leases);
        for (partition, partition_state) in (0..).zip(&mut self.partitions) {
            partition_state.is_releasing = surplus > 0 && log.is_leased(partition);
            if partition_state.is_releasing {
                surplus -= 1;
                log.drop_undelivered(partition);
            }
        }
        Ok(())
    }

    /// Takes what was delivered out of the store's log.
    fn commit(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let shared = self.shared;
        let now = shared.clock.now();
        let commits = shared.log.lock().take_commits(|partition| self.is_available(partition, now));
        if commits.is_empty() {
            return Ok(());
        }
        self.has_called_store = true;
        let answers = match store.commit(&self.membership(), &commits) {
            Ok(answers) => answers,
            Err(error) => {
                let mut log = shared.log.lock();
                commits.into_iter().for_each(|(partition, commit)| log.not_committed(partition, commit));
                return Err(error);
            }
        };
        shared.changed();
        for ((partition, commit), answer) in commits.into_iter().zip(answers) {
            let mut log = shared.log.lock();
            match answer {
                Ok(is_held) => {
                    log.committed(&commit);
                    if !is_held {
                        log.forget_partition(partition);
                    }
                }
                Err(error) => {
                    log.not_committed(partition, commit);
                    drop(log);
                    self.partition_failed(store, partition, error);
                }
            }
        }
        Ok(())
    }

    fn has_commits(&self) -> bool {
        let now = self.shared.clock.now();
        self.shared.log.lock().has_commits(|partition| self.is_available(partition, now))
    }

    /// Writes beats and leaves. Answers whether there are more that can be written now.
    fn write(&mut self, store: &mut dyn Store) -> Result<bool, StoreError> {
        let shared = self.shared;
        let taken = shared.outbox.lock().take_batch(WRITE_BATCH_SIZE);
        if taken.is_empty() {
            return Ok(false);
        }
        let now = shared.clock.now();
        let (taken, held) = taken.split(|id| self.is_available(store.partition_of(id), now));
        shared.outbox.lock().put_back(held);
        // A tick more: times are kept in ticks here.
        let writes = taken.writes(now, shared.clock.jitter() + TICK);
        if writes.is_empty() {
            return Ok(false);
        }
        self.has_called_store = true;
        let told = match store.write(&self.membership(), &writes) {
            Ok(told) => told,
            Err(error) => {
                shared.outbox.lock().put_back(taken);
                return Err(error);
            }
        };
        for message in &writes {
            // Somebody may be due now.
            if let Write::Leave(leave) = message
                && let Some(partition_state) = self.partitions.get_mut(usize::from(store.partition_of(&leave.id)))
            {
                partition_state.sweep_at = 0;
            }
        }
        let mut failed = Vec::new();
        self.active_until = now + ACTIVE_WINDOW;
        for (partition, result) in told {
            match result {
                Ok(0) => {}
                Ok(_) => self
                    .partitions
                    .iter_mut()
                    .skip(usize::from(partition))
                    .take(1)
                    .for_each(|partition_state| partition_state.fetch_at = 0),
                Err(error) => failed.push((partition, error)),
            }
        }
        let (_, untaken) = taken.split(|id| failed.iter().all(|(partition, _)| *partition != store.partition_of(id)));
        shared.outbox.lock().put_back(untaken);
        failed.into_iter().for_each(|(partition, error)| self.partition_failed(store, partition, error));
        shared.changed();
        let is_empty = shared.outbox.lock().is_empty();
        if is_empty {
            // Others may be about to beat too.
            thread::sleep(Duration::from_nanos(MIN_WRITE_INTERVAL));
        }
        Ok(!is_empty)
    }

    fn poll_interval(&self, store: &dyn Store) -> Nanos {
        store.poll_interval(self.shared.clock.now() < self.active_until)
    }

    fn partition(&self, partition: Partition) -> Option<&PartitionState> {
        self.partitions.get(usize::from(partition))
    }

    fn is_available(&self, partition: Partition, now: Nanos) -> bool {
        self.partition(partition).is_none_or(|partition_state| partition_state.retry_at <= now)
    }

    fn membership(&self) -> Membership {
        Membership { token: *self.shared.token.lock(), lease: self.lease_length(), timeout: self.shared.timeout() }
    }

    /// Long enough for a busy boot_clock or a slow store, short enough for who waits for a successor.
    fn lease_length(&self) -> Nanos {
        let length = (self.shared.timeout() / 2).clamp(SECOND, 5 * SECOND);
        length.max((self.step_time * STEPS_PER_LEASE).min(MAX_LEASE))
    }

    /// As long, give or take a quarter: so that processes do not all come at the same moment.
    fn jittered(&self, length: Nanos) -> Nanos {
        let random = self.random.hash_one((self.steps, length, self.shared.clock.now()));
        length - length / 4 + random % (length / 2).max(1)
    }

    /// Notes an outage; answers how long to rest.
    fn handle_failure(&mut self, error: &StoreError) -> Nanos {
        self.partition_error = None;
        self.record_error(error);
        if let StoreError::Replaced(_) = error {
            self.reset();
            return 0;
        }
        if !self.store.as_mut().is_some_and(|store| store.recover()) {
            self.store = None;
        }
        backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY, self.failures)
    }

    /// Counts a failure, and reports the first one since the store last worked.
    fn record_error(&mut self, error: &StoreError) {
        self.shared.status.lock().store_errors += 1;
        if self.failures == 0 {
            self.shared.report(error.to_string());
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// A partition has failed by itself.
    fn partition_failed(&mut self, store: &dyn Store, partition: Partition, error: StoreError) {
        let now = self.shared.clock.now();
        if let StoreError::Replaced(_) = error {
            self.shared.log.lock().forget_partition(partition);
            self.resend(store, Some(partition));
            if let Some(partition_state) = self.partitions.get_mut(usize::from(partition)) {
                *partition_state = PartitionState { last_ok_at: now, ..PartitionState::NEW };
            }
        } else if let Some(partition_state) = self.partitions.get_mut(usize::from(partition)) {
            partition_state.retry_at = now + PARTITION_RETRY_DELAY;
        }
        self.partition_error.get_or_insert(error);
    }

    /// Tells the store again of everybody who was online when their partition last answered: of one partition, or all.
    fn resend(&self, store: &dyn Store, partition: Option<Partition>) {
        let well_with = |id: &_| {
            let its = store.partition_of(id);
            self.partition(its)
                .filter(|_| partition.is_none_or(|partition| partition == its))
                .map(|partition_state| partition_state.last_ok_at)
        };
        self.shared.coalescer.resend(self.shared.clock.now(), well_with, &self.shared.outbox);
    }

    /// The store has lost what it knew: of the users who beat here it is told again, of the events nobody can.
    fn reset(&mut self) {
        let shared = self.shared;
        let mut log = shared.log.lock();
        for (partition, _) in (0..).zip(&self.partitions) {
            log.forget_partition(partition);
        }
        drop(log);
        if let Ok(token) = draw_token() {
            *shared.token.lock() = token;
        }
        if let Some(store) = &self.store {
            self.resend(&**store, None);
        }
        self.partitions.clear();
    }

    /// Before a fork. Who has never beaten does not go on after it, and need not keep others from delivering.
    fn release_for_fork(&mut self) {
        let has_seen_heartbeat = self.shared.has_seen_heartbeat.load(std::sync::atomic::Ordering::Relaxed);
        if has_seen_heartbeat || self.store.is_none() {
            return;
        }
        let parted = self.with_store(|state, store| {
            state.commit(store)?;
            state.release_leases(store)
        });
        // What fails here mends itself: an event comes twice, a lease ends when its time is over.
        if parted.is_err() {
            self.shared.status.lock().store_errors += 1;
        }
        let mut log = self.shared.log.lock();
        (0..).zip(&self.partitions).for_each(|(partition, _)| log.forget_partition(partition));
    }

    /// The last state: writes everything, and gives the leases back. Answers how long to rest, or `None` when it is done.
    fn shut_down(&mut self) -> Option<Nanos> {
        let shared = self.shared;
        let now = shared.clock.now();
        let until = *self.shutdown_deadline.get_or_insert_with(|| now.saturating_add(SHUTDOWN_TIMEOUT));
        shared.coalescer.enqueue_unwritten(now, &shared.outbox);
        let parted =
            self.with_store(Self::shut_down_with).and_then(|()| self.partition_error.take().map_or(Ok(()), Err));
        let unwritten = shared.outbox.lock().len();
        let is_over = shared.clock.now() >= until;
        match parted {
            // A partition that has failed is tried again.
            Ok(()) if unwritten > 0 && !is_over => return Some(50 * MILLISECOND),
            // What a callback is being called for is noted first: else somebody else would deliver it again.
            Ok(()) if shared.log.lock().is_busy() => return Some(5 * MILLISECOND),
            Ok(()) if unwritten == 0 => {}
            Ok(()) => shared.report(format!("{}{UNWRITTEN} {unwritten}", shared.store_url)),
            Err(error) if !is_over => return Some(self.handle_failure(&error).min(50 * MILLISECOND)),
            Err(error) => shared.report(format!("{error}{UNWRITTEN} {unwritten}")),
        }
        self.store = None;
        let log = shared.log.lock();
        *shared.phase.lock() = Phase::Ended;
        shared.signal.raise();
        drop(log);
        None
    }

    fn shut_down_with(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        while self.write(store)? {}
        self.commit(store)?;
        if self.shared.log.lock().is_busy() {
            return self.poll(store, |state, now, request| {
                let is_due =
                    state.partition(request.partition).is_some_and(|partition_state| partition_state.lease_at <= now);
                let is_leased = state.shared.log.lock().is_leased(request.partition);
                (is_due && is_leased).then_some(PollRequest { lease: LeaseRequest::Renew, ..request })
            });
        }
        self.release_leases(store)
    }

    /// Gives back all leases.
    fn release_leases(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        self.poll(store, |_, _, request| Some(PollRequest { lease: LeaseRequest::Release, ..request }))?;
        store.deregister(&self.membership())
    }
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
