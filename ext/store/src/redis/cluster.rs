//! The connections to a Redis Cluster: which server has a key, and one connection to each server that is asked.
//!
//! A server that does not answer delays the calls to the others once, for as long as a reply may take. From then on it is
//! suspected: it is connected beside the calls, which wait no longer than [`SUSPECT_TIMEOUT`] for it. With the client
//! library's own connection to a cluster every call waits for each attempt to reach such a server: then the leases of all
//! partitions ran out again and again, and nobody was set offline.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::time::{Duration, Instant};

use futures_util::future;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connection::{connect_to_one, is_of_connection};
use super::errors::{connect_error, store_error};
use super::request::Request;
use super::slots::{Address, SlotRange, parse_address, read_slots, slot_of};
use super::url::ServerUrls;
use crate::error::StoreError;

/// How long a reply may take: shorter than that of a single server, since the replies of all servers are awaited together.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a reply may take of a server that did not answer lately: one that stands still now and then must not cost the
/// others their leases each time.
const SUSPECT_REPLY_TIMEOUT: Duration = Duration::from_millis(250);

/// For how long a server is suspected that answers again.
const PROBATION: Duration = Duration::from_secs(30);

/// How long calls wait for the connection to a server that did not answer before.
const SUSPECT_TIMEOUT: Duration = Duration::from_millis(50);

/// How long the first server of a cluster may take to connect, or one of them after all were away.
const FIRST_TIMEOUT: Duration = Duration::from_secs(6);

/// After how long the next server is asked for the slots too.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(20);

/// How old the knowledge of the slots is at least before it is asked for again.
const MIN_SLOTS_AGE: Duration = Duration::from_millis(100);

/// How often a request is sent at most: to the server that had the slot, to the one that it names, and once more.
const MAX_ROUNDS: usize = 3;

/// The connections to the servers of a cluster. Its functions run within one tokio runtime.
pub(super) struct Cluster {
    servers: ServerUrls,
    /// The servers that the operator has named.
    seeds: Vec<Address>,
    slots: Vec<SlotRange>,
    slots_asked_at: Option<Instant>,
    /// Whether another server may have some slots by now.
    is_stale: bool,
    /// How often the slots were asked for. Each time another server is first, in case one is cut off from the others.
    questions: usize,
    nodes: HashMap<Address, Node>,
    /// The connections that are being made.
    attempts: JoinSet<(Address, Result<MultiplexedConnection, StoreError>)>,
}

/// What is known of a server.
#[derive(Default)]
struct Node {
    connection: Option<MultiplexedConnection>,
    is_connecting: bool,
    /// When it last failed to answer.
    failed_at: Option<Instant>,
    error: Option<StoreError>,
}

/// A request on its way.
struct Sending<'a> {
    request: &'a Request<'a>,
    /// The server that another one has named for this request alone.
    redirect: Option<Address>,
    tried: Option<Address>,
    is_open: bool,
    /// `None` if no server has its key.
    result: Option<Result<Value, StoreError>>,
}

impl<'a> Sending<'a> {
    fn new(request: &'a Request<'a>) -> Sending<'a> {
        Sending { request, redirect: None, tried: None, is_open: true, result: None }
    }
}

impl Cluster {
    /// Connects to a server that the operator has named, and learns which others there are.
    pub(super) async fn open(servers: &ServerUrls) -> Result<Cluster, StoreError> {
        let mut cluster = Cluster {
            servers: servers.clone(),
            seeds: servers.addresses()?,
            slots: Vec::new(),
            slots_asked_at: None,
            is_stale: true,
            questions: 0,
            nodes: HashMap::new(),
            attempts: JoinSet::new(),
        };
        cluster.learn_slots().await?;
        Ok(cluster)
    }

    /// Returns the masters.
    pub(super) fn masters(&self) -> Vec<Address> {
        distinct(self.slots.iter().filter_map(|range| range.servers.first()))
    }

    /// Sends commands to a server, all at once, and returns the replies in order.
    pub(super) async fn send_to(
        &mut self,
        address: &Address,
        commands: &[Cmd],
    ) -> Result<Vec<Result<Value, RedisError>>, StoreError> {
        self.connect(std::slice::from_ref(address), REPLY_TIMEOUT, false).await;
        let Some(connection) = self.connection(address) else { return Err(self.error(address)) };
        let sent = commands.iter().map(|command| Request::Command(command).send(connection.clone(), false));
        let replies = future::join_all(sent).await;
        if let Some(error) =
            replies.iter().filter_map(|reply| reply.as_ref().err()).find(|error| is_of_connection(error))
        {
            self.note_error(address, error);
        }
        Ok(replies)
    }

