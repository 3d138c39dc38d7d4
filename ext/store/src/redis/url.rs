//! URLs of Redis servers: what they mean, and how they are shown without their passwords.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::error::StoreError;

const SCHEMES: [&str; 7] = ["redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix", "unix"];

/// The URL of one server, or of some servers of a cluster. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrls {
    urls: Vec<String>,
    is_cluster: bool,
}

impl ServerUrls {
    /// Whether a URL has a scheme of Redis or Valkey.
    pub(crate) fn is_redis_url(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
    }

    /// Parses URLs. Connects to nothing.
    ///
    /// # Errors
    ///
    /// A message with the wrong URL, without its password, and what was expected.
    pub(crate) fn parse(urls: &[String], is_cluster: bool) -> Result<ServerUrls, String> {
        for url in urls {
            redis::parse_redis_url(url)
                .and_then(|parsed| parsed.into_connection_info().ok())
                .ok_or_else(|| format!("the store {:?} is no URL of a Redis; {EXPECTED}", redacted(url)))?;
        }
        Ok(ServerUrls { urls: urls.to_vec(), is_cluster })
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Returns what the client needs to connect to each server.
    pub(super) fn connection_infos(&self) -> Result<Vec<ConnectionInfo>, StoreError> {
        let infos = self.urls.iter().map(|url| url.as_str().into_connection_info()).collect::<redis::RedisResult<_>>();
        infos.map_err(|error| StoreError::Misconfigured(format!("{self}: {error}")))
    }

    /// Reads the file of CA certificates, in PEM, that the first URL names with `ca_file`, if it does.
    pub(super) fn ca(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let url = self.urls.first().and_then(|url| redis::parse_redis_url(url));
        let file = url.and_then(|url| {
            url.query_pairs().find(|(name, _)| name == "ca_file").map(|(_, path)| PathBuf::from(path.as_ref()))
        });
        let read = |file: PathBuf| {
            std::fs::read(&file).map_err(|error| {
                StoreError::Misconfigured(format!("{self}: the ca_file {} cannot be read: {error}", file.display()))
            })
        };
        file.map(read).transpose()
    }
}

/// The forms of a URL, for messages.
pub(crate) const EXPECTED: &str = "it may be \"redis://user:password@host:6379/0\", \"rediss://…\" with TLS, or \
                                 \"redis+unix:///path/of/socket\"";

impl fmt::Display for ServerUrls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| redacted(url)).collect();
        formatter.write_str(&urls.join(", "))
    }
}

impl fmt::Debug for ServerUrls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServerUrls({self})")
    }
}

/// Returns a URL without its password. The URL may be malformed: rather too much is left out than too little.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // The slashes may be missing.
        return match (url.split_once(':'), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, address))) => format!("{scheme}:***@{address}"),
            _ => url.to_owned(),
        };
    };
    let rest = match rest.rsplit_once('@') {
        Some((user, address)) => {
            let user = user.split_once(':').map_or(user.to_owned(), |(name, _)| format!("{name}:***"));
            format!("{user}@{address}")
        }
        None => rest.to_owned(),
    };
    let rest = match rest.split_once('?') {
        Some((address, query)) => {
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((name @ ("pass" | "password"), _)) => format!("{name}=***"),
                _ => pair.to_owned(),
            });
            format!("{address}?{}", pairs.collect::<Vec<_>>().join("&"))
        }
        None => rest,
    };
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://:secret@localhost/1", "redis://:***@localhost/1"),
            ("rediss://ann:se:cr@et@localhost?ca_file=/ca.pem", "rediss://ann:***@localhost?ca_file=/ca.pem"),
            ("redis://ann@localhost", "redis://ann@localhost"),
            ("redis+unix:///run/redis?db=1&user=ann&pass=secret", "redis+unix:///run/redis?db=1&user=ann&pass=***"),
            ("redis://ann:secret/@host", "redis://ann:***@host"),
            ("redis:ann:secret@host", "redis:***@host"),
            ("sqlite:/a/b", "sqlite:/a/b"),
        ] {
            assert_eq!(redacted(url), shown);
            let servers = ServerUrls { urls: vec![url.to_owned()], is_cluster: false };
            assert!(!format!("{servers:?} {servers}").contains("secret"));
        }
    }

    #[test]
    fn urls_are_validated_without_connecting() {
        assert!(ServerUrls::is_redis_url("rediss://localhost") && !ServerUrls::is_redis_url("sqlite:redis://"));
        let parse = |url: &str| ServerUrls::parse(&[url.to_owned()], false);
        assert!(parse("redis://localhost:6379/0").is_ok());
        assert!(parse("redis+unix:///run/redis.sock?db=1").is_ok());
        assert!(parse("redis://ann:secret@localhost:port").is_err_and(|message| !message.contains("secret")));
        assert!(parse("redis://localhost/zero").is_err());
    }
}
