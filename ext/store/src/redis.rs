//! The store for several machines: a Redis, a Valkey, or a cluster of them.
//!
//! Over 400 lines: it calls the scripts and reads their answers, whose form is agreed upon in one place.
//!
//! The users are in 16 partitions by a hash of their id. What belongs to a partition is in keys that share a hash tag, and
//! changes by scripts, each of which runs in one step by the server's clock. A partition knows its *epoch*, the time when
//! its first key was made: that is how a process learns that the data it knew are lost.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use online_manager_tracker::{Nanos, Reason, Transition};
use redis::{Cmd, FromRedisValue, Value};

use crate::error::StoreError;
use crate::id::UserId;
use crate::interrupt::Interrupt;
use crate::store::{
    Commit, DeadLetter, Event, LeaseRequest, LeaseState, Membership, Partition, PollRequest, PollResult, Snapshot,
    Store, Sweep, Token, Write, WriteResult,
};

mod connection;
mod scripts;
pub(crate) mod url;

use connection::{Call, Connection};
use scripts::{Keys, Script};
use url::ServerUrls;

/// Enough for as many processes to deliver side by side; so many keys of each kind there are.
const PARTITIONS: Partition = 16;

const MILLISECOND: Nanos = 1_000_000;

/// How often a member requests what the others have written, and how often it does when nothing happens.
const POLL_INTERVAL: Nanos = 20 * MILLISECOND;
const IDLE_POLL_INTERVAL: Nanos = 100 * MILLISECOND;

/// How often it asks whether a lease that another has is free, as long as there is a partition for each process. With more
/// processes each asks less often: one of them is enough to find a lease that has become free.
const LEASE_POLL_INTERVAL: Nanos = 250 * MILLISECOND;

/// No script is about more users, so that none holds up the server for long.
const HEARTBEATS_PER_SCRIPT: usize = 200;
const EVENTS_PER_SCRIPT: usize = 256;

/// How many users are asked for at a time by who reads them all.
const SCAN_COUNT: usize = 1_000;

/// The longest timeout that a script can reckon with, in microseconds: some 250 years.
const MAX_MICROS: u64 = 8_000_000_000_000_000;

/// How scores are made: see `partition.lua`.
const CLASSES: u64 = 1024;

/// A Redis, as one namespace sees it.
pub struct Redis {
    connection: Connection,
    keys: Vec<Keys>,
    members: String,
    /// Which data each partition had when it was last asked. Empty if it has not been.
    epochs: Vec<String>,
    /// How many processes take part, when they were last counted.
    processes: u16,
}

impl Redis {
    /// Connects.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]. No message contains a password.
    pub fn open(servers: &ServerUrls, namespace: &str, interrupt: &Interrupt) -> Result<Redis, StoreError> {
        Ok(Redis {
            connection: Connection::open(servers, interrupt)?,
            keys: (0..PARTITIONS).map(|partition| Keys::new(namespace, partition)).collect(),
            members: scripts::members(namespace),
            epochs: vec![String::new(); usize::from(PARTITIONS)],
            processes: 1,
        })
    }

    fn keys(&self, partition: Partition) -> impl Iterator<Item = &Keys> {
        self.keys.get(usize::from(partition)).into_iter()
    }

    /// The call of a script on a partition, with what all of them are given first.
    fn call(&self, script: &'static Script, partition: Partition, membership: &Membership) -> Call {
        let keys = self.keys(partition).flat_map(Keys::all);
        let epoch = self.epochs.get(usize::from(partition)).map_or("", String::as_str);
        Call::new(script, keys).arg(epoch).number(micros(membership.timeout))
    }

