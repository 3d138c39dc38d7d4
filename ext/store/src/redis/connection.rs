//! The connection to a Redis server or a cluster.
//!
//! tokio runs on the calling thread, for as long as a call takes, and its runtime ends with the connection: nothing of
//! it is left for a fork to copy.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::runtime::{Builder, Runtime};

use super::cluster::Cluster;
use super::errors::{acl, connect_error, store_error};
use super::permissions;
use super::request::{Call, Request};
use super::server::{check, hello_text, info_text};
use super::slots::Address;
use super::tls;
use super::url::ServerUrls;
use crate::error::StoreError;
use crate::interrupt::Interrupt;

/// How long it may take to connect, and the reply of a single server. A slow network may need seconds.
const TIMEOUT: Duration = Duration::from_secs(6);

/// How long the handshake of TLS may take: it takes two round trips, also with a server far away.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// The way to the server or the servers.
enum Link {
    One(MultiplexedConnection),
    Cluster(Box<Cluster>),
}

impl Link {
    /// The servers that have keys; `None` is the single one.
    fn masters(&self) -> Vec<Option<Address>> {
        match self {
            Link::One(_) => vec![None],
            Link::Cluster(cluster) => cluster.masters().into_iter().map(Some).collect(),
        }
    }

    /// Sends a command to one of the masters, and returns the reply.
    async fn send_to(&mut self, master: Option<&Address>, command: &Cmd) -> Result<Value, Failure> {
        let replies = self.send_all_to(master, std::slice::from_ref(command)).await.map_err(Failure::Store)?;
        replies.into_iter().next().unwrap_or(Ok(Value::Nil)).map_err(Failure::Client)
    }

    /// Sends commands to one of the masters, all at once, and returns the replies in order.
    async fn send_all_to(
        &mut self,
        master: Option<&Address>,
        commands: &[Cmd],
    ) -> Result<Vec<Result<Value, RedisError>>, StoreError> {
        match self {
            Link::Cluster(cluster) => cluster.send_to(master.unwrap_or(&Address::default()), commands).await,
            Link::One(connection) => {
                let sent = commands.iter().map(|command| Request::Command(command).send(connection.clone(), false));
                Ok(future::join_all(sent).await)
            }
        }
    }
}

/// Why a request failed.
pub(super) enum Failure {
    Client(RedisError),
    Store(StoreError),
}

impl Failure {
    fn into_store_error(self, servers: &ServerUrls) -> StoreError {
        match self {
            Failure::Client(error) => store_error(servers, &error),
            Failure::Store(error) => error,
        }
    }
}

/// A connection that is made again after it was lost, and the runtime it needs.
pub(super) struct Connection {
    servers: ServerUrls,
    interrupt: Interrupt,
    /// `None` if the connection was lost. Declared before the runtime, so that it is dropped while the runtime still
    /// exists.
    link: Option<Link>,
    /// Whether the connection was made again since [`Connection::reconnect`] last said so.
    was_lost: bool,
    /// The namespace whose keys the user must be permitted to use with all commands of a member.
    participates_in: Option<String>,
    /// Whether that is so as far as is known.
    is_permitted: bool,
    runtime: Runtime,
    warnings: Vec<String>,
}

