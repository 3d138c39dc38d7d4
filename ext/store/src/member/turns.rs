//! What the member's thread does again and again: it commits what was delivered, writes beats, and looks at the partitions
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
use crate::store::{Lease, Look, Message, Partition, Seen, Store, Terms, Wish};

/// What is written in one step: so the others wait for a few milliseconds, and no longer.
const USERS_AT_ONCE: usize = 1_000;

/// How many users of a partition are set offline in one step.
const EXPIRED_AT_ONCE: usize = 256;

/// The shortest time between two steps that write beats, so that a crowd does not come one by one.
const BREATH: Nanos = 2 * MILLISECOND;

/// How often an unreachable store is tried again: soon at first.
const FIRST_RETRY: Nanos = 100 * MILLISECOND;
const LAST_RETRY: Nanos = 2 * SECOND;

/// When a partition is tried again that has failed by itself.
const PARTITION_RETRY: Nanos = 500 * MILLISECOND;

/// For how long after something has happened more is likely to.
const LIVELY: Nanos = 2 * SECOND;

/// For how long a stop waits for a store that is away.
const FAREWELL: Nanos = 5 * SECOND;

/// What is said then.
const UNWRITTEN: &str = "; so many users had heartbeats that could not be written before the end:";

/// So many turns a lease lasts at the least, however slow the store is.
const TURNS_PER_LEASE: u64 = 8;
const LONGEST_LEASE: Nanos = 60 * SECOND;

/// What the thread knows about a partition. Times are the member's clock's.
#[derive(Clone, Copy)]
struct Watch {
    /// When to ask whose the lease is, or to renew it.
    bid_at: Nanos,
    sweep_at: Nanos,
    fetch_at: Nanos,
    /// Not before then is it to be asked anything: it has failed.
    retry_at: Nanos,
    /// When it last answered.
    well_at: Nanos,
    /// Whether the first look has been noted there. Before that, no beat is written.
    is_open: bool,
    /// Whether the lease is to be had, as far as is known.
    is_free: bool,
    /// Whether the lease is to be given back, when all that was delivered is committed.
    is_retiring: bool,
}

impl Watch {
    /// Of a partition of which nothing is known.
    const NEW: Watch = Watch {
        bid_at: 0,
        sweep_at: 0,
        fetch_at: 0,
        retry_at: 0,
        well_at: 0,
        is_open: false,
        is_free: true,
        is_retiring: false,
    };
}

pub(super) struct Turns<'a, C: Clock, S: Signal> {
    shared: &'a Shared<C, S>,
    store: Option<Box<dyn Store>>,
    watches: Vec<Watch>,
    /// How many partitions this process may have.
    share: usize,
    attend_at: Nanos,
    look_through_at: Nanos,
    /// Until when it is likely that something happens.
    lively_until: Nanos,
    /// How long a turn takes of late in which the store is asked, and how long the latest of them took.
    took: Nanos,
    latest_took: Nanos,
    has_asked: bool,
    turns: u64,
    /// The first error of a partition in this turn.
    trouble: Option<StoreError>,
    /// How often the store has failed since it last did what it was asked for.
    failures: u32,
    /// Until when a stop waits for the store.
    farewell: Option<Nanos>,
    random: RandomState,
}

impl<'a, C: Clock, S: Signal> Turns<'a, C, S> {
    pub(super) fn new(shared: &'a Shared<C, S>) -> Self {
        Turns {
            shared,
            store: None,
            watches: Vec::new(),
            share: 0,
            attend_at: 0,
            look_through_at: 0,
            lively_until: 0,
            took: 0,
            latest_took: 0,
            has_asked: false,
            turns: 0,
            trouble: None,
            failures: 0,
            farewell: None,
            random: RandomState::default(),
        }
    }