    /// Sends requests, all at once, each to the server that has its key. Returns the replies in order.
    pub(super) async fn send(&mut self, requests: &[Request<'_>]) -> Vec<Result<Value, StoreError>> {
        let mut sendings: Vec<Sending<'_>> = requests.iter().map(Sending::new).collect();
        for _ in 0..MAX_ROUNDS {
            if self.is_stale {
                // If it fails, the requests fail.
                let _ = self.learn_slots().await;
            }
            self.send_open(&mut sendings).await;
            if sendings.iter().all(|sending| !sending.is_open) {
                break;
            }
        }
        sendings
            .into_iter()
            .map(|sending| sending.result.unwrap_or_else(|| Err(self.unserved(sending.request))))
            .collect()
    }

    /// Why no server can be asked.
    fn unserved(&self, request: &Request<'_>) -> StoreError {
        let what = request.key().map_or_else(|| "it".to_owned(), |key| format!("the slot {}", slot_of(key)));
        StoreError::Unavailable(format!(
            "{}: no server of the cluster has {what}. Check that the cluster is complete: redis-cli --cluster check HOST:PORT",
            self.servers
        ))
    }

    /// Sends each request that is open to the server that has its key now, unless that one has failed already.
    async fn send_open(&mut self, sendings: &mut [Sending<'_>]) {
        let mut targets = Vec::new();
        for (number, sending) in sendings.iter_mut().enumerate().filter(|(_, sending)| sending.is_open) {
            let redirect = sending.redirect.take();
            let is_asking = redirect.is_some();
            match redirect.or_else(|| self.server_of(sending.request.key())) {
                Some(target) if sending.tried.as_ref() != Some(&target) => targets.push((number, target, is_asking)),
                Some(_) => sending.is_open = false,
                None => (sending.is_open, self.is_stale) = (false, true),
            }
        }
        let addresses = distinct(targets.iter().map(|(_, target, _)| target));
        self.connect(&addresses, REPLY_TIMEOUT, false).await;
        let mut requests = Vec::new();
        for (number, target, is_asking) in targets {
            let Some(sending) = sendings.get_mut(number) else { continue };
            match self.connection(&target) {
                Some(connection) => {
                    let (request, limit) = (sending.request, self.limit(&target, REPLY_TIMEOUT, SUSPECT_REPLY_TIMEOUT));
                    requests.push(async move {
                        let reply = tokio::time::timeout(limit, request.send(connection, is_asking)).await;
                        (number, reply.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())))
                    });
                }
                None => {
                    sending.result = Some(Err(self.error(&target)));
                    self.is_stale = true;
                }
            }
            sending.tried = Some(target);
        }
        for (number, reply) in future::join_all(requests).await {
            if let Some(sending) = sendings.get_mut(number) {
                self.take_in(sending, reply);
            }
        }
    }

