//! How a `store:` option is shown: without what may be a secret.
//!
//! Only what is known to be harmless is shown: a scheme, a host, a port, the number of a database, the path of a file, and the
//! values of some parameters. A URL with a mistake in it may have its password at any other place. No message quotes a part
//! of a URL in any other way.

/// What is shown instead of what may be a secret.
pub(crate) const HIDDEN: &str = "***";

/// The schemes of Redis and Valkey.
const REDIS_SCHEMES: [&str; 7] = ["redis", "rediss", "valkey", "valkeys", "redis+unix", "valkey+unix", "unix"];

/// Schemes of something else, which are shown in the message that they are unknown.
const OTHER_SCHEMES: [&str; 13] = [
    "amqp",
    "file",
    "http",
    "https",
    "memcached",
    "mongodb",
    "mysql",
    "mysql2",
    "postgres",
    "postgresql",
    "sqlite",
    "sqlite3",
    "tcp",
];

/// The parameters whose values are shown if they are well-formed.
const SHOWN_PARAMETERS: [&str; 5] = ["db", "prefix", "user", "ca_file", "verify"];

/// The parameters whose names are shown: the ones with a password, and some that other clients of Redis know.
const NAMED_PARAMETERS: [&str; 12] = [
    "pass",
    "password",
    "username",
    "token",
    "timeout",
    "connect_timeout",
    "read_timeout",
    "protocol",
    "ssl",
    "tls",
    "id",
    "namespace",
];

/// How a file of SQLite is usually named.
const FILE_EXTENSIONS: [&str; 4] = [".db", ".sqlite", ".sqlite3", ".sqlite3.db"];

/// Returns a store's URL, which may be malformed, without what may be a secret.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':') else {
        let is_file = FILE_EXTENSIONS.iter().any(|extension| url.ends_with(extension)) && is_plain(url);
        return if is_file || ["", "memory"].contains(&url) { url } else { HIDDEN }.to_owned();
    };
    match (scheme.to_ascii_lowercase().as_str(), rest.strip_prefix("//")) {
        ("sqlite", _) if !may_be_url(rest) => url.to_owned(),
        (known, Some(rest)) if is_redis(known) => {
            format!("{scheme}://{}", redacted_rest(rest, known.ends_with("unix")))
        }
        ("http" | "https" | "tcp", Some(rest)) => format!("{scheme}://{}", redacted_rest(rest, false)),
        (known, slashes) if is_redis(known) || OTHER_SCHEMES.contains(&known) => {
            format!("{scheme}:{}{HIDDEN}", if slashes.is_some() { "//" } else { "" })
        }
        _ => HIDDEN.to_owned(),
    }
}

/// Whether a scheme, in lower case, is one of Redis or Valkey.
pub(crate) fn is_redis(scheme: &str) -> bool {
    REDIS_SCHEMES.contains(&scheme)
}

/// Whether the path of an SQLite file looks like a URL, which may have a password.
pub(crate) fn may_be_url(path: &str) -> bool {
    // An absolute path may be in a folder with such a name.
    let is_absolute = path.starts_with('/') && !path.starts_with("//");
    let has_user = path.split_once(':').is_some_and(|(_, rest)| rest.contains('@'));
    let is_scheme = |part: &str| part.split_once(':').is_some_and(|(name, _)| is_redis(&name.to_ascii_lowercase()));
    path.contains("://") || path.split('/').any(is_scheme) || (has_user && !is_absolute) || has_parameters(path)
}

/// Whether something like `?mode=memory` is behind a path.
fn has_parameters(path: &str) -> bool {
    path.split_once('?').is_some_and(|(_, query)| query.contains('='))
}

/// Whether a value has only characters that need no percent-encoding in a URL, and none that ends a part of one.
fn is_plain(value: &str) -> bool {
    value.chars().all(|character| character.is_alphanumeric() || "_-./:%~+".contains(character))
}