    pub(super) fn run(&mut self) {
        loop {
            self.shared.is_rung.store(false, std::sync::atomic::Ordering::Release);
            let phase = *self.shared.phase.lock();
            let rest = match phase {
                Phase::Pausing => return self.stand_down(),
                Phase::Out | Phase::Ended => return,
                Phase::Stopping => match self.part() {
                    Some(rest) => rest,
                    None => return,
                },
                Phase::Running => match self.turn() {
                    Ok(rest) => rest,
                    Err(error) => self.failed(&error),
                },
            };
            self.shared.rest(rest);
        }
    }

    /// One turn; answers how long to rest.
    fn turn(&mut self) -> Result<Nanos, StoreError> {
        let begin = self.shared.clock.now();
        if begin >= self.look_through_at {
            let well = self.watches.iter().map(|watch| watch.well_at).min().unwrap_or(0);
            self.shared.beats.look_through((begin, well), self.shared.timeout(), &self.shared.outbox);
            self.look_through_at = begin + (self.shared.timeout() / 6).clamp(10 * MILLISECOND, 5 * SECOND);
        }
        self.turns += 1;
        let rest = self.with_store(Self::turn_with)?;
        self.note_length(self.shared.clock.now().saturating_sub(begin));
        match self.trouble.take() {
            Some(error) => self.note(&error),
            None => self.failures = 0,
        }
        Ok(rest)
    }

    /// Notes how long a turn took. A slow store makes all of them long in which it is asked. If only one is, the process
    /// stood still meanwhile: to have longer leases would be no help then, and whoever waits for a successor would wait longer.
    fn note_length(&mut self, length: Nanos) {
        if std::mem::take(&mut self.has_asked) {
            self.took = length.min(self.latest_took).max(self.took - self.took / 8);
            self.latest_took = length;
        }
    }

