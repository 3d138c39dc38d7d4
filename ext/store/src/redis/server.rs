//! Whether a server can be used, by what it says of itself.

use redis::Value;

use super::url::ServerUrls;
use crate::error::StoreError;

/// The oldest version that works: the scripts use ZMSCORE, and LIMIT with BYSCORE.
const MIN_VERSION: (u32, u32) = (6, 2);

/// How to use a cluster.
pub(super) const AS_CLUSTER: &str =
    "give the URLs of some of its servers as an Array; on the command line, add --cluster";

pub(super) fn info_text(info: Value) -> String {
    redis::from_redis_value(info).unwrap_or_default()
}

/// Writes the reply of HELLO as INFO would have it.
pub(super) fn hello_text(hello: Value) -> String {
    let pairs: Vec<(String, Value)> = redis::from_redis_value(hello).unwrap_or_default();
    let lines = pairs.into_iter().filter_map(|(name, value)| {
        let value: String = redis::from_redis_value(value).ok()?;
        match (name.as_str(), value.as_str()) {
            ("version", version) => Some(format!("redis_version:{version}")),
            ("mode", "cluster") => Some("cluster_enabled:1".to_owned()),
            ("mode", mode) => Some(format!("redis_mode:{mode}")),
            ("role", "replica") => Some("role:slave".to_owned()),
            _ => None,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Checks a server's INFO. Returns warnings for the operator; fails if the server cannot be used.
pub(super) fn check(servers: &ServerUrls, info: &str) -> Result<Vec<String>, StoreError> {
    let misconfigured = |what: String| Err(StoreError::Misconfigured(format!("{servers}: {what}")));
    let field = |name: &str| {
        info.lines().find_map(|line| line.split_once(':').filter(|(field, _)| *field == name).map(|(_, value)| value))
    };
    // Valkey calls it `server_mode`.
    if field("redis_mode").or_else(|| field("server_mode")) == Some("sentinel") {
        return misconfigured(
            "this is a Redis Sentinel, which keeps no data and is not supported; give the URL of the master, by a name or \
             an address that follows it"
                .into(),
        );
    }
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
            return misconfigured(format!("this is a server of a Redis Cluster; {AS_CLUSTER}"));
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
