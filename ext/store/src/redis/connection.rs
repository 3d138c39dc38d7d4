//! The connection to a Redis server or a cluster, and its errors.
//!
//! tokio runs on the calling thread, for as long as a call takes, and its runtime ends with the connection: nothing of
//! it is left for a fork to copy.

use std::time::Duration;

use futures_util::future::{self, Either};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, ServerErrorKind};
use redis::{TlsCertificates, Value};
use tokio::runtime::{Builder, Runtime};

use super::scripts::Script;
use super::url::ServerUrls;
use crate::error::StoreError;
use crate::interrupt::Interrupt;

/// How long a reply may take. A slow network may need seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a reply of a cluster may take: shorter, since the replies of all its servers are awaited together.
const CLUSTER_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The oldest version that works: the scripts use ZMSCORE, and LIMIT with BYSCORE.
const MIN_VERSION: (u32, u32) = (6, 2);

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
    runtime: Runtime,
    warnings: Vec<String>,
}

impl Connection {
    /// Connects. Blocks until the connection is there, the timeout has passed, or `interrupt` is raised.
    pub(super) fn open(servers: &ServerUrls, interrupt: &Interrupt) -> Result<Connection, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Unavailable(format!("{servers}: {error}")))?;
        let (servers, interrupt) = (servers.clone(), interrupt.clone());
        let mut connection = Connection { servers, interrupt, link: None, runtime, warnings: Vec::new() };
        connection.reconnect()?;
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

    /// Connects again if the connection was lost. Returns whether it was.
    pub(super) fn reconnect(&mut self) -> Result<bool, StoreError> {
        if self.link.is_some() {
            return Ok(false);
        }
        let servers = self.servers.clone();
        let (link, warnings) = self.wait(connect(&servers))??;
        self.link = Some(link);
        self.warnings = warnings;
        Ok(true)
    }

    /// Calls scripts, all at once. Returns their replies in order. An error of a server fails that call alone; an error
    /// of the connection fails all of them.
    pub(super) fn call(&mut self, calls: &[Call]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.reconnect()?;
        let Some(link) = self.link.clone() else { return Err(self.lost()) };
        let replies = self.wait(future::join_all(calls.iter().map(|call| link.clone().call(call))))?;
        self.check_replies(replies)
    }

    /// Sends commands, as [`Connection::call`] does.
    pub(super) fn send(&mut self, commands: &[Cmd]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.reconnect()?;
        let Some(link) = self.link.clone() else { return Err(self.lost()) };
        let requests = commands.iter().map(|command| {
            let mut link = link.clone();
            async move { link.request(command).await }
        });
        let replies = self.wait(future::join_all(requests))?;
        self.check_replies(replies)
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

/// Whether the connection failed, and not the command. A server that has become a replica is left too.
fn is_of_connection(error: &RedisError) -> bool {
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Connects and checks the servers. Returns the connection and warnings for the operator.
async fn connect(servers: &ServerUrls) -> Result<(Link, Vec<String>), StoreError> {
    let failed = |error: RedisError| match error.kind() {
        // The database does not exist, for example.
        ErrorKind::Server(ServerErrorKind::ResponseError) => StoreError::Misconfigured(format!("{servers}: {error}")),
        _ => store_error(servers, &error),
    };
    let infos = servers.connection_infos()?;
    let certificates = servers.ca()?.map(|ca| TlsCertificates { client_tls: None, root_cert: Some(ca) });
    let mut link = if servers.is_cluster() {
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(CLUSTER_REPLY_TIMEOUT)
            .response_timeout(CLUSTER_REPLY_TIMEOUT)
            .overall_response_timeout(Some(CLUSTER_REPLY_TIMEOUT))
            .retries(1);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        let client = builder.build().map_err(failed)?;
        Link::Cluster(Box::new(client.get_async_connection().await.map_err(failed)?))
    } else {
        let Some(info) = infos.into_iter().next() else {
            return Err(StoreError::Misconfigured(format!(
                "{servers}: the store names no server; expected the URL of one"
            )));
        };
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(REPLY_TIMEOUT))
            .set_response_timeout(Some(REPLY_TIMEOUT));
        let client = client.map_err(failed)?;
        Link::One(client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?)
    };
    let warnings = match link.request(&redis::cmd("INFO")).await.map_err(failed)? {
        // A cluster replies with one INFO per server.
        Value::Map(infos) => {
            let mut warnings = Vec::new();
            for (_, info) in infos {
                warnings.extend(check(servers, &info)?);
            }
            warnings.dedup();
            warnings
        }
        info => check(servers, &info)?,
    };
    Ok((link, warnings))
}

/// Checks a server's INFO. Returns warnings for the operator; fails if the server cannot be used.
fn check(servers: &ServerUrls, info: &Value) -> Result<Vec<String>, StoreError> {
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{servers}: {what}")));
    let info: String = redis::from_redis_value(info.clone()).unwrap_or_default();
    let field = |name: &str| {
        info.lines().find_map(|line| line.split_once(':').filter(|(field, _)| *field == name).map(|(_, value)| value))
    };
    let Some(version) = field("redis_version") else {
        return misconfigured("this is no Redis: its INFO has no redis_version".into());
    };
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < MIN_VERSION {
        return misconfigured(format!(
            "this is Redis {version}; expected {}.{} or newer. Upgrade the server",
            MIN_VERSION.0, MIN_VERSION.1
        ));
    }
    if field("loading") == Some("1") {
        return Err(StoreError::Unavailable(format!("{servers}: the server is still loading its data")));
    }
    if !servers.is_cluster() {
        if field("cluster_enabled") == Some("1") {
            return misconfigured(
                "this is a server of a Redis Cluster; give the URLs of some of its servers as an Array".into(),
            );
        }
        if field("role") == Some("slave") {
            let master = field("master_host").unwrap_or("another server");
            return misconfigured(format!("this is a read-only replica of {master}; give the URL of the master"));
        }
    }
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    Ok(if policy == "noeviction" {
        Vec::new()
    } else {
        vec![format!(
            "{servers}: its maxmemory-policy is {policy}, so it may delete users who are online when its memory is full. \
             Set it to noeviction"
        )]
    })
}

/// Turns an error of the client into one for the operator: permanent if the server refuses the credentials, its
/// certificate is not trusted, or it is no Redis.
fn store_error(servers: &ServerUrls, error: &RedisError) -> StoreError {
    let is_refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    match error.kind() {
        ErrorKind::Parse => StoreError::Misconfigured(format!("{servers}: this is no Redis: {error}")),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
            StoreError::Misconfigured(format!("{servers}: {error}"))
        }
        _ if is_refused || error.to_string().contains("certificate") => {
            StoreError::Misconfigured(format!("{servers}: {error}"))
        }
        _ => StoreError::Unavailable(format!("{servers}: {error}")),
    }
}
