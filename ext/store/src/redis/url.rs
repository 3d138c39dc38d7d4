//! URLs of Redis servers: what they mean, and how they are shown without their passwords.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::slots::Address;
use crate::error::StoreError;

const SCHEMES: [&str; 7] = ["redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix", "unix"];

/// The URL of one server, or of some servers of a cluster. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrls {
    urls: Vec<String>,
    /// The URLs as the client library reads them.
    client_urls: Vec<String>,
    is_cluster: bool,
    options: Options,
}

/// What the query of a URL says that the client library does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    /// What is put before every key.
    prefix: Option<String>,
    /// The file of certificates to trust, in PEM.
    ca_file: Option<String>,
    /// Whether every certificate is accepted.
    accepts_any: bool,
}

impl ServerUrls {
    /// Whether a URL has a scheme of Redis or Valkey.
    pub(crate) fn is_redis_url(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()))
    }

    /// Parses URLs. Connects to nothing.
    ///
    /// # Errors
    ///
    /// A message with the wrong URL, without its password, and what was expected.
    pub(crate) fn parse(urls: &[String], is_cluster: bool) -> Result<ServerUrls, String> {
        let (mut client_urls, mut options) = (Vec::new(), Options::default());
        for url in urls {
            let failed = |what: String| {
                let what = if has_unencoded(url) { UNENCODED.to_owned() + ENCODING } else { what };
                format!("the store {:?} {what}", redacted(url))
            };
            let invalid = || failed(format!("is no URL of a Redis; {EXPECTED}"));
            let mut parsed = redis::parse_redis_url(url).ok_or_else(invalid)?;
            let (database, own) = read_query(&parsed).map_err(failed)?;
            if is_cluster && database.as_deref().is_some_and(|database| database != "0") {
                return Err(failed("names a database, but a Redis Cluster has only database 0. Leave it out".into()));
            }
            options.merge(own).map_err(failed)?;
            if parsed.fragment().is_some() {
                return Err(failed("has a \"#\"; leave it out, with what is behind it".into()));
            }
            if is_socket(parsed.scheme()) {
                let pairs: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
                let known = pairs.iter().filter(|(name, _)| SOCKET_PARAMETERS.contains(&name.as_str()));
                parsed.query_pairs_mut().clear().extend_pairs(known);
            } else {
                parsed.set_query(None);
                if let Some(database) = database {
                    parsed.set_path(&database);
                }
            }
            parsed.clone().into_connection_info().map_err(|_| invalid())?;
            client_urls.push(parsed.to_string());
        }
        if options.accepts_any {
            client_urls.iter_mut().for_each(|url| url.push_str(INSECURE));
        }
        Ok(ServerUrls { urls: urls.to_vec(), client_urls, is_cluster, options })
    }

    /// What is put before every key.
    pub(super) fn prefix(&self) -> &str {
        self.options.prefix.as_deref().unwrap_or_default()
    }

    /// Whether the URL is one for TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.client_urls.iter().any(|url| url.starts_with("rediss:") || url.starts_with("valkeys:"))
    }

    /// The number of the database.
    pub(super) fn database(&self) -> i64 {
        let info = self.client_urls.first().and_then(|url| url.as_str().into_connection_info().ok());
        info.map_or(0, |info| info.redis_settings().db())
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Whether the server's certificate is verified.
    pub(super) fn is_verified(&self) -> bool {
        !self.options.accepts_any
    }

    pub(super) fn ca_file(&self) -> Option<&str> {
        self.options.ca_file.as_deref()
    }

    /// Returns what the client needs to connect to each server.
    pub(super) fn connection_infos(&self) -> Result<Vec<ConnectionInfo>, StoreError> {
        let infos = self.client_urls.iter().map(|url| url.as_str().into_connection_info());
        let infos = infos.collect::<redis::RedisResult<_>>();
        infos.map_err(|error| StoreError::Misconfigured(format!("{self}: {error}")))
    }

    /// Returns the hosts and ports of the servers of a cluster.
    pub(super) fn addresses(&self) -> Result<Vec<Address>, StoreError> {
        let address = |info: ConnectionInfo| match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Ok((host.clone(), *port)),
            _ => Err(StoreError::Misconfigured(format!(
                "{self}: a Redis Cluster has no socket; give URLs as \"redis://host:6379\""
            ))),
        };
        self.connection_infos()?.into_iter().map(address).collect()
    }

    /// Returns the URL of a server of the cluster: the one that names it, or like the first one, but for its host and port.
    pub(super) fn of(&self, address @ (host, port): &Address) -> ServerUrls {
        let named = self.addresses().ok().and_then(|all| all.iter().position(|other| other == address)).unwrap_or(0);
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let url_of = |url: &String| {
            let mut url = url::Url::parse(url).ok()?;
            url.set_host(Some(&host)).ok()?;
            url.set_port(Some(*port)).ok()?;
            Some(url.to_string())
        };
        let client_urls: Vec<String> = self.client_urls.get(named).and_then(url_of).into_iter().collect();
        let urls = client_urls.iter().map(|url| url.trim_end_matches(INSECURE).to_owned()).collect();
        ServerUrls { urls, client_urls, is_cluster: true, options: self.options.clone() }
    }

    /// Reads the file of certificates, in PEM, that the URL names with `ca_file`, if it does.
    pub(super) fn ca(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let read = |file: &str| {
            std::fs::read(file).map_err(|error| {
                StoreError::Misconfigured(format!("{self}: the ca_file {file} cannot be read: {error}"))
            })
        };
        self.ca_file().map(read).transpose()
    }
}

