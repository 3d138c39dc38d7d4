//! The store for several machines: a Redis or Valkey server, or a Redis Cluster.
//!
//! A hash of the id puts each user into one of 16 partitions. The keys of a partition share a hash tag, and only
//! scripts change them: each runs in one atomic step, by the server's clock. A partition keeps its *epoch*, the time
//! when its first key was created: a member that knows another epoch learns that the data is lost.

use std::collections::HashMap;

use online_manager_tracker::Nanos;
use redis::{Cmd, FromRedisValue, Value};

use crate::error::StoreError;
use crate::id::UserId;
use crate::interrupt::Interrupt;
use crate::store::{
    Commit, DeadLetter, Event, Handled, Known, LeaseRequest, Membership, Partition, PollRequest, PollResult, Purpose,
    Snapshot, Store, StoreSummary, Token, Write, WriteResult, Written,
};
use crate::store_url::Access;

mod cluster;
mod connection;
mod errors;
mod events;
mod operator;
mod permissions;
mod replies;
mod request;
mod scripts;
mod server;
mod slots;
mod snapshot;
mod tls;
pub(crate) mod url;

use connection::Connection;
use replies::{PollReply, parse, poll_result, unexpected_reply};
use request::Call;
use scripts::{Keys, Script};
use url::ServerUrls;

/// The number of partitions: as many processes can deliver at the same time, and there are as many keys of each kind.
const PARTITIONS: Partition = 16;

const MILLISECOND: Nanos = 1_000_000;

/// How often a lease holder polls its partitions while something happens.
const POLL_INTERVAL: Nanos = 20 * MILLISECOND;
/// How often a lease holder polls its partitions while nothing happens. Each poll is a script that the server runs.
const IDLE_POLL_INTERVAL: Nanos = 100 * MILLISECOND;

/// How often a member asks whether another member's lease is free, as long as there are no more members than
/// partitions. With more members each asks less often: one of them is enough to find a free lease.
const LEASE_POLL_INTERVAL: Nanos = 250 * MILLISECOND;

/// The maximum number of heartbeats and leaves in a call of a script: the server runs nothing else meanwhile.
const HEARTBEATS_PER_SCRIPT: usize = 200;
/// The maximum number of events or expired users in a call of a script.
const EVENTS_PER_SCRIPT: usize = 256;

/// The longest timeout that the scripts can use, in microseconds: 253 years. Lua's numbers are exact up to 2^53, and a
/// time of today is added.
const MAX_MICROS: u64 = 8_000_000_000_000_000;

/// A connection to Redis, for one namespace.
pub struct Redis {
    connection: Connection,
    keys: Vec<Keys>,
    members: String,
    /// The number of registered members in the last reply.
    processes: u16,
}

impl Redis {
    /// Connects. Blocks until the connection is there, the timeout has passed, or `interrupt` is raised.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the server cannot be reached or used, and [`StoreError::Missing`] if a namespace without a key is
    /// to be inspected. No message contains a password.
    pub fn open(
        servers: &ServerUrls,
        namespace: &str,
        access: Access,
        interrupt: &Interrupt,
    ) -> Result<Redis, StoreError> {
        let prefix = servers.prefix();
        let mut store = Redis {
            connection: Connection::open(servers, (access == Access::Participate).then_some(namespace), interrupt)?,
            keys: (0..PARTITIONS).map(|partition| Keys::new(prefix, namespace, partition)).collect(),
            members: scripts::members(prefix, namespace),
            processes: 1,
        };
        if access == Access::Inspect && !store.exists()? {
            return Err(store.missing(namespace)?);
        }
        Ok(store)
    }

    /// Connects, and returns warnings for the operator about servers that can be used.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the server cannot be reached or used, or its user lacks a permission that members need.
    pub fn check(servers: &ServerUrls, namespace: &str, interrupt: &Interrupt) -> Result<Vec<String>, StoreError> {
        Ok(Connection::open(servers, Some(namespace), interrupt)?.warnings().to_vec())
    }

    fn keys(&self, partition: Partition) -> impl Iterator<Item = &Keys> {
        self.keys.get(usize::from(partition)).into_iter()
    }

    /// Builds a call of a script on a partition, with the arguments that all scripts have in common.
    fn call(&self, script: &'static Script, partition: Partition, membership: &Membership) -> Call {
        let keys = self.keys(partition).flat_map(Keys::all);
        let Known { epoch, generation, last } = membership.known(partition);
        let call = Call::new(script, keys).number(epoch).number(generation).number(last);
        call.number(micros(membership.timeout)).number(micros(membership.lease))
    }

