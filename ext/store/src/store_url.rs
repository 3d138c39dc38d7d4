//! Which store a `store:` option means.

use std::fmt;
use std::path::PathBuf;

use crate::error::StoreError;
use crate::interrupt::Interrupt;
use crate::redis::Redis;
use crate::redis::url::{self, ServerUrls};
use crate::sqlite::Sqlite;
use crate::store::Store;

/// Where a store is. Shows no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A Redis, or a cluster of them.
    Redis(ServerUrls),
}

impl StoreUrl {
    /// Reads a `store:` option: `sqlite:PATH`, or the URL of a Redis.
    ///
    /// # Errors
    ///
    /// A message that says what came and what was wanted.
    pub fn parse(url: &str) -> Result<StoreUrl, String> {
        match url.split_once(':') {
            Some(("sqlite", "")) => Err(format!("the store {url:?} names no file; it must be \"sqlite:PATH\"")),
            Some(("sqlite", path)) => Ok(StoreUrl::Sqlite(PathBuf::from(path))),
            _ if ServerUrls::is_redis_url(url) => ServerUrls::parse(&[url.to_owned()], false).map(StoreUrl::Redis),
            _ => {
                let url = url::redacted(url);
                Err(format!("unknown store {url:?}; there is :memory, \"sqlite:PATH\" and \"redis://…\""))
            }
        }
    }

    /// Reads the URLs of some servers of a Redis Cluster.
    ///
    /// # Errors
    ///
    /// A message that says what came and what was wanted.
    pub fn parse_cluster(urls: &[String]) -> Result<StoreUrl, String> {
        match urls.iter().find(|url| !ServerUrls::is_redis_url(url)) {
            _ if urls.is_empty() => {
                Err("the store is an empty Array; for a Redis Cluster it has the URLs of some of its servers".into())
            }
            Some(url) => {
                let url = url::redacted(url);
                Err(format!("{url:?} is no URL of a server of a Redis Cluster; {}", url::EXPECTED))
            }
            None => ServerUrls::parse(urls, true).map(StoreUrl::Redis),
        }
    }

    /// Opens the store. Blocks, until it is interrupted.
    ///
    /// # Errors
    ///
    /// See [`StoreError`].
    pub fn open(&self, namespace: &str, interrupt: &Interrupt) -> Result<Box<dyn Store>, StoreError> {
        match self {
            StoreUrl::Sqlite(path) => Ok(Box::new(Sqlite::open(path, namespace)?)),
            StoreUrl::Redis(servers) => Ok(Box::new(Redis::open(servers, namespace, interrupt)?)),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
            StoreUrl::Redis(servers) => servers.fmt(formatter),
        }
    }
}