    /// Takes in a reply: it stays open if another server may have the key.
    fn take_in(&mut self, sending: &mut Sending<'_>, reply: Result<Value, RedisError>) {
        let error = match reply {
            Ok(value) => {
                (sending.result, sending.is_open) = (Some(Ok(value)), false);
                return;
            }
            Err(error) => error,
        };
        let Some(target) = sending.tried.clone() else { return };
        sending.result = Some(Err(store_error(&self.servers.of(&target), &error)));
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Ask) => {
                let other = error.redirect_node().and_then(|(address, _)| parse_address(address, &target.0));
                (sending.is_open, sending.redirect, sending.tried) = (other.is_some(), other, None);
            }
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::ReadOnly | ServerErrorKind::ClusterDown) => {
                self.is_stale = true;
            }
            _ if is_of_connection(&error) => self.note_error(&target, &error),
            _ => sending.is_open = false,
        }
    }

    /// Notes that a server failed, if it is no error of the command alone.
    fn note_error(&mut self, address: &Address, error: &RedisError) {
        if is_of_connection(error) {
            let node = self.nodes.entry(address.clone()).or_default();
            node.connection = None;
            node.failed_at = Some(Instant::now());
            node.error = Some(store_error(&self.servers.of(address), error));
            self.is_stale = true;
        }
    }

    /// Returns the server that has a key: the master of its slot, or any that is connected if it is no key's command.
    fn server_of(&self, key: Option<&[u8]>) -> Option<Address> {
        let Some(key) = key else {
            let masters = self.masters();
            let connected = masters.iter().find(|address| self.connection(address).is_some());
            return connected.or(masters.first()).cloned();
        };
        let slot = slot_of(key);
        let range = self.slots.iter().find(|range| (range.first..=range.last).contains(&slot))?;
        range.servers.first().cloned()
    }

    /// How long to wait for a server: less if it is suspected.
    fn limit(&self, address: &Address, limit: Duration, of_suspect: Duration) -> Duration {
        let failed_at = self.nodes.get(address).and_then(|node| node.failed_at);
        if failed_at.is_some_and(|at| at.elapsed() < PROBATION) { of_suspect } else { limit }
    }

    fn connection(&self, address: &Address) -> Option<MultiplexedConnection> {
        self.nodes.get(address)?.connection.clone()
    }

    /// Why a server cannot be asked.
    fn error(&self, address: &Address) -> StoreError {
        let error = self.nodes.get(address).and_then(|node| node.error.clone());
        error.unwrap_or_else(|| {
            StoreError::Unavailable(format!("{}: the server gives no answer", self.servers.of(address)))
        })
    }

    /// Asks a server which one has which slots.
    async fn learn_slots(&mut self) -> Result<(), StoreError> {
        if self.slots_asked_at.is_some_and(|at| at.elapsed() < MIN_SLOTS_AGE) {
            return Ok(());
        }
        self.slots_asked_at = Some(Instant::now());
        self.questions += 1;
        let known = distinct(self.slots.iter().flat_map(|range| range.servers.iter()).chain(&self.seeds));
        if known.iter().all(|address| self.connection(address).is_none()) {
            self.connect(&known, FIRST_TIMEOUT, true).await;
        }
        let mut connected: Vec<(Address, MultiplexedConnection)> =
            known.iter().filter_map(|address| Some((address.clone(), self.connection(address)?))).collect();
        if connected.is_empty() {
            // The error of a server that the operator knows.
            return Err(self.seeds.first().map_or_else(|| self.error(&Address::default()), |seed| self.error(seed)));
        }
        let first = self.questions % connected.len();
        connected.rotate_left(first);
        let command = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
        let questions = (0..).zip(connected).map(|(number, (address, connection))| {
            let command = &command;
            Box::pin(async move {
                sleep(ASK_NEXT_AFTER * number).await;
                let reply = Request::Command(command).send(connection, false).await;
                match reply.and_then(|reply| read_slots(reply, &address.0)) {
                    // It has left the cluster, or the cluster is being made.
                    Ok(slots) if slots.is_empty() => Err((address, None)),
                    Ok(slots) => Ok(slots),
                    Err(error) => Err((address, Some(error))),
                }
            })
        });
        match future::select_ok(questions).await {
            Ok((slots, _)) => {
                self.slots = slots;
                self.is_stale = false;
                let (slots, seeds) = (&self.slots, &self.seeds);
                self.nodes.retain(|address, _| {
                    seeds.contains(address) || slots.iter().any(|range| range.servers.contains(address))
                });
                Ok(())
            }
            Err((address, None)) => Err(StoreError::Unavailable(format!(
                "{}: the server knows of no slot of a cluster. Check the cluster: redis-cli --cluster check HOST:PORT",
                self.servers.of(&address)
            ))),
            Err((address, Some(error))) => {
                self.note_error(&address, &error);
                Err(connect_error(&self.servers.of(&address), &error))
            }
        }
    }

    /// Makes the connections that are missing, and waits for them, or for one of them if that is enough.
    ///
    /// * `timeout` - how long a server that is not suspected may take. Its attempt goes on after that.
    async fn connect(&mut self, addresses: &[Address], timeout: Duration, is_one_enough: bool) {
        while let Some(attempt) = self.attempts.try_join_next() {
            self.attempted(attempt);
        }
        addresses.iter().for_each(|address| self.attempt(address));
        let began_at = Instant::now();
        loop {
            if is_one_enough && addresses.iter().any(|address| self.connection(address).is_some()) {
                return;
            }
            let is_connecting = |address: &&Address| self.nodes.get(*address).is_some_and(|node| node.is_connecting);
            let limit = |address| self.limit(address, timeout, SUSPECT_TIMEOUT);
            let longest = addresses.iter().filter(is_connecting).map(limit).max();
            let Some(remaining) = longest.map(|longest| longest.saturating_sub(began_at.elapsed())) else { return };
            match tokio::time::timeout(remaining, self.attempts.join_next()).await {
                Ok(Some(attempt)) => self.attempted(attempt),
                Ok(None) => return,
                Err(_) => break,
            }
        }
        for address in addresses {
            if let Some(node) = self.nodes.get_mut(address).filter(|node| node.is_connecting) {
                node.failed_at = Some(Instant::now());
            }
        }
    }

    /// Begins to connect to a server, unless there is a connection or an attempt.
    fn attempt(&mut self, address: &Address) {
        let node = self.nodes.entry(address.clone()).or_default();
        if node.connection.is_some() || node.is_connecting {
            return;
        }
        node.is_connecting = true;
        let (servers, address) = (self.servers.of(address), address.clone());
        self.attempts.spawn(async move { (address, connect_to_one(&servers, REPLY_TIMEOUT).await) });
    }

    /// Takes in the end of an attempt.
    fn attempted(
        &mut self,
        attempt: Result<(Address, Result<MultiplexedConnection, StoreError>), tokio::task::JoinError>,
    ) {
        // Attempts are cancelled only with the cluster: this is a panic, which goes on in the thread that waits.
        let (address, result) = attempt.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let node = self.nodes.entry(address).or_default();
        node.is_connecting = false;
        match result {
            Ok(connection) => (node.connection, node.error) = (Some(connection), None),
            Err(error) => (node.failed_at, node.error) = (Some(Instant::now()), Some(error)),
        }
    }
}

/// Returns each address once, in order.
fn distinct<'a>(addresses: impl Iterator<Item = &'a Address>) -> Vec<Address> {
    addresses.collect::<BTreeSet<_>>().into_iter().cloned().collect()
}