    /// Calls scripts on partitions, and answers what each has found, without the epoch.
    fn run<T: FromRedisValue>(&mut self, calls: Vec<(Partition, Call)>) -> Result<Vec<OfPartition<T>>, StoreError> {
        let (partitions, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let answers = self.connection.call(&calls)?;
        let of_partition = |(partition, answer): (Partition, Result<Value, StoreError>)| {
            (partition, answer.and_then(|value| self.check_epoch(partition, value)))
        };
        Ok(partitions.into_iter().zip(answers).map(of_partition).collect())
    }

    /// Takes the epoch off an answer. If it is another one than was known, the data are lost.
    fn check_epoch<T: FromRedisValue>(&mut self, partition: Partition, value: Value) -> Result<T, StoreError> {
        let Value::Array(mut parts) = value else { return Err(unexpected_answer()) };
        let rest = parts.split_off(parts.len().min(2));
        let (word, epoch): (String, String) = parse(Value::Array(parts))?;
        if let Some(known) = self.epochs.get_mut(usize::from(partition)) {
            *known = epoch;
        }
        match word.as_str() {
            "ok" => parse(Value::Array(rest)),
            _ => {
                let servers = self.connection.servers();
                let message = format!("{servers}: its data are gone; each process re-sends everyone who was online");
                Err(StoreError::Replaced(message))
            }
        }
    }

    /// The same of one call whose answer is a number: whether one has the lease.
    fn run_one(&mut self, partition: Partition, call: Call) -> Result<bool, StoreError> {
        let answers = self.run::<(i64,)>(vec![(partition, call)])?;
        let (_, answer) = answers.into_iter().next().ok_or_else(unexpected_answer)?;
        answer.map(|(is_held,)| is_held == 1)
    }

    /// Sends one command and reads the answer.
    fn ask<T: FromRedisValue>(&mut self, command: Cmd) -> Result<T, StoreError> {
        let answers = self.connection.send(&[command])?;
        parse(answers.into_iter().next().ok_or_else(unexpected_answer)??)
    }

    fn commits(&self, membership: &Membership, partition: Partition, commit: &Commit) -> Vec<(Partition, Call)> {
        let mut calls = Vec::new();
        let call = || self.call(scripts::commit(), partition, membership).arg(hex(membership.token));
        for done in commit.done.chunks(EVENTS_PER_SCRIPT) {
            let call = done.iter().fold(call().number(done.len()), |call, number| call.number(number));
            calls.push((partition, call));
        }
        for failed in commit.failed.chunks(EVENTS_PER_SCRIPT) {
            let call = failed.iter().fold(call().number(0), |call, (number, failures, error)| {
                call.number(number).number(failures).arg(error)
            });
            calls.push((partition, call));
        }
        calls
    }

    /// Moves events to the dead letters. Answers false if the lease is another's.
    fn dead_letter(
        &mut self,
        membership: &Membership,
        partition: Partition,
        dead: &[(u64, String)],
    ) -> Result<bool, StoreError> {
        let mut given_up = HashMap::with_hasher(RandomState::default());
        for (number, error) in dead {
            let call = self.call(scripts::dead_letter(), partition, membership);
            // In the log still, as are later events of that user, if there are any.
            let ids = self.events_after(partition, *number, true, 1)?;
            if !self.run_one(partition, call.arg(hex(membership.token)).number(number).arg(error))? {
                return Ok(false);
            }
            given_up.extend(ids.into_iter().filter(|entry| entry.number == *number).map(|entry| (entry.id, *number)));
        }
        // From then on the scripts themselves note what overtakes them.
        let Some(first) = given_up.values().min().copied() else { return Ok(true) };
        let superseded = self.keys(partition).map(|keys| keys.superseded.clone()).collect::<String>();
        let mut after = first;
        loop {
            let entries = self.events_after(partition, after, false, EVENTS_PER_SCRIPT)?;
            let Some(last) = entries.last() else { return Ok(true) };
            after = last.number;
            for later in entries.into_iter().filter(|entry| given_up.get(&entry.id).is_some_and(|n| *n < entry.number))
            {
                let mut note = redis::cmd("HSET");
                note.arg(&superseded).arg(later.id.as_slice()).arg(later.version);
                self.ask::<i64>(note)?;
            }
        }
    }

    /// A page of the log, from a number on (or behind it).
    fn events_after(
        &mut self,
        partition: Partition,
        number: u64,
        is_inclusive: bool,
        most: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let key = self.keys(partition).map(|keys| keys.events.clone()).collect::<String>();
        let from = format!("{}{number}-0", if is_inclusive { "" } else { "(" });
        self.page(&key, &from, most)
    }

    fn page(&mut self, key: &str, from: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(key).arg(from).arg("+").arg("COUNT").arg(most);
        let entries: Vec<(String, Fields)> = self.ask(command)?;
        entries.into_iter().map(|(number, fields)| Entry::read(&number, fields)).collect()
    }

    /// All entries of a stream.
    fn pages(&mut self, key: &str) -> Result<Vec<Entry>, StoreError> {
        let mut all = Vec::new();
        let mut from = "-".to_owned();
        loop {
            let mut entries = self.page(key, &from, EVENTS_PER_SCRIPT)?;
            let Some(last) = entries.last() else { return Ok(all) };
            from = format!("({}-0", last.number);
            all.append(&mut entries);
        }
    }

    /// What there is to be known of partitions before their users are read.
    fn summaries(&mut self) -> Result<Vec<Summary>, StoreError> {
        let calls: Vec<Call> = self.keys.iter().map(|keys| Call::new(scripts::summary(), keys.all())).collect();
        let answers = self.connection.call(&calls)?;
        answers.into_iter().map(|answer| answer.and_then(Summary::read)).collect()
    }

    /// Reads all of a hash or a sorted set, in steps: what is in it all the while is in the answer.
    fn scan(&mut self, name: &str, keys: Vec<String>) -> Result<Vec<Pairs>, StoreError> {
        let mut found = vec![Pairs::new(); keys.len()];
        let mut open: Vec<(usize, String, u64)> =
            keys.into_iter().enumerate().map(|(number, key)| (number, key, 0)).collect();
        while !open.is_empty() {
            let command = |(_, key, cursor): &(usize, String, u64)| {
                let mut command = redis::cmd(name);
                command.arg(key).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
                command
            };
            let answers = self.connection.send(&open.iter().map(command).collect::<Vec<_>>())?;
            let mut next = Vec::with_capacity(open.len());
            for ((number, key, _), answer) in open.into_iter().zip(answers) {
                let (cursor, pairs): (u64, Pairs) = parse(answer?)?;
                found.iter_mut().skip(number).take(1).for_each(|all| all.extend(pairs.iter().cloned()));
                if cursor != 0 {
                    next.push((number, key, cursor));
                }
            }
            open = next;
        }
        Ok(found)
    }
}

type OfPartition<T> = (Partition, Result<T, StoreError>);
type Pairs = Vec<(Vec<u8>, String)>;
type Fields = Vec<(String, Vec<u8>)>;

/// An entry of the log or of the dead letters.
struct Entry {
    number: u64,
    id: Vec<u8>,
    kind: String,
    due: i64,
    version: i64,
    failures: u32,
    error: String,
}

impl Entry {
    fn read(number: &str, fields: Fields) -> Result<Entry, StoreError> {
        let number = number.split('-').next().and_then(|number| number.parse().ok()).ok_or_else(unexpected_answer)?;
        let fields: HashMap<String, Vec<u8>> = fields.into_iter().collect();
        let text = |name: &str| fields.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Ok(Entry {
            number,
            id: fields.get("u").cloned().ok_or_else(unexpected_answer)?,
            kind: text("k").unwrap_or_default(),
            due: text("d").and_then(|due| due.parse().ok()).unwrap_or_default(),
            version: text("v").and_then(|version| version.parse().ok()).unwrap_or(number as i64),
            failures: text("f").and_then(|failures| failures.parse().ok()).unwrap_or_default(),
            error: text("e").unwrap_or_default(),
        })
    }

