//! URLs of Redis servers: what they mean.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::slots::Address;
use crate::error::StoreError;
use crate::redacted::{HIDDEN, is_redis, redacted};

/// What is wrong with a URL, to be put after it. Its parts are constants: a part of the URL may be a password.
type Fault = &'static [&'static str];

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
        url.split_once("://").is_some_and(|(scheme, _)| is_redis(&scheme.to_ascii_lowercase()))
    }

    /// Parses URLs. Connects to nothing.
    ///
    /// # Errors
    ///
    /// A message with the wrong URL, without its password, and what was expected.
    pub(crate) fn parse(urls: &[String], is_cluster: bool) -> Result<ServerUrls, String> {
        let (mut client_urls, mut options) = (Vec::new(), Options::default());
        for url in urls {
            let failed = |fault: Fault| {
                let fault = if has_unencoded(url) { UNENCODED } else { fault };
                format!("the store {:?} {}", redacted(url), fault.concat())
            };
            let mut parsed = parse_url(url).map_err(failed)?;
            let (database, own) = read_query(&parsed).map_err(failed)?;
            if is_cluster && database.as_deref().is_some_and(|database| database != "0") {
                return Err(failed(&["names a database, but a Redis Cluster has only database 0. Leave it out"]));
            }
            options.merge(own).map_err(failed)?;
            if parsed.fragment().is_some() {
                return Err(failed(&[
                    "has a \"#\"; if it belongs to a password or a path, write it as %23, else leave it out, with \
                                     what is behind it",
                ]));
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
            parsed.clone().into_connection_info().map_err(|_| failed(INVALID))?;
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

    /// Returns a text without the password, in case a server quotes it.
    pub(super) fn without_password(&self, text: &str) -> String {
        let infos = self.client_urls.iter().filter_map(|url| url.as_str().into_connection_info().ok());
        let passwords = infos.filter_map(|info| info.redis_settings().password().map(str::to_owned));
        let written =
            self.client_urls.iter().filter_map(|url| url::Url::parse(url).ok()?.password().map(str::to_owned));
        // A shorter one is part of words of the text.
        let passwords = passwords.chain(written).filter(|password| password.len() > 3);
        passwords.fold(text.to_owned(), |text, password| text.replace(&password, HIDDEN))
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
            std::fs::read(file)
                .map_err(|error| StoreError::Misconfigured(format!("{self}: the ca_file cannot be read: {error}")))
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

/// Parses the parts of a URL that every URL has.
fn parse_url(url: &str) -> Result<url::Url, Fault> {
    match redis::parse_redis_url(url) {
        Some(parsed) if is_socket(parsed.scheme()) => Ok(parsed),
        Some(parsed) if parsed.port() == Some(0) => Err(INVALID_PORT),
        Some(parsed) if parsed.host_str().is_none_or(str::is_empty) => Err(&["names no host; ", EXPECTED]),
        Some(parsed) => Ok(parsed),
        None if url::Url::parse(url) == Err(url::ParseError::InvalidPort) => Err(INVALID_PORT),
        None => Err(INVALID),
    }
}

/// Reads the query of a URL. Returns the database that it or the path names, and the options.
fn read_query(url: &url::Url) -> Result<(Option<String>, Options), Fault> {
    let is_socket = is_socket(url.scheme());
    let has_tls = matches!(url.scheme(), "rediss" | "valkeys");
    let path = url.path().trim_matches('/');
    let mut database = (!is_socket && !path.is_empty()).then(|| path.to_owned());
    if database.as_deref().is_some_and(|database| !is_database(database)) {
        return Err(&["has behind its host a database that is no number; write it as in \"redis://host:6379/0\""]);
    }
    let mut options = Options::default();
    let mut names: Vec<String> = Vec::new();
    for (name, value) in url.query_pairs() {
        if names.iter().any(|other| *other == name) {
            return Err(&["has one parameter twice; write it once"]);
        }
        names.push(name.clone().into_owned());
        match &*name {
            "db" if !is_database(&value) => return Err(&["has a \"db\" that is no number; write it as in \"db=0\""]),
            "db" if database.as_deref().is_some_and(|other| other != value) => {
                return Err(&["names two databases, one behind the host and one as \"db\"; write one of them"]);
            }
            "db" => database = Some(value.into_owned()),
            "user" | "pass" if is_socket => {}
            "user" | "username" | "pass" | "password" if is_socket => {
                return Err(&["has \"username\" or \"password\" in its query; write \"user\" and \"pass\", as in \
                              \"redis+unix:///path/of/socket?user=…&pass=…\""]);
            }
            "user" | "username" | "pass" | "password" => {
                return Err(&["has a user or a password in its query; write \"redis://user:password@host\""]);
            }
            "prefix" if value.contains(['{', '}']) => {
                return Err(&["has a prefix with braces; it may have none, since they say where a key is kept"]);
            }
            "prefix" => options.prefix = Some(value.into_owned()),
            "verify" if value != "none" => {
                return Err(&[
                    "has another \"verify\" than \"none\"; leave it out to verify the server's certificate, or write \
                              verify=none, which is unsafe",
                ]);
            }
            "ca_file" if !has_tls => {
                return Err(&["has a \"ca_file\", which is for TLS; write \"rediss://…\" for a server with TLS"]);
            }
            "verify" if !has_tls => {
                return Err(&["has \"verify\", which is for TLS; write \"rediss://…\" for a server with TLS"]);
            }
            "verify" => options.accepts_any = true,
            "ca_file" => options.ca_file = Some(value.into_owned()),
            _ if names.iter().any(|name| name == "pass") => {
                return Err(&["has an unknown parameter behind the password: in that, ", ENCODING, ". ", PARAMETERS]);
            }
            _ => return Err(&["has an unknown parameter. ", PARAMETERS]),
        }
    }
    if options.accepts_any && options.ca_file.is_some() {
        return Err(&["has both ca_file and verify=none; leave out verify=none to trust the certificates of the file"]);
    }
    Ok((database, options))
}

/// Whether a text is the number of a database.
fn is_database(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok()
}

impl Options {
    /// Adds the options of another URL of the same store.
    fn merge(&mut self, other: Options) -> Result<(), Fault> {
        let differs =
            |mine: &Option<String>, other: &Option<String>| mine.is_some() && other.is_some() && mine != other;
        if differs(&self.prefix, &other.prefix) || differs(&self.ca_file, &other.ca_file) {
            return Err(&["has another prefix or ca_file than the URL before it; write the same in all"]);
        }
        self.prefix = self.prefix.take().or(other.prefix);
        self.ca_file = self.ca_file.take().or(other.ca_file);
        self.accepts_any |= other.accepts_any;
        Ok(())
    }
}

const PARAMETERS: &str =
    "There is \"db\", \"prefix\", with TLS \"ca_file\" and \"verify\", and for a socket \"user\" and \"pass\"";

const INVALID: Fault = &["is no URL of a Redis; ", EXPECTED];
const INVALID_PORT: Fault = &[
    "has a port that is no number from 1 to 65535; ",
    EXPECTED,
    ". If that is a password, write \"@\" and the host behind it",
];

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
                                   \"@\" as %40, \"&\" as %26, \"+\" as %2B and \"%\" as %25";

const UNENCODED: Fault = &["has a password that ends too soon: in it, ", ENCODING];

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

#[cfg(test)]
mod tests {
    use super::*;

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
            ("redis://localhost/1?db=2", "two databases, one behind"),
            ("redis://localhost?db=two", "no number"),
            ("redis://localhost/two", "behind its host a database that is no number"),
            ("redis://localhost:99999", "a port that is no number from 1 to 65535"),
            ("redis://localhost:0", "a port that is no number"),
            ("redis://ann:secret", "write \"@\" and the host"),
            ("redis:///0", "names no host"),
            ("redis+unix:///s?pass=a&secret", "behind the password: in that, these characters"),
            ("redis+unix:///s?pass=a#secret", "write it as %23"),
            ("redis://localhost?pass=secret", "write \"redis://user:password@host\""),
            ("redis+unix:///socket?password=secret", "write \"user\" and \"pass\""),
            ("redis://localhost?timeout=3", "timeout=***\" has an unknown parameter. There is \"db\""),
            ("redis://localhost?prefix=a&prefix=b", "has one parameter twice"),
            ("redis://localhost?prefix={a}", "with braces"),
            ("redis://localhost?ca_file=/ca.pem", "write \"rediss://…\""),
            ("redis://localhost?verify=none", "write \"rediss://…\""),
            ("rediss://localhost?verify=peer", "verify=none, which is unsafe"),
            ("rediss://localhost?verify=none&ca_file=/ca.pem", "both ca_file and verify=none"),
            ("rediss://localhost#insecure", "else leave it out"),
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