    fn with_store<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut store = match self.store.take() {
            Some(store) => store,
            None => self.shared.location.open(&self.shared.namespace, &self.shared.interrupt)?,
        };
        self.watches.resize(usize::from(store.partitions()), Watch::NEW);
        let result = store.reconnect().and_then(|was_away| {
            if was_away {
                // What it was told last may be lost.
                self.tell_again(&*store, None);
            }
            work(self, &mut *store)
        });
        self.store = Some(store);
        result
    }

    fn turn_with(&mut self, store: &mut dyn Store) -> Result<Nanos, StoreError> {
        self.attend(store)?;
        self.commit(store)?;
        if self.watches.iter().any(|watch| !watch.is_open) {
            // Before the first beat is written: with nobody online there is nobody to be held.
            self.look(store, |turns, _, look| {
                let is_open = turns.watch(look.partition).is_none_or(|watch| watch.is_open);
                (!is_open).then_some(Look { sweep: Some(0), ..look })
            })?;
        }
        let has_more = self.flush(store)?;
        let leeway = self.poll(store) / 2;
        let soon = self.shared.clock.now() + leeway;
        let (mut bids, mut room) = {
            let log = self.shared.log.lock();
            let bids = self.share.saturating_sub(log.leases());
            let fetches =
                |(partition, watch): &(Partition, &Watch)| log.is_leased(*partition) && watch.fetch_at <= soon;
            (bids, Room::new(log.room(), bids + (0..).zip(&self.watches).filter(fetches).count()))
        };
        self.look(store, |turns, now, look| turns.plan((now, leeway), look, &mut bids, &mut room))?;
        Ok(if has_more || self.has_commits() { 0 } else { self.rest(self.poll(store)) })
    }

    /// What is to be looked at in a partition by now.
    /// Where anything is due, so is what will be within a `leeway`: one look is for all of it.
    fn plan(&self, (now, leeway): (Nanos, Nanos), look: Look, bids: &mut usize, room: &mut Room) -> Option<Look> {
        let watch = self.watch(look.partition)?;
        let log = self.shared.log.lock();
        let is_leased = log.is_leased(look.partition);
        let fetch_at = if is_leased { watch.fetch_at } else { Nanos::MAX };
        if now < watch.bid_at.min(watch.sweep_at).min(fetch_at) && !watch.is_retiring {
            return None;
        }
        let now = now + leeway;
        let wish = if watch.is_retiring {
            if log.is_clear(look.partition) { Wish::GiveBack } else { Wish::Keep }
        } else if is_leased {
            if watch.bid_at <= now { Wish::Keep } else { Wish::Nothing }
        } else if watch.is_free && watch.bid_at <= now && *bids > 0 {
            *bids -= 1;
            Wish::Take
        } else {
            Wish::Nothing
        };
        let sweep = (watch.sweep_at <= now).then_some(EXPIRED_AT_ONCE);
        let is_to_fetch = (is_leased && watch.fetch_at <= now && !watch.is_retiring) || wish == Wish::Take;
        let events = Some((log.last(look.partition), if is_to_fetch { room.take() } else { 0 }));
        let events = events.filter(|(_, most)| *most > 0);
        let is_due = watch.bid_at <= now || wish != Wish::Nothing || sweep.is_some() || events.is_some();
        is_due.then_some(Look { wish, sweep, events, ..look })
    }

    /// Looks at those partitions for which there is a plan, and takes in what is found.
    fn look(
        &mut self,
        store: &mut dyn Store,
        mut plan: impl FnMut(&Self, Nanos, Look) -> Option<Look>,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        let count = store.partitions();
        // Another one is first each time, so that a scarce room goes round.
        let first = (self.turns % u64::from(count.max(1))) as Partition;
        let looks: Vec<Look> = (0..count)
            .map(|number| (number + first) % count)
            .filter(|partition| self.watch(*partition).is_some_and(|watch| watch.retry_at <= now))
            .filter_map(|partition| plan(self, now, Look { partition, wish: Wish::Nothing, sweep: None, events: None }))
            .collect();
        if looks.is_empty() {
            return Ok(());
        }
        self.has_asked = true;
        let answers = store.look(&self.terms(), &looks)?;
        for (look, answer) in looks.into_iter().zip(answers) {
            match answer {
                Ok(seen) => self.saw(store, look, seen, now),
                Err(error) => self.partition_failed(store, look.partition, error),
            }
        }
        Ok(())
    }

    fn saw(&mut self, store: &dyn Store, look: Look, seen: Seen, asked_at: Nanos) {
        let shared = self.shared;
        let partition = look.partition;
        let length = self.lease_length();
        let (renewal, next_question) = (self.jittered(length / 3), self.jittered(store.lease_poll()));
        let now = shared.clock.now();
        if !seen.events.is_empty() || seen.sweep.is_some_and(|sweep| sweep.expired > 0) {
            self.lively_until = now + LIVELY;
        }
        let (poll, share) = (self.poll(store), self.share);
        let Some(watch) = self.watches.get_mut(usize::from(partition)) else { return };
        watch.well_at = asked_at;
        watch.is_open = true;
        watch.is_free = seen.lease != Lease::Theirs;
        let mut log = shared.log.lock();
        let was_ours = log.is_leased(partition);
        match (seen.lease, look.wish) {
            (_, Wish::GiveBack) => {
                log.forget(partition);
                watch.is_retiring = false;
                // Others come first.
                watch.bid_at = now + 4 * next_question;
            }
            (Lease::Kept | Lease::Taken, Wish::Keep | Wish::Take) => {
                if seen.lease == Lease::Taken {
                    // Somebody else may have had it, and has delivered what we remember.
                    log.forget(partition);
                }
                // From before the store was asked: so it ends here sooner than there.
                log.leased(partition, asked_at + length - length / 8);
                watch.bid_at = now + renewal;
            }
            (Lease::Theirs, _) if was_ours => {
                log.forget(partition);
                watch.bid_at = now + next_question;
                watch.is_retiring = false;
            }
            (Lease::Kept | Lease::Taken, _) if was_ours => {}
            // It has run out, or is to be had.
            (Lease::Free | Lease::Kept | Lease::Taken, _) if was_ours || log.leases() < share => {
                watch.bid_at = now;
            }
            (_, _) => watch.bid_at = now + next_question,
        }
        let is_ours = log.is_leased(partition);
        if let Some((_, most)) = look.events.filter(|_| is_ours) {
            watch.fetch_at = if seen.events.len() < most { now + poll } else { now };
            log.add(partition, seen.events, now);
        } else if is_ours && !was_ours {
            watch.fetch_at = now;
        }
        drop(log);
        if let Some(sweep) = seen.sweep {
            let timeout = shared.timeout();
            if sweep.expired > 0 {
                shared.changed();
                shared.status.lock().sweep_lag = sweep.lag;
                watch.fetch_at = now;
            }
            // Who has no lease does it too, but seldom: in case whoever has it is gone.
            let often = if is_ours { poll } else { (timeout / 4).max(poll) };
            // A millisecond more, so that whoever is due then is due for any clock.
            let rest = sweep.next.map_or(often, |next| next.saturating_add(MILLISECOND).min(often));
            watch.sweep_at = if look.sweep == Some(sweep.expired) { now } else { now + rest };
        }
    }

    /// When the next partition has to be looked at.
    fn rest(&self, poll: Nanos) -> Nanos {
        let now = self.shared.clock.now();
        let mut rest = poll.min(self.look_through_at.saturating_sub(now));
        let log = self.shared.log.lock();
        let has_room = log.room() > 0;
        for (partition, watch) in (0..).zip(&self.watches) {
            let mut at = watch.bid_at.min(watch.sweep_at);
            if has_room && !watch.is_retiring && log.is_leased(partition) {
                at = at.min(watch.fetch_at);
            }
            rest = rest.min(at.max(watch.retry_at).saturating_sub(now));
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
    fn attend(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        if now < self.attend_at {
            return Ok(());
        }
        self.has_asked = true;
        match store.attend(&self.terms()) {
            Ok(share) => self.share = usize::from(share),
            // Where the processes are counted may be away by itself. All partitions have to be somebody's then too.
            Err(error) if store.partitions() > 1 => {
                self.trouble.get_or_insert(error);
                if self.share == 0 {
                    self.share = self.watches.len();
                }
            }
            Err(error) => return Err(error),
        }
        self.attend_at = now + self.jittered(self.lease_length() / 3);
        let mut log = self.shared.log.lock();
        let mut surplus = log.leases().saturating_sub(self.share);
        for (partition, watch) in (0..).zip(&mut self.watches) {
            watch.is_retiring = surplus > 0 && log.is_leased(partition);
            if watch.is_retiring {
                surplus -= 1;
                log.retire(partition);
            }
        }
        Ok(())
    }

    /// Takes what was delivered out of the store's log.
    fn commit(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        let shared = self.shared;
        let now = shared.clock.now();
        let commits = shared.log.lock().take_commits(|partition| self.is_up(partition, now));
        if commits.is_empty() {
            return Ok(());
        }
        self.has_asked = true;
        let answers = match store.commit(&self.terms(), &commits) {
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
                Ok(is_ours) => {
                    log.committed(&commit);
                    if !is_ours {
                        log.forget(partition);
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
        self.shared.log.lock().has_commits(|partition| self.is_up(partition, now))
    }

    /// Writes beats and leaves. Answers whether there are more that can be written now.
    fn flush(&mut self, store: &mut dyn Store) -> Result<bool, StoreError> {
        let shared = self.shared;
        let taken = shared.outbox.lock().take(USERS_AT_ONCE);
        if taken.is_empty() {
            return Ok(false);
        }
        let now = shared.clock.now();
        let (taken, held) = taken.part(|id| self.is_up(store.partition_of(id), now));
        shared.outbox.lock().put_back(held);
        // A tick more: times are kept in ticks here.
        let messages = taken.messages(now, shared.clock.jitter() + TICK);
        if messages.is_empty() {
            return Ok(false);
        }
        self.has_asked = true;
        let told = match store.flush(&self.terms(), &messages) {
            Ok(told) => told,
            Err(error) => {
                shared.outbox.lock().put_back(taken);
                return Err(error);
            }
        };
        for message in &messages {
            // Somebody may be due now.
            if let Message::Leave(leave) = message
                && let Some(watch) = self.watches.get_mut(usize::from(store.partition_of(&leave.id)))
            {
                watch.sweep_at = 0;
            }
        }
        let mut failed = Vec::new();
        self.lively_until = now + LIVELY;
        for (partition, result) in told {
            match result {
                Ok(0) => {}
                Ok(_) => {
                    self.watches.iter_mut().skip(usize::from(partition)).take(1).for_each(|watch| watch.fetch_at = 0)
                }
                Err(error) => failed.push((partition, error)),
            }
        }
        let (_, untaken) = taken.part(|id| failed.iter().all(|(partition, _)| *partition != store.partition_of(id)));
        shared.outbox.lock().put_back(untaken);
        failed.into_iter().for_each(|(partition, error)| self.partition_failed(store, partition, error));
        shared.changed();
        let is_empty = shared.outbox.lock().is_empty();
        if is_empty {
            // Others may be about to beat too.
            thread::sleep(Duration::from_nanos(BREATH));
        }
        Ok(!is_empty)
    }

    fn poll(&self, store: &dyn Store) -> Nanos {
        store.poll(self.shared.clock.now() < self.lively_until)
    }

    fn watch(&self, partition: Partition) -> Option<&Watch> {
        self.watches.get(usize::from(partition))
    }

    fn is_up(&self, partition: Partition, now: Nanos) -> bool {
        self.watch(partition).is_none_or(|watch| watch.retry_at <= now)
    }

    fn terms(&self) -> Terms {
        Terms { token: *self.shared.token.lock(), lease: self.lease_length(), timeout: self.shared.timeout() }
    }

    /// Long enough for a busy machine or a slow store, short enough for who waits for a successor.
    fn lease_length(&self) -> Nanos {
        let length = (self.shared.timeout() / 2).clamp(SECOND, 5 * SECOND);
        length.max((self.took * TURNS_PER_LEASE).min(LONGEST_LEASE))
    }

    /// As long, give or take a quarter: so that processes do not all come at the same moment.
    fn jittered(&self, length: Nanos) -> Nanos {
        let random = self.random.hash_one((self.turns, length, self.shared.clock.now()));
        length - length / 4 + random % (length / 2).max(1)
    }

    /// Notes an outage; answers how long to rest.
    fn failed(&mut self, error: &StoreError) -> Nanos {
        self.trouble = None;
        self.note(error);
        if let StoreError::Replaced(_) = error {
            self.begin_anew();
            return 0;
        }
        if !self.store.as_mut().is_some_and(|store| store.recover()) {
            self.store = None;
        }
        backoff(FIRST_RETRY, LAST_RETRY, self.failures)
    }

    /// Counts a failure, and reports the first one since the store last worked.
    fn note(&mut self, error: &StoreError) {
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
            self.shared.log.lock().forget(partition);
            self.tell_again(store, Some(partition));
            if let Some(watch) = self.watches.get_mut(usize::from(partition)) {
                *watch = Watch { well_at: now, ..Watch::NEW };
            }
        } else if let Some(watch) = self.watches.get_mut(usize::from(partition)) {
            watch.retry_at = now + PARTITION_RETRY;
        }
        self.trouble.get_or_insert(error);
    }

    /// Tells the store again of everybody who was online when their partition last answered: of one partition, or all.
    fn tell_again(&self, store: &dyn Store, partition: Option<Partition>) {
        let well_with = |id: &_| {
            let its = store.partition_of(id);
            self.watch(its).filter(|_| partition.is_none_or(|partition| partition == its)).map(|watch| watch.well_at)
        };
        self.shared.beats.tell_again(self.shared.clock.now(), well_with, &self.shared.outbox);
    }

    /// The store has lost what it knew: of the users who beat here it is told again, of the events nobody can.
    fn begin_anew(&mut self) {
        let shared = self.shared;
        let mut log = shared.log.lock();
        for (partition, _) in (0..).zip(&self.watches) {
            log.forget(partition);
        }
        drop(log);
        if let Ok(token) = draw_token() {
            *shared.token.lock() = token;
        }
        if let Some(store) = &self.store {
            self.tell_again(&**store, None);
        }
        self.watches.clear();
    }

    /// Before a fork. Who has never beaten does not go on after it, and need not keep others from delivering.
    fn stand_down(&mut self) {
        let has_beaten = self.shared.has_beaten.load(std::sync::atomic::Ordering::Relaxed);
        if has_beaten || self.store.is_none() {
            return;
        }
        let parted = self.with_store(|turns, store| {
            turns.commit(store)?;
            turns.give_back(store)
        });
        // What fails here mends itself: an event comes twice, a lease ends when its time is over.
        if parted.is_err() {
            self.shared.status.lock().store_errors += 1;
        }
        let mut log = self.shared.log.lock();
        (0..).zip(&self.watches).for_each(|(partition, _)| log.forget(partition));
    }

    /// The last turns: writes everything, and gives the leases back. Answers how long to rest, or `None` when it is done.
    fn part(&mut self) -> Option<Nanos> {
        let shared = self.shared;
        let now = shared.clock.now();
        let until = *self.farewell.get_or_insert_with(|| now.saturating_add(FAREWELL));
        shared.beats.tell_rest(now, &shared.outbox);
        let parted = self.with_store(Self::part_from).and_then(|()| self.trouble.take().map_or(Ok(()), Err));
        let unwritten = shared.outbox.lock().len();
        let is_over = shared.clock.now() >= until;
        match parted {
            // A partition that has failed is tried again.
            Ok(()) if unwritten > 0 && !is_over => return Some(50 * MILLISECOND),
            // What a callback is being called for is noted first: else somebody else would deliver it again.
            Ok(()) if shared.log.lock().is_busy() => return Some(5 * MILLISECOND),
            Ok(()) if unwritten == 0 => {}
            Ok(()) => shared.report(format!("{}{UNWRITTEN} {unwritten}", shared.location)),
            Err(error) if !is_over => return Some(self.failed(&error).min(50 * MILLISECOND)),
            Err(error) => shared.report(format!("{error}{UNWRITTEN} {unwritten}")),
        }
        self.store = None;
        let log = shared.log.lock();
        *shared.phase.lock() = Phase::Ended;
        shared.signal.raise();
        drop(log);
        None
    }

    fn part_from(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        while self.flush(store)? {}
        self.commit(store)?;
        if self.shared.log.lock().is_busy() {
            return self.look(store, |turns, now, look| {
                let is_due = turns.watch(look.partition).is_some_and(|watch| watch.bid_at <= now);
                let is_leased = turns.shared.log.lock().is_leased(look.partition);
                (is_due && is_leased).then_some(Look { wish: Wish::Keep, ..look })
            });
        }
        self.give_back(store)
    }

    /// Gives back all leases.
    fn give_back(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        self.look(store, |_, _, look| Some(Look { wish: Wish::GiveBack, ..look }))?;
        store.depart(&self.terms())
    }
}

/// How many events may be fetched, shared out among partitions.
struct Room {
    left: usize,
    each: usize,
}

impl Room {
    fn new(left: usize, partitions: usize) -> Room {
        Room { left, each: left.div_ceil(partitions.max(1)) }
    }

    fn take(&mut self) -> usize {
        let taken = self.left.min(self.each);
        self.left -= taken;
        taken
    }
}