impl Connection {
    /// Connects. Blocks until the connection is there, the timeout has passed, or `interrupt` is raised.
    ///
    /// * `participates_in` - the namespace whose keys the user must be permitted to use with all commands of a member. It is
    ///   checked now, and again after the server has refused something
    pub(super) fn open(
        servers: &ServerUrls,
        participates_in: Option<&str>,
        interrupt: &Interrupt,
    ) -> Result<Connection, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Unavailable(format!("{servers}: {error}")))?;
        let (servers, interrupt) = (servers.clone(), interrupt.clone());
        let mut connection = Connection {
            servers,
            interrupt,
            link: None,
            was_lost: false,
            participates_in: participates_in.map(str::to_owned),
            is_permitted: false,
            runtime,
            warnings: Vec::new(),
        };
        connection.connect()?;
        connection.was_lost = false;
        Ok(connection)
    }

    pub(super) fn servers(&self) -> &ServerUrls {
        &self.servers
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Closes the connection. The next call makes it again.
    pub(super) fn close(&mut self) {
        self.link = None;
    }

    /// Connects again if the connection was lost. Returns whether it was, since the last call of this function: a call of
    /// a script may have made it again.
    pub(super) fn reconnect(&mut self) -> Result<bool, StoreError> {
        self.connect()?;
        Ok(std::mem::take(&mut self.was_lost))
    }

    /// Connects if there is no connection.
    fn connect(&mut self) -> Result<(), StoreError> {
        if self.link.is_some() {
            return Ok(());
        }
        let servers = self.servers.clone();
        let participates_in = self.participates_in.clone().filter(|_| !self.is_permitted);
        let (link, warnings) = self.wait(connect(&servers, participates_in.as_deref()))??;
        self.link = Some(link);
        self.is_permitted = true;
        self.warnings = warnings;
        self.was_lost = true;
        Ok(())
    }

    /// Calls scripts, all at once. Returns their replies in order. An error of a server fails that call alone; an error
    /// of the connection fails all of them, or in a cluster those to the same server.
    pub(super) fn call(&mut self, calls: &[Call]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.send_all(&calls.iter().map(Request::Call).collect::<Vec<_>>())
    }

    /// Sends commands, as [`Connection::call`] does.
    pub(super) fn send(&mut self, commands: &[Cmd]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.send_all(&commands.iter().map(Request::Command).collect::<Vec<_>>())
    }

    fn send_all(&mut self, requests: &[Request<'_>]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let replies = self.try_send_all(requests);
        let is_refused = |reply: &Result<Value, StoreError>| matches!(reply, Err(StoreError::Misconfigured(_)));
        if replies.as_ref().is_ok_and(|replies| replies.iter().any(is_refused)) {
            // A script that was refused a command in its middle has done half of its work, and would do that half again. So
            // the next connection checks all permissions first.
            self.is_permitted = false;
            self.close();
        }
        replies
    }

    fn try_send_all(&mut self, requests: &[Request<'_>]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.connect()?;
        // An interrupt leaves no connection: replies may still be on their way, for which nobody waits any more.
        match self.link.take() {
            Some(Link::One(connection)) => {
                let sent = requests.iter().map(|request| (*request).send(connection.clone(), false));
                let replies = self.wait(future::join_all(sent))?;
                self.link = Some(Link::One(connection));
                self.check_replies(replies)
            }
            Some(Link::Cluster(mut cluster)) => {
                let replies = self.wait(cluster.send(requests))?;
                self.link = Some(Link::Cluster(cluster));
                Ok(replies)
            }
            None => Err(self.lost()),
        }
    }

    /// Returns the keys that match a pattern: of all masters, if it is a cluster.
    pub(super) fn scan(&mut self, pattern: &str) -> Result<Vec<String>, StoreError> {
        self.connect()?;
        let Some(mut link) = self.link.take() else { return Err(self.lost()) };
        let scanned = self.wait(scan(&mut link, pattern))?;
        self.link = Some(link);
        scanned.map_err(|failure| failure.into_store_error(&self.servers))
    }

    /// Turns errors into the store's. Closes the connection and fails if it was lost.
    fn check_replies(
        &mut self,
        replies: Vec<Result<Value, RedisError>>,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let lost = replies.iter().filter_map(|reply| reply.as_ref().err()).find(|error| is_of_connection(error));
        if let Some(error) = lost {
            let error = store_error(&self.servers, error);
            self.close();
            return Err(error);
        }
        Ok(replies.into_iter().map(|reply| reply.map_err(|error| store_error(&self.servers, &error))).collect())
    }

    /// Runs `work` to its end, or fails when the interrupt is raised.
    fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        let interrupt = self.interrupt.clone();
        let done = self.runtime.block_on(async {
            match future::select(Box::pin(work), Box::pin(interrupt.raised())).await {
                Either::Left((done, _)) => Some(done),
                Either::Right(_) => None,
            }
        });
        done.ok_or_else(|| StoreError::Unavailable(format!("{}: interrupted, since the process forks", self.servers)))
    }

    fn lost(&self) -> StoreError {
        StoreError::Unavailable(format!("{}: the connection is lost; it is made again", self.servers))
    }
}

/// How many keys a step of SCAN looks at: enough for few round trips, and little enough not to block the server.
const SCAN_COUNT: usize = 1_000;

/// Goes through all keys that match a pattern.
async fn scan(link: &mut Link, pattern: &str) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for master in link.masters() {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let reply = link.send_to(master.as_ref(), &command).await?;
            let found: Vec<Vec<u8>>;
            (cursor, found) = redis::from_redis_value(reply).map_err(|error| Failure::Client(error.into()))?;
            keys.extend(found.into_iter().filter_map(|key| String::from_utf8(key).ok()));
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(keys)
}

/// Whether the connection failed, and not the command. A server that has become a replica is left too.
pub(super) fn is_of_connection(error: &RedisError) -> bool {
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Connects and checks the servers. Returns the connection and warnings for the operator.
///
/// * `participates_in` - see [`Connection::open`]
async fn connect(servers: &ServerUrls, participates_in: Option<&str>) -> Result<(Link, Vec<String>), StoreError> {
    let mut link = if servers.is_cluster() {
        Link::Cluster(Box::new(Cluster::open(servers).await?))
    } else {
        Link::One(connect_to_one(servers, TIMEOUT).await?)
    };
    let mut warnings = Vec::new();
    let (mut is_served, mut away) = (false, None);
    for master in link.masters() {
        match check_master(servers, participates_in, &mut link, master.as_ref()).await {
            Ok(warning) => {
                warnings.extend(warning);
                is_served = true;
            }
            // The other servers of a cluster go on.
            Err(error @ StoreError::Unavailable(_)) => away = Some(error),
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = away.filter(|_| !is_served) {
        return Err(error);
    }
    // All servers say the same.
    warnings.dedup();
    if !servers.is_verified() {
        warnings.push(format!(
            "{servers}: verify=none is unsafe: anyone between this machine and the server can read and change \
             everything. Use ?ca_file=PATH with the server's certificate instead"
        ));
    }
    Ok((link, warnings))
}

/// Checks whether a server can be used, in one round trip. Returns warnings for the operator.
async fn check_master(
    servers: &ServerUrls,
    participates_in: Option<&str>,
    link: &mut Link,
    master: Option<&Address>,
) -> Result<Vec<String>, StoreError> {
    let commands = participates_in.map_or_else(Vec::new, |namespace| permissions::commands(servers, namespace));
    let mut replies = link.send_all_to(master, &[&[redis::cmd("INFO")], &*commands].concat()).await?.into_iter();
    let warnings = match replies.next().unwrap_or(Ok(Value::Nil)) {
        Ok(info) => check(servers, &info_text(info))?,
        Err(error) if error.code() == Some("NOPERM") => {
            if let Ok(hello) = link.send_to(master, &redis::cmd("HELLO")).await {
                check(servers, &hello_text(hello))?;
            }
            vec![format!(
                "{servers}: its user may not run INFO, so its maxmemory-policy is not checked: it must be noeviction. To \
                 have it checked: {}",
                acl(servers, "+info")
            )]
        }
        Err(error) => return Err(connect_error(servers, &error)),
    };
    let server = master.map_or_else(|| servers.clone(), |address| servers.of(address));
    permissions::check(&server, &commands, replies)?;
    Ok(warnings)
}

/// Connects to the first of the servers.
///
/// * `reply_timeout` - how long each later reply may take
pub(super) async fn connect_to_one(
    servers: &ServerUrls,
    reply_timeout: Duration,
) -> Result<MultiplexedConnection, StoreError> {
    let Some(info) = servers.connection_infos()?.into_iter().next() else {
        return Err(StoreError::Misconfigured(format!(
            "{servers}: the store names no server; expected the URL of one"
        )));
    };
    let failed = |error: RedisError| connect_error(servers, &error);
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(reply_timeout));
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        let client = Client::open(info).map_err(failed)?;
        return client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed);
    }
    let timed_out = |what: &str| StoreError::Unavailable(format!("{servers}: the connection timed out{what}"));
    let verifier = Arc::new(tls::Verifier::new(servers)?);
    let tcp = tokio::time::timeout(TIMEOUT, tls::connect_tcp(servers, info.addr()));
    let tcp = tcp.await.map_err(|_| timed_out(""))??;
    // A server without TLS waits for the end of a line.
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::connect(servers, info.addr(), tcp, verifier));
    let stream = stream.await.map_err(|_| timed_out(&format!("; {}", tls::NO_ANSWER)))??;
    let connected = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config);
    let connected = tokio::time::timeout(TIMEOUT, connected).await.map_err(|_| timed_out(": no reply"))?;
    let (connection, driver) = connected.map_err(failed)?;
    // It ends with the connection, or with the runtime.
    tokio::spawn(driver);
    Ok(connection)
}