    /// As of a moment of the partition's clock. `None` if a later version of this gem wrote it.
    fn event(&self, now: i64) -> Option<Event> {
        event(self.number, &self.id, &self.kind, now - self.due, self.version, self.failures)
    }
}

fn event(number: u64, id: &[u8], kind: &str, late: i64, version: i64, failures: u32) -> Option<Event> {
    let (transition, reason) = match kind {
        "o" => (Transition::Online, Reason::Heartbeat),
        "l" => (Transition::Offline, Reason::Leave),
        "t" => (Transition::Offline, Reason::Timeout),
        _ => return None,
    };
    let lateness = nanos(late);
    Some(Event { number, id: UserId::from_store(id)?, transition, reason, lateness, version, failures })
}

/// See `summary.lua`.
struct Summary {
    now: i64,
    waiting: u64,
    dead_letters: u64,
    /// For each class of timeouts, in microseconds.
    timeouts: HashMap<u64, i64>,
}

impl Summary {
    fn read(value: Value) -> Result<Summary, StoreError> {
        let (now, waiting, dead_letters, meta): (i64, u64, u64, Vec<(String, String)>) = parse(value)?;
        let timeouts = meta.iter().filter_map(|(name, value)| {
            let class = name.strip_prefix('t')?.parse().ok()?;
            Some((class, value.parse().ok()?))
        });
        Ok(Summary { now, waiting, dead_letters, timeouts: timeouts.collect() })
    }

