//! The store for several machines: a Redis, a Valkey, or a cluster of them.
//!
//! The users are in 16 partitions by a hash of their id. What belongs to a partition is in keys that share a hash tag, and
//! changes by scripts, each of which runs in one step by the server's clock. A partition knows its *epoch*, the time when
//! its first key was made: that is how a process learns that the data it knew are lost.

use std::collections::HashMap;

use online_manager_tracker::Nanos;
use redis::{Cmd, FromRedisValue, Value};

use crate::error::StoreError;
use crate::id::UserId;
use crate::interrupt::Interrupt;
use crate::store::{
    Commit, DeadLetter, Event, LeaseRequest, Membership, Partition, PollRequest, PollResult, Snapshot, Store, Token,
    Write, WriteResult, Written,
};

mod connection;
mod events;
mod replies;
mod scripts;
mod snapshot;
pub(crate) mod url;

use connection::{Call, Connection};
use replies::{PollReply, parse, poll_result, unexpected_reply};
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

/// The longest timeout that a script can reckon with, in microseconds: some 250 years.
const MAX_MICROS: u64 = 8_000_000_000_000_000;

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
    fn call_partitions<T: FromRedisValue>(
        &mut self,
        calls: Vec<(Partition, Call)>,
    ) -> Result<Vec<PartitionReply<T>>, StoreError> {
        let (partitions, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let replies = self.connection.call(&calls)?;
        let with_partition = |(partition, reply): (Partition, Result<Value, StoreError>)| {
            (partition, reply.and_then(|value| self.check_epoch(partition, value)))
        };
        Ok(partitions.into_iter().zip(replies).map(with_partition).collect())
    }

    /// Takes the epoch off an answer. If it is another one than was known, the data are lost.
    fn check_epoch<T: FromRedisValue>(&mut self, partition: Partition, value: Value) -> Result<T, StoreError> {
        let Value::Array(mut parts) = value else { return Err(unexpected_reply()) };
        let rest = parts.split_off(parts.len().min(2));
        let (status, epoch): (String, String) = parse(Value::Array(parts))?;
        if let Some(last_epoch) = self.epochs.get_mut(usize::from(partition)) {
            *last_epoch = epoch;
        }
        match status.as_str() {
            "ok" => parse(Value::Array(rest)),
            _ => {
                let servers = self.connection.servers();
                let message = format!("{servers}: its data are gone; each process re-sends everyone who was online");
                Err(StoreError::Replaced(message))
            }
        }
    }

    /// The same of one call whose answer is a number: whether one has the lease.
    fn call_partition(&mut self, partition: Partition, call: Call) -> Result<bool, StoreError> {
        let replies = self.call_partitions::<(i64,)>(vec![(partition, call)])?;
        let (_, reply) = replies.into_iter().next().ok_or_else(unexpected_reply)?;
        reply.map(|(is_held,)| is_held == 1)
    }

    /// Sends one command and reads the answer.
    fn send_command<T: FromRedisValue>(&mut self, command: Cmd) -> Result<T, StoreError> {
        let replies = self.connection.send(&[command])?;
        parse(replies.into_iter().next().ok_or_else(unexpected_reply)??)
    }
}

type PartitionReply<T> = (Partition, Result<T, StoreError>);

impl Store for Redis {
    fn partitions(&self) -> Partition {
        PARTITIONS
    }

    fn partition_of(&self, id: &UserId) -> Partition {
        id.partition(PARTITIONS)
    }

    fn poll_interval(&self, is_active: bool) -> Nanos {
        if is_active { POLL_INTERVAL } else { IDLE_POLL_INTERVAL }
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
        let replies = self.connection.call(&[call.number(millis(membership.lease))])?;
        let processes: u16 = parse(replies.into_iter().next().ok_or_else(unexpected_reply)??)?;
        self.processes = processes.max(1);
        Ok(PARTITIONS.div_ceil(self.processes))
    }

