//! The connection to a Redis server or a cluster.
//!
//! tokio runs on the calling thread, for as long as a call takes, and its runtime ends with the connection: nothing of
//! it is left for a fork to copy.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, ServerErrorKind,
    TlsCertificates, Value,
};
use tokio::runtime::{Builder, Runtime};

use super::errors::{connect_error, store_error};
use super::scripts::Script;
use super::server::{check, hello_text, info_text};
use super::tls;
use super::url::ServerUrls;
use crate::error::StoreError;
use crate::interrupt::Interrupt;

/// How long a reply may take. A slow network may need seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(6);

/// How long the handshake of TLS may take: it takes two round trips, also with a server far away.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a reply of a cluster may take: shorter, since the replies of all its servers are awaited together.
const CLUSTER_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// A call of a script.
pub(super) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new<'a>(script: &'static Script, keys: impl IntoIterator<Item = &'a str>) -> Call {
        Call { script, keys: keys.into_iter().map(str::to_owned).collect(), arguments: Vec::new() }
    }

    /// Adds an argument.
    pub(super) fn arg(mut self, argument: impl AsRef<[u8]>) -> Call {
        self.arguments.push(argument.as_ref().to_vec());
        self
    }

    /// Adds a number.
    pub(super) fn number(self, argument: impl ToString) -> Call {
        self.arg(argument.to_string())
    }

    /// Builds the command, `EVAL` or `EVALSHA`, with the script's text or hash.
    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys);
        self.arguments.iter().for_each(|argument| {
            command.arg(argument.as_slice());
        });
        command
    }
}