    /// Calls scripts on partitions, all at once. Returns their replies in order, and what is known of each partition
    /// from then on.
    fn call_partitions<T: FromRedisValue>(
        &mut self,
        calls: Vec<(Partition, Call)>,
    ) -> Result<Vec<PartitionReply<T>>, StoreError> {
        let (partitions, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let replies = self.connection.call(&calls)?;
        let read = |reply: Result<Value, StoreError>| reply.and_then(|value| self.read_reply(value));
        Ok(partitions.into_iter().zip(replies.into_iter().map(read)).collect())
    }

    /// Takes status, epoch, generation and last number off a reply. Fails with [`StoreError::Replaced`] if the data are
    /// others than the call named.
    fn read_reply<T: FromRedisValue>(&self, value: Value) -> Result<(T, Known), StoreError> {
        let Value::Array(mut parts) = value else { return Err(unexpected_reply()) };
        let rest = parts.split_off(parts.len().min(4));
        if parts.len() < 4 {
            let servers = self.connection.servers();
            let message = format!(
                "{servers}: its data are lost, or older than those that this process knew; each process writes everyone \
                 who was online again"
            );
            return Err(StoreError::Replaced(message));
        }
        let (_, epoch, generation, last): (String, u64, u64, u64) = parse(Value::Array(parts))?;
        Ok((parse(Value::Array(rest))?, Known { epoch, generation, last }))
    }

    /// Sends one command and parses the reply.
    fn send_command<T: FromRedisValue>(&mut self, command: Cmd) -> Result<T, StoreError> {
        let replies = self.connection.send(&[command])?;
        parse(replies.into_iter().next().ok_or_else(unexpected_reply)??)
    }
}

type PartitionReply<T> = (Partition, Result<(T, Known), StoreError>);

/// See [`StoreUrl::min_timeout`](crate::StoreUrl::min_timeout). A partition that is polled each [`IDLE_POLL_INTERVAL`] and
/// notes a sweep each eighth of the timeout must not look as if nobody had swept it for half a timeout: that takes 8/3
/// of the interval, 267 ms, and the rest is for a busy machine. On one with two cores and a load of 13, users went offline
/// up to 7 % late at 500 ms, 9 % at 300 ms, 39 % at 200 ms and more at 100 ms. None went offline early.
pub(crate) const MIN_TIMEOUT: Nanos = 500_000_000;

impl Store for Redis {
    fn summary(&mut self) -> Result<StoreSummary, StoreError> {
        self.read_summary()
    }

    fn purge(&mut self, is_forced: bool) -> Result<bool, StoreError> {
        self.delete_all(is_forced)
    }

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

    fn recover(&mut self) -> bool {
        self.connection.close();
        true
    }

    fn reconnect(&mut self) -> Result<bool, StoreError> {
        self.connection.reconnect()
    }

    fn register(&mut self, membership: &Membership) -> Result<Partition, StoreError> {
        let call = Call::new(scripts::register(), [self.members.as_str()]).arg(member(membership));
        let replies = self.connection.call(&[call.number(millis(membership.lease).max(1))])?;
        let processes: u16 = parse(replies.into_iter().next().ok_or_else(unexpected_reply)??)?;
        self.processes = processes.max(1);
        Ok(PARTITIONS.div_ceil(self.processes))
    }

    fn deregister(&mut self, membership: &Membership) -> Result<(), StoreError> {
        let call = Call::new(scripts::register(), [self.members.as_str()]).arg(member(membership)).number(0);
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
        let written = |((appended,), known)| Written { appended, known };
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
            let call = call.number(request.sweep.map_or(-1, |limit| limit.min(EVENTS_PER_SCRIPT) as i64));
            let call = call.arg(after).number(limit.min(EVENTS_PER_SCRIPT));
            let call = call.arg(request.notices_after.map_or_else(String::new, |after| after.to_string()));
            (request.partition, add_handled(call, request.handled.as_ref()))
        };
        let calls = requests.iter().map(call).collect();
        let replies = self.call_partitions::<PollReply>(calls)?;
        Ok(requests
            .iter()
            .zip(replies)
            .map(|(request, (_, reply))| reply.map(|(found, known)| poll_result(request, found, known)))
            .collect())
    }

    fn commit(
        &mut self,
        membership: &Membership,
        commits: &[(Partition, Commit)],
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        // Before delivered events leave the log: one of them may supersede a dead letter.
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
        for (partition, reply) in self.call_partitions::<(u8,)>(calls)? {
            let index = commits.iter().position(|(other, _)| *other == partition);
            let Some(result) = index.and_then(|index| results.get_mut(index)) else { continue };
            match (reply, &result) {
                (Ok(((0,), _)), Ok(_)) => *result = Ok(false),
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

/// Adds a write to a call of `write.lua`.
fn add_write(call: Call, write: &Write) -> Call {
    let id = write.id().as_bytes();
    match write {
        Write::Heartbeat(heartbeat) => {
            let kind = match heartbeat.purpose {
                Purpose::Prolong => "prolong",
                Purpose::Report => "heartbeat",
                Purpose::Resend => "resend",
            };
            call.arg(kind).arg(id).number(heartbeat.age / 1_000).number(millis(heartbeat.timeout))
        }
        Write::Leave(leave) => call.arg("leave").arg(id).number(leave.age / 1_000).number(millis(leave.after)),
    }
}

/// Adds to a call of `poll.lua` what the member delivered before the data went back.
fn add_handled(call: Call, handled: Option<&Handled>) -> Call {
    let Some(Handled { epoch, through, except }) = handled else { return call.number(0).number(0) };
    except.iter().fold(call.number(epoch).number(through), |call, number| call.number(number))
}

/// Converts to microseconds, rounded up, at most [`MAX_MICROS`].
fn micros(nanos: Nanos) -> u64 {
    nanos.div_ceil(1_000).min(MAX_MICROS)
}

/// Converts to milliseconds, rounded up, at most [`MAX_MICROS`].
fn millis(nanos: Nanos) -> u64 {
    nanos.div_ceil(MILLISECOND).min(MAX_MICROS / 1_000)
}

/// Returns how a member is registered: by its token, with its name for an operator.
fn member(membership: &Membership) -> String {
    format!("{} {}", hex(membership.token), membership.name)
}

fn hex(token: Token) -> String {
    token.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
