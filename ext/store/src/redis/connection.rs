//! The connection to a Redis, or to a cluster of them, and what is wrong with it.
//!
//! tokio runs on the thread that calls, and only for as long as a call takes: with the connection it ends too, and nothing
//! of it is left that a fork could copy.

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

/// For how long an answer is waited for. A slow network may take seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(6);

/// The same in a cluster, where the other servers wait meanwhile.
const CLUSTER_REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The scripts use ZMSCORE and LIMIT with BYSCORE.
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

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys);
        self.arguments.iter().for_each(|argument| {
            command.arg(argument.as_slice());
        });
        command
    }
}

/// A connection that can be shared by several requests at a time.
#[derive(Clone)]
enum Link {
    One(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

impl Link {
    async fn request(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let reply = match self {
            Link::One(connection) => connection.req_packed_command(command).await,
            Link::Cluster(connection) => connection.req_packed_command(command).await,
        };
        reply.and_then(Value::extract_error)
    }

    async fn call(mut self, call: &Call) -> Result<Value, RedisError> {
        match self.request(&call.command("EVALSHA", &call.script.hash)).await {
            // The server has just been started, or was told to forget its scripts.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.request(&call.command("EVAL", call.script.text)).await
            }
            reply => reply,
        }
    }
}

pub(super) struct Connection {
    servers: ServerUrls,
    interrupt: Interrupt,
    /// Before the runtime, since its parts end there.
    link: Option<Link>,
    runtime: Runtime,
    warnings: Vec<String>,
}

impl Connection {
    /// Connects. Blocks.
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

    /// Lets go of the connection, if it is no good.
    pub(super) fn close(&mut self) {
        self.link = None;
    }

    /// Connects anew if the connection was lost. Answers whether it was.
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

    /// Calls scripts, all at once, and answers in their order. An error of a server is one of that call alone; when the
    /// connection fails, all of them do.
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

    /// Has the connection made anew if it is lost.
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

    fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        let interrupt = self.interrupt.clone();
        let done = self.runtime.block_on(async {
            match future::select(Box::pin(work), Box::pin(interrupt.raised())).await {
                Either::Left((done, _)) => Some(done),
                Either::Right(_) => None,
            }
        });
        done.ok_or_else(|| {
            // Answers may still be on their way, to nobody.
            self.close();
            StoreError::Unavailable(format!("{}: interrupted by a fork", self.servers))
        })
    }

    fn lost(&self) -> StoreError {
        StoreError::Unavailable(format!("{}: the connection is lost", self.servers))
    }
}

/// Whether it is the connection that failed, and not what was asked for.
fn is_of_connection(error: &RedisError) -> bool {
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

async fn connect(servers: &ServerUrls) -> Result<(Link, Vec<String>), StoreError> {
    let failed = |error: RedisError| match error.kind() {
        // A database that there is not, for one.
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
            return Err(StoreError::Misconfigured(format!("{servers}: this names no server")));
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
        // Of each server of a cluster.
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

/// Judges what a server says of itself. Answers what an operator should know.
fn check(servers: &ServerUrls, info: &Value) -> Result<Vec<String>, StoreError> {
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{servers}: {what}")));
    let info: String = redis::from_redis_value(info.clone()).unwrap_or_default();
    let field = |name: &str| {
        info.lines().find_map(|line| line.split_once(':').filter(|(known, _)| *known == name).map(|(_, value)| value))
    };
    let Some(version) = field("redis_version") else {
        return misconfigured("this is no Redis: it does not tell its version".into());
    };
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < MIN_VERSION {
        return misconfigured(format!(
            "this is Redis {version}, and {}.{} or newer is needed",
            MIN_VERSION.0, MIN_VERSION.1
        ));
    }
    if field("loading") == Some("1") {
        return Err(StoreError::Unavailable(format!("{servers}: it is still loading its data")));
    }
    if !servers.is_cluster() {
        if field("cluster_enabled") == Some("1") {
            return misconfigured("this is a server of a cluster: give the URLs of some of them as an Array".into());
        }
        if field("role") == Some("slave") {
            let master = field("master_host").unwrap_or("another server");
            return misconfigured(format!("this is a read-only replica of {master}; the store must be the master"));
        }
    }
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    Ok(if policy == "noeviction" {
        Vec::new()
    } else {
        vec![format!(
            "{servers}: its maxmemory-policy is {policy}, so it may throw away who is online when its memory is full; it \
             should be noeviction"
        )]
    })
}

/// An error as an operator wants to read it.
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