/// A connection that several requests can share at the same time.
#[derive(Clone)]
enum Link {
    One(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

impl Link {
    /// Sends a command and returns the reply.
    async fn request(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let reply = match self {
            Link::One(connection) => connection.req_packed_command(command).await,
            Link::Cluster(connection) => connection.req_packed_command(command).await,
        };
        reply.and_then(Value::extract_error)
    }

    /// Calls a script by its hash, and by its text if the server does not know it.
    async fn call(mut self, call: &Call) -> Result<Value, RedisError> {
        match self.request(&call.command("EVALSHA", &call.script.hash)).await {
            // The server was started lately, or its scripts were flushed.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.request(&call.command("EVAL", call.script.text)).await
            }
            reply => reply,
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
    runtime: Runtime,
    warnings: Vec<String>,
}

impl Connection {
    /// Connects. Blocks until the connection is there, the timeout has passed, or `interrupt` is raised.
    pub(super) fn open(servers: &ServerUrls, interrupt: &Interrupt) -> Result<Connection, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Unavailable(format!("{servers}: {error}")))?;
        let (servers, interrupt) = (servers.clone(), interrupt.clone());
        let mut connection =
            Connection { servers, interrupt, link: None, was_lost: false, runtime, warnings: Vec::new() };
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

    fn connect(&mut self) -> Result<(), StoreError> {
        if self.link.is_some() {
            return Ok(());
        }
        let servers = self.servers.clone();
        let (link, warnings) = self.wait(connect(&servers))??;
        self.link = Some(link);
        self.warnings = warnings;
        self.was_lost = true;
        Ok(())
    }

    /// Calls scripts, all at once. Returns their replies in order. An error of a server fails that call alone; an error
    /// of the connection fails all of them.
    pub(super) fn call(&mut self, calls: &[Call]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.connect()?;
        let Some(link) = self.link.clone() else { return Err(self.lost()) };
        let replies = self.wait(future::join_all(calls.iter().map(|call| link.clone().call(call))))?;
        self.check_replies(replies)
    }

    /// Sends commands, as [`Connection::call`] does.
    pub(super) fn send(&mut self, commands: &[Cmd]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.connect()?;
        let Some(link) = self.link.clone() else { return Err(self.lost()) };
        let requests = commands.iter().map(|command| {
            let mut link = link.clone();
            async move { link.request(command).await }
        });
        let replies = self.wait(future::join_all(requests))?;
        self.check_replies(replies)
    }

    /// Returns the keys that match a pattern: of all masters, if it is a cluster.
    pub(super) fn scan(&mut self, pattern: &str) -> Result<Vec<String>, StoreError> {
        self.connect()?;
        let Some(link) = self.link.clone() else { return Err(self.lost()) };
        let scanned = self.wait(scan(link, pattern))?;
        scanned.map_err(|error| store_error(&self.servers, &error))
    }

    /// Turns errors into the store's. Closes the connection and fails if it was lost: in a cluster if every call
    /// failed, since one server of several may be away.
    fn check_replies(
        &mut self,
        replies: Vec<Result<Value, RedisError>>,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let is_lost = |reply: &Result<Value, RedisError>| reply.as_ref().is_err_and(is_of_connection);
        let lost = match self.link {
            Some(Link::Cluster(_)) => replies.iter().all(is_lost),
            _ => replies.iter().any(is_lost),
        };
        if lost && let Some(error) = replies.iter().find_map(|reply| reply.as_ref().err()) {
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
        done.ok_or_else(|| {
            // Replies may still be on their way, for which nobody waits any more.
            self.close();
            StoreError::Unavailable(format!("{}: interrupted, since the process forks", self.servers))
        })
    }

    fn lost(&self) -> StoreError {
        StoreError::Unavailable(format!("{}: the connection is lost; it is made again", self.servers))
    }
}

/// How many keys a step of SCAN looks at: enough for few round trips, and little enough not to block the server.
const SCAN_COUNT: usize = 1_000;

/// Goes through all keys that match a pattern.
async fn scan(mut link: Link, pattern: &str) -> Result<Vec<String>, RedisError> {
    let masters = match &mut link {
        Link::One(_) => vec![None],
        Link::Cluster(connection) => masters(connection).await?.into_iter().map(Some).collect(),
    };
    let mut keys = Vec::new();
    for master in masters {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let reply = match (&mut link, &master) {
                (Link::Cluster(connection), Some(master)) => {
                    connection.route_command(command, RoutingInfo::SingleNode(master.clone())).await?
                }
                _ => link.request(&command).await?,
            };
            let found: Vec<Vec<u8>>;
            (cursor, found) = redis::from_redis_value(reply)?;
            keys.extend(found.into_iter().filter_map(|key| String::from_utf8(key).ok()));
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(keys)
}

/// Returns the masters of a cluster.
async fn masters(connection: &mut ClusterConnection) -> Result<Vec<SingleNodeRoutingInfo>, RedisError> {
    let command = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
    // Each range of slots: its first and last slot, its master, and the replicas.
    let ranges: Vec<Vec<Value>> = redis::from_redis_value(connection.req_packed_command(&command).await?)?;
    let mut addresses: Vec<(String, u16)> = Vec::new();
    for master in ranges.into_iter().filter_map(|range| range.into_iter().nth(2)) {
        let Value::Array(master) = master else { continue };
        let mut fields = master.into_iter();
        let (Some(host), Some(port)) = (fields.next(), fields.next()) else { continue };
        let address = (redis::from_redis_value(host)?, redis::from_redis_value(port)?);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses.into_iter().map(|(host, port)| SingleNodeRoutingInfo::ByAddress { host, port }).collect())
}

/// Whether the connection failed, and not the command. A server that has become a replica is left too.
fn is_of_connection(error: &RedisError) -> bool {
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Connects and checks the servers. Returns the connection and warnings for the operator.
async fn connect(servers: &ServerUrls) -> Result<(Link, Vec<String>), StoreError> {
    let failed = |error: RedisError| connect_error(servers, &error);
    let infos = servers.connection_infos()?;
    let mut link = if servers.is_cluster() {
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(CLUSTER_REPLY_TIMEOUT)
            .response_timeout(CLUSTER_REPLY_TIMEOUT)
            .overall_response_timeout(Some(CLUSTER_REPLY_TIMEOUT))
            .retries(1);
        if let Some(ca) = servers.ca()? {
            tls::certificates(servers, &ca)?;
            builder = builder.certs(TlsCertificates { client_tls: None, root_cert: Some(ca) });
        }
        let client = builder.build().map_err(failed)?;
        Link::Cluster(Box::new(client.get_async_connection().await.map_err(failed)?))
    } else {
        let Some(info) = infos.into_iter().next() else {
            return Err(StoreError::Misconfigured(format!(
                "{servers}: the store names no server; expected the URL of one"
            )));
        };
        Link::One(connect_to_one(servers, info).await.map_err(|error| match error {
            Failure::Client(error) => failed(error),
            Failure::Store(error) => error,
        })?)
    };
    let mut warnings = match link.request(&redis::cmd("INFO")).await {
        // A cluster replies with one INFO per server.
        Ok(Value::Map(infos)) => {
            let mut warnings = Vec::new();
            for (_, info) in infos {
                warnings.extend(check(servers, &info_text(info))?);
            }
            warnings.dedup();
            warnings
        }
        Ok(info) => check(servers, &info_text(info))?,
        Err(error) if error.code() == Some("NOPERM") => {
            if let Ok(hello) = link.request(&redis::cmd("HELLO")).await {
                check(servers, &hello_text(hello))?;
            }
            vec![format!(
                "{servers}: its user may not run INFO, so its maxmemory-policy is not checked: it must be noeviction. To \
                 have it checked: ACL SETUSER … +info"
            )]
        }
        Err(error) => return Err(failed(error)),
    };
    if !servers.is_verified() {
        warnings.push(format!(
            "{servers}: verify=none is unsafe: anyone between this machine and the server can read and change \
             everything. Use ?ca_file=PATH with the server's certificate instead"
        ));
    }
    Ok((link, warnings))
}

/// Why a connection was not made.
enum Failure {
    Client(RedisError),
    Store(StoreError),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        Failure::Client(error)
    }
}

/// Connects to a server that is no part of a cluster.
async fn connect_to_one(servers: &ServerUrls, info: ConnectionInfo) -> Result<MultiplexedConnection, Failure> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(REPLY_TIMEOUT))
        .set_response_timeout(Some(REPLY_TIMEOUT));
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Ok(Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?);
    }
    let timed_out =
        |what: &str| Failure::Store(StoreError::Unavailable(format!("{servers}: the connection timed out{what}")));
    let verifier = Arc::new(tls::Verifier::new(servers).map_err(Failure::Store)?);
    let tcp = tokio::time::timeout(REPLY_TIMEOUT, tls::connect_tcp(servers, info.addr()));
    let tcp = tcp.await.map_err(|_| timed_out(""))?.map_err(Failure::Store)?;
    // A server without TLS waits for the end of a line.
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::connect(servers, info.addr(), tcp, verifier));
    let stream = stream.await.map_err(|_| timed_out(&format!("; {}", tls::NO_ANSWER)))?.map_err(Failure::Store)?;
    let connected = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config);
    let (connection, driver) =
        tokio::time::timeout(REPLY_TIMEOUT, connected).await.map_err(|_| timed_out(": no reply"))??;
    // It ends with the connection, or with the runtime.
    tokio::spawn(driver);
    Ok(connection)
}