    /// How long ago a user was seen that has this score.
    fn ago(&self, score: &str) -> Nanos {
        let score = score.parse::<f64>().unwrap_or_default() as u64;
        let timeout = self.timeouts.get(&(score % CLASSES)).copied().unwrap_or_default();
        nanos(self.now - ((score / CLASSES * 1000) as i64 - timeout))
    }

    /// The same of a user with an overflow entry: `SEEN LEFT`.
    fn ago_of_overflow(&self, times: &str) -> Nanos {
        let seen = times.split(' ').next().and_then(|seen| seen.parse().ok());
        nanos(seen.map_or(0, |seen: i64| self.now - seen))
    }
}

impl Store for Redis {
    fn partitions(&self) -> Partition {
        PARTITIONS
    }

    fn partition_of(&self, id: &UserId) -> Partition {
        crc16::State::<crc16::XMODEM>::calculate(id.as_bytes()) % PARTITIONS
    }

    fn poll_interval(&self, is_lively: bool) -> Nanos {
        if is_lively { POLL_INTERVAL } else { IDLE_POLL_INTERVAL }
    }

    fn lease_poll_interval(&self) -> Nanos {
        LEASE_POLL_INTERVAL * u64::from((self.processes / PARTITIONS).max(1))
    }

    fn warnings(&self) -> Vec<String> {
        self.connection.warnings().to_vec()
    }

    fn recover(&mut self) -> bool {
        self.connection.close();
        true
    }

    fn reconnect(&mut self) -> Result<bool, StoreError> {
        self.connection.reconnect()
    }

    fn register(&mut self, membership: &Membership) -> Result<Partition, StoreError> {
        let call = Call::new(scripts::register(), [self.members.as_str()]).arg(hex(membership.token));
        let answers = self.connection.call(&[call.number(millis(membership.lease))])?;
        let processes: u16 = parse(answers.into_iter().next().ok_or_else(unexpected_answer)??)?;
        self.processes = processes.max(1);
        Ok(PARTITIONS.div_ceil(self.processes))
    }

    fn deregister(&mut self, membership: &Membership) -> Result<(), StoreError> {
        let call = Call::new(scripts::register(), [self.members.as_str()]).arg(hex(membership.token)).number(0);
        self.connection.call(&[call])?.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }

    fn write(&mut self, membership: &Membership, messages: &[Write]) -> Result<Vec<WriteResult>, StoreError> {
        let mut of_partitions: HashMap<Partition, Vec<&Write>> = HashMap::new();
        for message in messages {
            of_partitions.entry(self.partition_of(message.id())).or_default().push(message);
        }
        let mut calls = Vec::new();
        for (partition, messages) in &of_partitions {
            for some in messages.chunks(HEARTBEATS_PER_SCRIPT) {
                let call = self.call(scripts::write(), *partition, membership);
                calls.push((*partition, some.iter().fold(call, |call, message| add_write(call, message))));
            }
        }
        let answers = self.run::<(usize,)>(calls)?;
        Ok(answers.into_iter().map(|(partition, answer)| (partition, answer.map(|(appended,)| appended))).collect())
    }