/// Whether a value is a number of a port or of a database. A longer one may be a password.
fn is_number(value: &str) -> bool {
    (1..=5).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns what is behind the `//` of a URL.
fn redacted_rest(rest: &str, is_socket: bool) -> String {
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if tail.contains('@') && !authority.is_empty() {
        // A password with a "/", for example: its end is in the path.
        return HIDDEN.to_owned();
    }
    let ends_path: &[char] = if is_socket { &['?', '#', '&', ';'] } else { &['?', '#'] };
    let (path, query) = tail.split_at(tail.find(ends_path).unwrap_or(tail.len()));
    let is_shown = if is_socket { is_plain(path) } else { path.is_empty() || is_number(path.trim_matches('/')) };
    let path = if is_shown || path == "/" { path } else { "/***" };
    format!("{}{path}{}", redacted_authority(authority), redacted_query(query))
}

/// Returns the user, the host and the port. A user without a password is hidden: it is a password that was written in the wrong
/// place.
fn redacted_authority(authority: &str) -> String {
    let Some((user, address)) = authority.rsplit_once('@') else { return redacted_address(authority) };
    let user = match user.split_once(':') {
        Some((name, password)) if !password.is_empty() && is_plain(name) => format!("{name}:{HIDDEN}"),
        _ if user.is_empty() => String::new(),
        _ => HIDDEN.to_owned(),
    };
    format!("{user}@{}", redacted_address(address))
}

fn redacted_address(address: &str) -> String {
    let (host, port) = match address.find(']') {
        // The address of IPv6 has colons.
        Some(end) if address.starts_with('[') => address.split_at(end + 1),
        _ => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    let is_address = |host: &str| host.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
    let is_name = host.chars().all(|character| character.is_alphanumeric() || "-._".contains(character));
    let is_host = is_name || host.strip_prefix('[').is_some_and(|host| is_address(host.trim_end_matches(']')));
    let host = if is_host { host } else { HIDDEN };
    match port.strip_prefix(':') {
        Some(number) if number.is_empty() || is_number(number) => format!("{host}:{number}"),
        Some(_) => format!("{host}:{HIDDEN}"),
        None if port.is_empty() => host.to_owned(),
        None => format!("{host}{HIDDEN}"),
    }
}

/// Returns the parameters, also those behind a wrong separator, and a fragment.
fn redacted_query(query: &str) -> String {
    let (query, fragment) = query.split_at(query.find('#').unwrap_or(query.len()));
    let has_password = query.contains("pass=");
    let separators = ['?', '&', ';'];
    let mut shown = String::new();
    for pair in query.split_inclusive(separators) {
        let (pair, separator) = pair.split_at(pair.trim_end_matches(separators).len());
        let (name, value) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
        let is_shown = |value: &str| match name {
            "db" => is_number(value),
            "verify" => value == "none",
            "user" => has_password && is_plain(value),
            name => SHOWN_PARAMETERS.contains(&name) && is_plain(value),
        };
        let is_named = SHOWN_PARAMETERS.contains(&name) || NAMED_PARAMETERS.contains(&name.to_lowercase().as_str());
        match value {
            Some(value) if is_shown(value) => shown.push_str(pair),
            Some(_) if is_named => shown.extend([name, "=", HIDDEN]),
            _ if pair.is_empty() || (is_named && value.is_none()) => shown.push_str(pair),
            _ => shown.push_str(HIDDEN),
        }
        shown.push_str(separator);
    }
    let fragment = if fragment.len() > 1 { "#***" } else { fragment };
    shown + fragment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreUrl;

    /// Calls `check` with malformed and well-formed URLs that have the password `SECRET` somewhere.
    fn each_url_with_a_secret(mut check: impl FnMut(&str)) {
        let urls = [
            "SECRET",
            "SECRET:",
            "SECRET://h",
            "SECRET@h",
            "u:SECRET@h",
            "//u:SECRET@h",
            ":SECRET@h",
            "redis",
            "redis:SECRET",
            "redis:u:SECRET@h",
            "redis:/u:SECRET@h",
            "redis:///u:SECRET@h",
            "redis://u:SECRET",
            "redis://:SECRET",
            "redis://u:SECRET/0",
            "redis://u:SECRET?db=1",
            "redis://u:SECRET#0",
            "redis://u:SECRET@",
            "redis://u:SECRET@/0",
            "redis://u:SECRET@:6379",
            "redis://SECRET@h",
            "redis://SECRET:@h",
            "redis://:SECRET@h",
            "redis://u:SECRET@h",
            "redis://u:SECRET@h:port",
            "redis://u:SECRET@h:99999",
            "redis://u:SECRET@h/foo",
            "redis://u:a@SECRET@h",
            "redis://u:a:SECRET@h",
            "redis://u:SECRET@a@h",
            "redis://u:a/SECRET@h",
            "redis://u:a?SECRET@h",
            "redis://u:a#SECRET@h",
            "redis://a#SECRET@h",
            "redis://SECRET#a@h",
            "redis://SECRET/a@h",
            "redis://SECRET?a@h",
            "redis://u:p@1/SECRET@h",
            "redis://u:p@SECRET/1@h",
            "redis://u:p@SECRET#1@h",
            "redis://u SECRET@h",
            "redis://h SECRET",
            "redis://u:SECRET@[::1",
            "redis://[SECRET]",
            "redis://[::1]SECRET",
            "redis://[::1]:SECRET",
            "redis://h:SECRET",
            "redis://h/SECRET",
            "redis://h/0/SECRET",
            "redis://h/0;SECRET",
            "redis://h/0&pass=SECRET",
            "redis://h?SECRET",
            "redis://h?SECRET=1",
            "redis://h?SECRET=1&SECRET=2",
            "redis://h?pass=SECRET",
            "redis://h?PASS=SECRET",
            "redis://h?%70ass=SECRET",
            "redis://h?password=SECRET",
            "redis://h?db=SECRET",
            "redis://h?db=1&db=SECRET",
            "redis://h/1?db=SECRET",
            "redis://h/SECRET?db=1",
            "redis://h?user=SECRET",
            "redis://h?auth=SECRET",
            "redis://h?prefix={SECRET}",
            "redis://h?prefix=a&SECRET",
            "redis://h?pass=a;SECRET",
            "redis://h?pass=a?SECRET",
            "redis://h?pass=a@SECRET",
            "redis://h#SECRET",
            "redis://h#pass=SECRET",
            "rediss://h?verify=SECRET",
            "rediss://h?verify=none&pass=SECRET",
            "rediss://h?ca_file=a@SECRET",
            "rediss://u:a?ca_file=SECRET@h",
            "rediss://h#insecureSECRET",
            "redis+unix:///s?pass=SECRET",
            "redis+unix:///s?pass=a#SECRET",
            "redis+unix:///s?pass=a&SECRET",
            "redis+unix:///s?pass=a&SECRET=b",
            "redis+unix:///s?pass=a=SECRET",
            "redis+unix:///s?pass=a@SECRET",
            "redis+unix:///s?pass=a?SECRET",
            "redis+unix:///s?pass=a/SECRET@b",
            "redis+unix:///s?user=SECRET",
            "redis+unix:///s?db=1;pass=SECRET",
            "redis+unix:///s;pass=SECRET",
            "redis+unix:///s&pass=SECRET?db=1",
            "redis+unix:///s=SECRET",
            "redis+unix:///u:SECRET@/s",
            "redis+unix://u:SECRET@/s",
            "redis+unix://SECRET@h/s",
            "redis+unix://u:SECRET/s",
            "redis+unix:s?pass=SECRET",
            "unix:///s?pass=%SECRET",
            "unix:///s?pass=SECRET%FF",
            "REDIS://u:SECRET@h",
            "Redis://u:SECRET",
            "redis ://u:SECRET@h",
            " redis://u:SECRET@h",
            "\"redis://u:SECRET@h\"",
            "http://u:SECRET@h",
            "http://h/SECRET",
            "mysql://SECRET@h",
            "postgres://h/SECRET",
            "sqlite3:SECRET@h",
            "sqlite:redis://u:SECRET@h",
            "sqlite:REDISS://SECRET@h",
            "sqlite:redis:u:SECRET@h",
            "sqlite:/a/redis:/u:SECRET@h",
            "sqlite://u:SECRET@h/x",
            "sqlite:///u:SECRET@h",
            "sqlite:u:SECRET@h",
            "sqlite:x.db?key=SECRET",
            "sqlite:/a/x.db?pass=SECRET",
            "SQLITE:redis://u:SECRET@h",
            "sqlite:file:x?key=SECRET",
            "redis.db?SECRET",
            "redis://u:SECRET\0@h",
            "redis://u:SECRET@h\n",
            "redis://u:\u{e4}SECRET@h",
        ];
        urls.iter().for_each(|url| check(url));
        // At every place of a URL with all parts but the ones that are shown: scheme, host, path of a socket, known parameters.
        for url in ["redis://u:pw@h:1/0?pass=x&db=1#f", "redis://u:p/w@h:1/0?db=1", "redis+unix:///s?pass=pw&db=1#f;x"]
        {
            let start = url.find("s?").map_or_else(|| url.find("pw").or(url.find("p/")).unwrap(), |place| place + 2);
            let is_host =
                |place| url.get(..place).is_some_and(|before| before.ends_with('@') || before.ends_with("@h"));
            for place in (start..=url.len()).filter(|place| !is_host(*place)) {
                let (before, after) = url.split_at(place);
                check(&format!("{before}SECRET{after}"));
            }
        }
    }

    #[test]
    fn no_text_of_a_store_has_a_secret() {
        let mut urls = 0;
        each_url_with_a_secret(|url| {
            urls += 1;
            let mut texts = vec![redacted(url)];
            for parsed in [StoreUrl::parse(url), StoreUrl::parse_cluster(&[url.to_owned()])] {
                texts.push(match parsed {
                    Ok(store) => format!("{store} {store:?}"),
                    Err(message) => message,
                });
            }
            for text in texts {
                assert!(!text.contains("SECRET"), "{url:?}: {text}");
            }
        });
        assert!(urls > 150, "{urls}");
    }

    #[test]
    fn what_is_harmless_is_shown() {
        for url in [
            "redis://localhost:6379/0",
            "redis://localhost",
            "redis://127.0.0.1:6379/",
            "rediss://[::1]:6379/15",
            "redis://b\u{fc}cher.example/1",
            "redis+unix:///run/redis.sock?db=1",
            "valkey://h?prefix=my-app:&db=3",
            "rediss://h?ca_file=/etc/my%20ca.pem",
            "rediss://h?verify=none",
            "sqlite:/a/b",
            "sqlite:a b@c.db",
            "sqlite:/a:b/c@d",
            "presence.sqlite3",
            "memory",
            "",
            "redis://h:99999",
            "http://host:80",
        ] {
            assert_eq!(redacted(url), url);
        }
        for (url, shown) in [
            ("redis://:secret@localhost/1", "redis://:***@localhost/1"),
            ("rediss://ann:se:cr@et@localhost?ca_file=/ca.pem", "rediss://ann:***@localhost?ca_file=/ca.pem"),
            ("redis://ann@localhost", "redis://***@localhost"),
            ("redis+unix:///s?db=1&user=ann&pass=secret", "redis+unix:///s?db=1&user=ann&pass=***"),
            ("redis://ann:secret/@host", "redis://***"),
            ("redis:ann:secret@host", "redis:***"),
            ("redis://h?PASSWORD=secret&db=1", "redis://h?PASSWORD=***&db=1"),
            ("redis://h?timeout=5&color=red", "redis://h?timeout=***&***"),
            ("redis+unix:///s?db=1;Pass=secret", "redis+unix:///s?db=1;Pass=***"),
            ("redis+unix:///s?pass=a#secret", "redis+unix:///s?pass=***#***"),
            ("redis+unix:///s&pass=secret?db=1", "redis+unix:///s&pass=***?db=1"),
            ("redis://ann:secret", "redis://ann:***"),
            ("redis://h/foo", "redis://h/***"),
            ("mysql://ann:secret@h", "mysql://***"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