    fn deregister(&mut self, membership: &Membership) -> Result<(), StoreError> {
        let call = Call::new(scripts::register(), [self.members.as_str()]).arg(hex(membership.token)).number(0);
        self.connection.call(&[call])?.into_iter().try_for_each(|reply| reply.map(|_| ()))
    }

    fn write(&mut self, membership: &Membership, writes: &[Write]) -> Result<Vec<WriteResult>, StoreError> {
        let mut by_partition: HashMap<Partition, Vec<&Write>> = HashMap::new();
        for write in writes {
            by_partition.entry(self.partition_of(write.id())).or_default().push(write);
        }
        let mut calls = Vec::new();
        for (partition, writes) in &by_partition {
            for chunk in writes.chunks(HEARTBEATS_PER_SCRIPT) {
                let call = self.call(scripts::write(), *partition, membership);
                calls.push((*partition, chunk.iter().fold(call, |call, write| add_write(call, write))));
            }
        }
        let replies = self.call_partitions::<(usize,)>(calls)?;
        let written = |(appended,)| Written { appended, ..Written::default() };
        Ok(replies.into_iter().map(|(partition, reply)| (partition, reply.map(written))).collect())
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
            let (after, limit) = match request.events {
                None => (String::new(), 0),
                Some((0, limit)) => ("-".to_owned(), limit),
                Some((last, limit)) => (format!("({last}-0"), limit),
            };
            let call = self.call(scripts::poll(), request.partition, membership).arg(hex(membership.token)).arg(lease);
            let call = call.number(millis(membership.lease));
            let call = call.number(request.sweep.map_or(-1, |limit| limit.min(EVENTS_PER_SCRIPT) as i64));
            (request.partition, call.arg(after).number(limit.min(EVENTS_PER_SCRIPT)))
        };
        let calls = requests.iter().map(call).collect();
        let replies = self.call_partitions::<PollReply>(calls)?;
        Ok(requests
            .iter()
            .zip(replies)
            .map(|(request, (_, reply))| reply.map(|found| poll_result(request, found)))
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
        let calls =
            calls.flat_map(|((partition, commit), _)| self.commit_calls(membership, *partition, commit)).collect();
        for (partition, reply) in self.call_partitions::<(i64,)>(calls)? {
            let index = commits.iter().position(|(other, _)| *other == partition);
            let Some(result) = index.and_then(|index| results.get_mut(index)) else { continue };
            match (reply, &result) {
                (Ok((0,)), Ok(_)) => *result = Ok(false),
                (Err(error), Ok(_)) => *result = Err(error),
                _ => {}
            }
        }
        Ok(results)
    }

    fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        self.read_snapshot()
    }

    fn undelivered_events(&mut self) -> Result<Vec<Event>, StoreError> {
        self.read_log()
    }

    fn dead_letters(&mut self) -> Result<Vec<DeadLetter>, StoreError> {
        self.read_dead_letters()
    }

    fn requeue_dead_letters(&mut self) -> Result<(usize, usize), StoreError> {
        self.requeue()
    }
}

/// Adds a message to a call of `write.lua`.
fn add_write(call: Call, write: &Write) -> Call {
    let id = write.id().as_bytes();
    match write {
        Write::Heartbeat(heartbeat) => {
            call.arg("heartbeat").arg(id).number(heartbeat.age / 1_000).number(micros(heartbeat.timeout))
        }
        Write::Leave(leave) => call.arg("leave").arg(id).number(leave.age / 1_000).number(micros(leave.after)),
    }
}

/// Never less, and no more than a script can reckon with.
fn micros(nanos: Nanos) -> u64 {
    nanos.div_ceil(1_000).min(MAX_MICROS)
}

fn millis(nanos: Nanos) -> u64 {
    nanos.div_ceil(MILLISECOND).max(1)
}

fn hex(token: Token) -> String {
    token.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