    fn poll(
        &mut self,
        membership: &Membership,
        requests: &[PollRequest],
    ) -> Result<Vec<Result<PollResult, StoreError>>, StoreError> {
        let call = |request: &PollRequest| {
            let lease = match request.lease {
                LeaseRequest::None => "",
                LeaseRequest::Renew => "renew",
                LeaseRequest::Acquire => "acquire",
                LeaseRequest::Release => "release",
            };
            let (after, most) = match request.events {
                None => (String::new(), 0),
                Some((0, most)) => ("-".to_owned(), most),
                Some((last, most)) => (format!("({last}-0"), most),
            };
            let call = self.call(scripts::poll(), request.partition, membership).arg(hex(membership.token)).arg(lease);
            let call = call.number(millis(membership.lease));
            let call = call.number(request.sweep.map_or(-1, |most| most.min(EVENTS_PER_SCRIPT) as i64));
            (request.partition, call.arg(after).number(most.min(EVENTS_PER_SCRIPT)))
        };
        let calls = requests.iter().map(call).collect();
        let answers = self.run::<PollReply>(calls)?;
        Ok(requests
            .iter()
            .zip(answers)
            .map(|(request, (_, answer))| answer.map(|found| poll_result(request, found)))
            .collect())
    }

    fn commit(
        &mut self,
        membership: &Membership,
        commits: &[(Partition, Commit)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        // Before what was done is taken out of the log: perhaps it has superseded who is given_up.
        let mut results: Vec<Result<bool, StoreError>> = Vec::with_capacity(commits.len());
        for (partition, commit) in commits {
            results.push(if commit.dead.is_empty() {
                Ok(true)
            } else {
                self.dead_letter(membership, *partition, &commit.dead)
            });
        }
        let calls = commits.iter().zip(&results).filter(|(_, result)| matches!(result, Ok(true)));
        let calls = calls.flat_map(|((partition, commit), _)| self.commits(membership, *partition, commit)).collect();
        for (partition, answer) in self.run::<(i64,)>(calls)? {
            let place = commits.iter().position(|(known, _)| *known == partition);
            let Some(result) = place.and_then(|place| results.get_mut(place)) else { continue };
            match (answer, &result) {
                (Ok((0,)), Ok(_)) => *result = Ok(false),
                (Err(error), Ok(_)) => *result = Err(error),
                _ => {}
            }
        }
        Ok(results)
    }

    fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        let summaries = self.summaries()?;
        let users = self.scan("ZSCAN", self.keys.iter().map(|keys| keys.users.clone()).collect())?;
        let overflow = self.scan("HSCAN", self.keys.iter().map(|keys| keys.overflow.clone()).collect())?;
        let mut snapshot = Snapshot::default();
        for ((summary, users), overflow) in summaries.into_iter().zip(users).zip(overflow) {
            snapshot.waiting += summary.waiting;
            snapshot.dead_letters += summary.dead_letters;
            let overflow: HashMap<Vec<u8>, String, RandomState> = overflow.into_iter().collect();
            snapshot.users.extend(users.into_iter().filter_map(|(id, score)| {
                let ago = overflow.get(&id).map_or_else(|| summary.ago(&score), |times| summary.ago_of_overflow(times));
                UserId::from_store(&id).map(|id| (id, ago))
            }));
        }
        Ok(snapshot)
    }

