//! The `store:` option: which store it names.

use std::fmt;
use std::path::PathBuf;

use crate::error::StoreError;
use crate::interrupt::Interrupt;
use crate::redis::Redis;
use crate::redis::url::{self, ServerUrls};
use crate::sqlite::Sqlite;
use crate::store::Store;

/// Where a store is. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// The path of an SQLite file.
    Sqlite(PathBuf),
    /// A Redis server, or some servers of a Redis Cluster.
    Redis(ServerUrls),
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
            Some(("sqlite", path)) => Ok(StoreUrl::Sqlite(PathBuf::from(path))),
            _ if ServerUrls::is_redis_url(url) => ServerUrls::parse(&[url.to_owned()], false).map(StoreUrl::Redis),
            _ => {
                let url = url::redacted(url);
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
                let url = url::redacted(url);
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
    /// [`StoreError`] if the store cannot be reached or used.
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