/// How the client library writes that any certificate is accepted.
const INSECURE: &str = "#insecure";
/// The parameters of the URL of a socket that the client library knows.
const SOCKET_PARAMETERS: [&str; 3] = ["db", "user", "pass"];

fn is_socket(scheme: &str) -> bool {
    scheme.ends_with("unix")
}

/// Reads the query of a URL. Returns the database that it or the path names, and the options.
///
/// # Errors
///
/// What is wrong with it, to be put after the URL.
fn read_query(url: &url::Url) -> Result<(Option<String>, Options), String> {
    let is_socket = is_socket(url.scheme());
    let has_tls = matches!(url.scheme(), "rediss" | "valkeys");
    let path = url.path().trim_matches('/');
    let mut database = (!is_socket && !path.is_empty()).then(|| path.to_owned());
    let mut options = Options::default();
    let mut names: Vec<String> = Vec::new();
    for (name, value) in url.query_pairs() {
        if names.iter().any(|other| *other == name) {
            return Err(format!("has {name:?} twice; write it once"));
        }
        names.push(name.clone().into_owned());
        match &*name {
            "db" if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(format!("has the database {value:?}; expected a number, as in \"db=0\""));
            }
            "db" => match &database {
                Some(other) if *other != value => {
                    return Err(format!("names two databases, {other} and {value}; write one of them"));
                }
                _ => database = Some(value.into_owned()),
            },
            "user" | "pass" if is_socket => {}
            "user" | "username" | "pass" | "password" => {
                let form = if is_socket {
                    "\"user\" and \"pass\", as in \"redis+unix:///path/of/socket?user=…&pass=…\""
                } else {
                    "\"redis://user:password@host\""
                };
                return Err(format!("has {name:?} in its query; write {form}"));
            }
            "prefix" if value.contains(['{', '}']) => {
                return Err(format!(
                    "has the prefix {value:?}; it may have no braces, since those say where a key is kept"
                ));
            }
            "prefix" => options.prefix = Some(value.into_owned()),
            "verify" if value != "none" => {
                return Err(format!(
                    "has verify={value}; leave it out to verify the server's certificate, or write verify=none, which is unsafe"
                ));
            }
            "ca_file" | "verify" if !has_tls => {
                return Err(format!("has {name:?}, which is for TLS; write \"rediss://…\" for a server with TLS"));
            }
            "verify" => options.accepts_any = true,
            "ca_file" => options.ca_file = Some(value.into_owned()),
            _ => return Err(format!("has the unknown parameter {name:?}; {PARAMETERS}")),
        }
    }
    if options.accepts_any && options.ca_file.is_some() {
        return Err(
            "has both ca_file and verify=none; leave out verify=none to trust the certificates of the file".into()
        );
    }
    Ok((database, options))
}

impl Options {
    /// Adds the options of another URL of the same store.
    fn merge(&mut self, other: Options) -> Result<(), String> {
        let differs =
            |mine: &Option<String>, other: &Option<String>| mine.is_some() && other.is_some() && mine != other;
        if differs(&self.prefix, &other.prefix) || differs(&self.ca_file, &other.ca_file) {
            return Err("has another prefix or ca_file than the URL before it; write the same in all".into());
        }
        self.prefix = self.prefix.take().or(other.prefix);
        self.ca_file = self.ca_file.take().or(other.ca_file);
        self.accepts_any |= other.accepts_any;
        Ok(())
    }
}

const PARAMETERS: &str =
    "there is \"db\", \"prefix\", with TLS \"ca_file\" and \"verify\", and for a socket \"user\" and \"pass\"";

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

/// How to write special characters.
pub(super) const ENCODING: &str = "these characters are percent-encoded: write \"#\" as %23, \"/\" as %2F, \"?\" as %3F, \
                                   \"@\" as %40 and \"%\" as %25";

const UNENCODED: &str = "has a password that ends too soon: in it, ";

/// Whether something behind the host looks like the end of a password.
fn has_unencoded(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let (query, fragment) = query.split_once('#').unwrap_or((query, ""));
    // The values of a query may have one, as in a path of a file.
    let is_in_query = query.contains('@') && !authority.contains('@');
    !is_socket(scheme) && (path.contains('@') || fragment.contains('@') || is_in_query)
}

