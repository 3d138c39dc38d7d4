//! The `store:` option: which store it names.

use std::fmt;
use std::path::PathBuf;

use online_manager_tracker::Nanos;

use crate::error::StoreError;
use crate::interrupt::Interrupt;
use crate::redacted::{may_be_url, redacted};
use crate::redis::url::{self, ServerUrls};
use crate::redis::{self, Redis};
use crate::sqlite::{self, Sqlite};
use crate::store::Store;

/// Where a store is. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// The path of an SQLite file.
    Sqlite(PathBuf),
    /// A Redis server, or some servers of a Redis Cluster.
    Redis(ServerUrls),
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A member participates: what is missing is created.
    Participate,
    /// Something is asked: nothing is created or changed, and what is missing is a [`StoreError::Missing`].
    Inspect,
}

impl StoreUrl {
    /// Parses a `store:` option: `sqlite:PATH`, or the URL of a Redis server. Connects to nothing.
    ///
    /// # Errors
    ///
    /// A message with the option, without its password, and what was expected.
    pub fn parse(url: &str) -> Result<StoreUrl, String> {
        match url.split_once(':') {
            Some(("sqlite", "")) => Err(format!("the store {url:?} names no file; it must be \"sqlite:PATH\"")),
            Some(("sqlite", path)) => sqlite_fault(path).map_or_else(
                || Ok(StoreUrl::Sqlite(PathBuf::from(path))),
                |fault| Err(format!("the store {:?} {fault}", redacted(url))),
            ),
            _ if ServerUrls::is_redis_url(url) => ServerUrls::parse(&[url.to_owned()], false).map(StoreUrl::Redis),
            _ => {
                let url = redacted(url);
                Err(format!("unknown store {url:?}; there is :memory, \"sqlite:PATH\" and \"redis://…\""))
            }
        }
    }

    /// Parses the URLs of some servers of a Redis Cluster. Connects to nothing.
    ///
    /// # Errors
    ///
    /// A message with the wrong URL, without its password, and what was expected.
    pub fn parse_cluster(urls: &[String]) -> Result<StoreUrl, String> {
        match urls.iter().find(|url| !ServerUrls::is_redis_url(url)) {
            _ if urls.is_empty() => {
                Err("the store is an empty Array; for a Redis Cluster it has the URLs of some of its servers".into())
            }
            Some(url) => {
                let url = redacted(url);
                Err(format!("{url:?} is no URL of a server of a Redis Cluster; {}", url::EXPECTED))
            }
            None => ServerUrls::parse(urls, true).map(StoreUrl::Redis),
        }
    }

    /// Opens the store. Blocks until it is open or `interrupt` is raised; a file is not interrupted, but waits for two
    /// seconds at most.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be reached or used, or [`StoreError::Missing`].
    pub fn open(&self, namespace: &str, access: Access, interrupt: &Interrupt) -> Result<Box<dyn Store>, StoreError> {
        match self {
            StoreUrl::Sqlite(path) => Ok(Box::new(Sqlite::open(path, namespace, access)?)),
            StoreUrl::Redis(servers) => Ok(Box::new(Redis::open(servers, namespace, access, interrupt)?)),
        }
    }

    /// Checks whether members can use the store. Returns warnings for the operator. Creates nothing: a file or a namespace
    /// that is missing is no fault, because the first member creates it. Blocks as [`StoreUrl::open`] does.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be reached or used.
    pub fn check(&self, namespace: &str, interrupt: &Interrupt) -> Result<Vec<String>, StoreError> {
        match self {
            StoreUrl::Sqlite(path) => match Sqlite::open(path, namespace, Access::Inspect) {
                Ok(_) | Err(StoreError::Missing(_)) => Ok(Vec::new()),
                Err(error) => Err(error),
            },
            StoreUrl::Redis(servers) => Redis::check(servers, namespace, interrupt),
        }
    }

    /// Returns the names of the namespaces in the store, in order. Creates nothing.
    ///
    /// # Errors
    ///
    /// See [`StoreUrl::open`].
    pub fn namespaces(&self, interrupt: &Interrupt) -> Result<Vec<String>, StoreError> {
        match self {
            StoreUrl::Sqlite(path) => Sqlite::namespaces(path),
            StoreUrl::Redis(servers) => Redis::namespaces(servers, interrupt),
        }
    }

    /// Whether nobody can be online in a store that was found to be [`StoreError::Missing`]. A file without anything in it
    /// may be one that a process could not write: its disk was full, say.
    pub(crate) fn is_unused(&self) -> bool {
        match self {
            StoreUrl::Sqlite(path) => !path.exists() || Sqlite::namespaces(path).is_ok(),
            StoreUrl::Redis(_) => true,
        }
    }

    /// Returns the shortest timeout that the store can keep, in nanoseconds: several times its poll interval.
    pub fn min_timeout(&self) -> Nanos {
        match self {
            StoreUrl::Sqlite(_) => sqlite::MIN_TIMEOUT,
            StoreUrl::Redis(_) => redis::MIN_TIMEOUT,
        }
    }
}

/// Returns why a path cannot be that of an SQLite file.
fn sqlite_fault(path: &str) -> Option<&'static str> {
    if path.starts_with(":memory") {
        return Some("would be a file of that name; :memory, a Symbol, is the store within one process");
    }
    if path.starts_with("file:") {
        return Some("has a URI for a file, which is not supported; write \"sqlite:PATH\"");
    }
    may_be_url(path).then_some(
        "has a URL, or parameters, for a path; write \"sqlite:PATH\", or the URL of a Redis without \"sqlite:\"",
    )
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
            StoreUrl::Redis(servers) => servers.fmt(formatter),
        }
    }
}