    fn waiting(&mut self) -> Result<Vec<Event>, StoreError> {
        let mut waiting = Vec::new();
        let summaries = self.summaries()?;
        for (keys, summary) in self.keys.clone().into_iter().zip(summaries) {
            let mut command = redis::cmd("HGETALL");
            command.arg(&keys.failed);
            let failed: HashMap<u64, String> = self.ask(command)?;
            for entry in self.pages(&keys.events)? {
                let failures = failed.get(&entry.number).and_then(|text| text.split(' ').next()?.parse().ok());
                let entry = Entry { failures: failures.unwrap_or(0), ..entry };
                waiting.extend(entry.event(summary.now));
            }
        }
        Ok(waiting)
    }

    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        let summaries = self.summaries()?;
        for (keys, summary) in self.keys.clone().into_iter().zip(summaries) {
            let mut command = redis::cmd("HGETALL");
            command.arg(&keys.superseded);
            let newest: HashMap<Vec<u8>, i64> = self.ask(command)?;
            for entry in self.pages(&keys.dead)? {
                let is_superseded = newest.get(&entry.id).is_some_and(|newest| *newest > entry.version);
                letters.extend(entry.event(summary.now).map(|event| {
                    let error = entry.error.clone();
                    DeadLetter { event, error, is_superseded }
                }));
            }
        }
        Ok(letters)
    }

    fn requeue_dead_letters(&mut self) -> Result<(usize, usize), StoreError> {
        // Nobody's lease and nobody's timeout: nothing in here is about either.
        let membership = Membership { token: Token([0; 16]), lease: 0, timeout: 0 };
        let (mut revived, mut dropped) = (0, 0);
        let summaries = self.summaries()?;
        for (partition, mut left) in (0..).zip(summaries.into_iter().map(|summary| summary.dead_letters)) {
            while left > 0 {
                let call = self.call(scripts::requeue(), partition, &membership).number(EVENTS_PER_SCRIPT);
                for (_, answer) in self.run::<(usize, usize, u64)>(vec![(partition, call)])? {
                    let (again, superseded, remaining) = answer?;
                    revived += again;
                    dropped += superseded;
                    left = remaining;
                }
            }
        }
        Ok((revived, dropped))
    }
}

/// An event as `poll.lua` tells of it: number, id, kind, lateness, version, failures.
type PollReplyEvent = (u64, Vec<u8>, String, i64, i64, u32);

/// What `poll.lua` answers: whose the lease is, how many were set offline, how late, when the next is due, and the events.
type PollReply = (i64, usize, i64, i64, Vec<PollReplyEvent>);

fn poll_result(request: &PollRequest, (lease, expired, lag, next, events): PollReply) -> PollResult {
    PollResult {
        lease: match lease {
            0 => LeaseState::Free,
            1 => LeaseState::HeldByOther,
            2 => LeaseState::Renewed,
            _ => LeaseState::Acquired,
        },
        sweep: request.sweep.map(|_| Sweep { expired, lag: nanos(lag), next: (next >= 0).then(|| nanos(next)) }),
        // What a future version may have written is left to it.
        events: events
            .into_iter()
            .filter_map(|(number, id, kind, late, version, failures)| {
                event(number, &id, &kind, late, version, failures)
            })
            .collect(),
    }
}

/// Adds a message to a call of `write.lua`.
fn add_write(call: Call, message: &Write) -> Call {
    let id = message.id().as_bytes();
    match message {
        Write::Heartbeat(beat) => call.arg("heartbeat").arg(id).number(beat.age / 1_000).number(micros(beat.timeout)),
        Write::Leave(leave) => call.arg("leave").arg(id).number(leave.age / 1_000).number(micros(leave.after)),
    }
}

fn parse<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    // The error itself quotes the answer, and ids of users may be in it: those belong in no log.
    redis::from_redis_value(value).map_err(|_| unexpected_answer())
}

fn unexpected_answer() -> StoreError {
    StoreError::Unavailable("the store has given a unexpected_answer answer".into())
}

/// Never less, and no more than a script can reckon with.
fn micros(nanos: Nanos) -> u64 {
    nanos.div_ceil(1_000).min(MAX_MICROS)
}

fn millis(nanos: Nanos) -> u64 {
    nanos.div_ceil(MILLISECOND).max(1)
}

fn nanos(micros: i64) -> Nanos {
    (micros.max(0) as Nanos).saturating_mul(1_000)
}

fn hex(token: Token) -> String {
    token.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