/// Returns a URL without its password. The URL may be malformed: rather too much is left out than too little.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // The slashes may be missing.
        return match (url.split_once(':'), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, address))) => format!("{scheme}:***@{}", redacted_query(address)),
            _ => redacted_query(url),
        };
    };
    let rest = match rest.rsplit_once('@') {
        Some((user, address)) => {
            let user = user.split_once(':').map_or(user.to_owned(), |(name, _)| format!("{name}:***"));
            format!("{user}@{address}")
        }
        None => rest.to_owned(),
    };
    format!("{scheme}://{}", redacted_query(&rest))
}

/// The parameters whose values are shown: any other may hold a secret, however its name is written.
const SHOWN_PARAMETERS: [&str; 5] = ["db", "prefix", "user", "ca_file", "verify"];

/// What may stand before a parameter, also where it is written by mistake.
const BEFORE_PARAMETERS: [char; 4] = ['?', '&', ';', '#'];

/// Returns a URL or its end, without the values of parameters that may be secrets.
fn redacted_query(url: &str) -> String {
    let (address, query) = url.split_at(url.find(BEFORE_PARAMETERS).unwrap_or(url.len()));
    let pairs = query.split_inclusive(BEFORE_PARAMETERS).map(|pair| {
        let separator = pair.get(pair.trim_end_matches(BEFORE_PARAMETERS).len()..).unwrap_or_default();
        match pair.trim_end_matches(BEFORE_PARAMETERS).split_once('=') {
            Some((name, _)) if SHOWN_PARAMETERS.contains(&name) => pair.to_owned(),
            Some((name, _)) => format!("{name}=***{separator}"),
            None => pair.to_owned(),
        }
    });
    address.to_owned() + &pairs.collect::<String>()
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
            ("redis://h?PASSWORD=secret&db=1", "redis://h?PASSWORD=***&db=1"),
            ("redis://h?%70assword=secret", "redis://h?%70assword=***"),
            ("redis+unix:///run/redis?db=1;Pass=secret", "redis+unix:///run/redis?db=1;Pass=***"),
            ("redis:h?token=secret", "redis:h?token=***"),
            ("redis+unix:///run/redis;pass=secret", "redis+unix:///run/redis;pass=***"),
            ("redis+unix:///run/redis&pass=secret?db=1", "redis+unix:///run/redis&pass=***?db=1"),
            ("redis://h/0#password=secret", "redis://h/0#password=***"),
            ("sqlite:/a/b", "sqlite:/a/b"),
        ] {
            assert_eq!(redacted(url), shown);
            let urls = vec![url.to_owned()];
            let servers =
                ServerUrls { client_urls: urls.clone(), urls, is_cluster: false, options: Options::default() };
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

    #[test]
    fn the_query_counts_or_is_an_error_that_says_what_to_write() {
        let parse = |url: &str| ServerUrls::parse(&[url.to_owned()], false);
        for url in
            ["redis://localhost?db=3", "REDIS://localhost/3", "redis+unix:///socket?db=3", "redis://localhost/3?db=3"]
        {
            assert!(ServerUrls::is_redis_url(url));
            let infos = parse(url).and_then(|servers| servers.connection_infos().map_err(|error| error.to_string()));
            assert_eq!(infos.map(|infos| infos.iter().map(|info| info.redis_settings().db()).collect()), Ok(vec![3]));
        }
        for (url, message) in [
            ("redis://localhost/1?db=2", "two databases, 1 and 2"),
            ("redis://localhost?db=two", "expected a number"),
            ("redis://localhost?pass=secret", "write \"redis://user:password@host\""),
            ("redis+unix:///socket?password=secret", "write \"user\" and \"pass\""),
            ("redis://localhost?timeout=3", "unknown parameter \"timeout\"; there is \"db\""),
            ("redis://localhost?prefix=a&prefix=b", "has \"prefix\" twice"),
            ("redis://localhost?prefix={a}", "no braces"),
            ("redis://localhost?ca_file=/ca.pem", "write \"rediss://…\""),
            ("redis://localhost?verify=none", "write \"rediss://…\""),
            ("rediss://localhost?verify=peer", "verify=none, which is unsafe"),
            ("rediss://localhost?verify=none&ca_file=/ca.pem", "both ca_file and verify=none"),
            ("rediss://localhost#insecure", "has a \"#\"; leave it out"),
            ("redis://ann:1#secret@localhost", "percent-encoded: write \"#\" as %23"),
            ("redis://ann:1/secret@localhost", "percent-encoded"),
            ("redis://ann:1?secret@localhost", "percent-encoded"),
            ("redis://ann:p@1/secret@localhost", "percent-encoded"),
        ] {
            let error = parse(url).err().unwrap_or_default();
            assert!(error.contains(message) && !error.contains("secret"), "{url}: {error}");
        }
        let cluster =
            |urls: &[&str]| ServerUrls::parse(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>(), true);
        assert!(cluster(&["redis://a/1"]).is_err_and(|error| error.contains("only database 0")));
        assert!(
            cluster(&["redis://a?prefix=x", "redis://b?prefix=y"])
                .is_err_and(|error| error.contains("the same in all"))
        );
        assert_eq!(
            cluster(&["redis://a?prefix=x", "redis://b"]).map(|servers| servers.prefix().to_owned()),
            Ok("x".into())
        );
    }
}
