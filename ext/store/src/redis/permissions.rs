//! Whether the server's user may run what the store needs. A command that is denied in the middle of a script leaves half
//! of the script's work done, since Redis rolls nothing back: each retry would append an event once more.

use redis::{Cmd, RedisError, Value};

use super::connection::is_of_connection;
use super::errors::{README, acl, connect_error, is_key_denied, key_advice};
use super::scripts::{Keys, members};
use super::url::ServerUrls;
use crate::error::StoreError;

/// The commands that a member needs: those of the scripts and of the client. KEY is a key that does not exist. None of them
/// changes anything: HSET and HINCRBY would, so their arguments are wrong, which a server checks after the permission.
/// DEL is the last, in case something that is not quite a Redis wrote.
const COMMANDS: [&str; 27] = [
    "EVAL return 1 KEY",
    "EVALSHA NOSCRIPT 1 KEY",
    "TIME",
    "EXISTS KEY",
    "EXPIRE KEY 1",
    "TTL KEY",
    "HGET KEY field",
    "HSET KEY field value field",
    "HMGET KEY field",
    "HDEL KEY field",
    "HEXISTS KEY field",
    "HGETALL KEY",
    "HINCRBY KEY field NONE",
    "HSCAN KEY 0",
    "ZADD KEY XX 1 member",
    "ZREM KEY member",
    "ZRANGE KEY 0 0",
    "ZMSCORE KEY member",
    "ZCARD KEY",
    "ZREMRANGEBYSCORE KEY 0 0",
    "ZUNIONSTORE KEY 1 KEY",
    "ZSCAN KEY 0",
    "XADD KEY NOMKSTREAM 1-0 field value",
    "XDEL KEY 1-0",
    "XLEN KEY",
    "XRANGE KEY - + COUNT 1",
    "DEL KEY",
];

/// Also needed on a cluster, while a slot is moved. The flag that it sets is over with the next command.
const CLUSTER_COMMAND: &str = "ASKING";

/// Returns the commands that [`check`] takes the replies of. In a cluster each of its servers can answer them: it checks
/// the permission before it says that another one has the key.
pub(super) fn commands(servers: &ServerUrls, namespace: &str) -> Vec<Cmd> {
    let keys = Keys::new(servers.prefix(), namespace, 0);
    let members = members(servers.prefix(), namespace);
    // Of no script, so that only the permission for the keys counts.
    let of_key = |key: &str| command("EVALSHA NOSCRIPT 1 KEY", key);
    let mut commands: Vec<Cmd> = keys.all().into_iter().chain([members.as_str()]).map(of_key).collect();
    let of_cluster = servers.is_cluster().then_some(CLUSTER_COMMAND);
    commands.extend(of_cluster.into_iter().chain(COMMANDS).map(|text| command(text, &keys.probe)));
    commands
}

/// Builds a command from its text.
fn command(text: &str, key: &str) -> Cmd {
    let mut command = Cmd::new();
    text.split(' ').for_each(|word| {
        command.arg(if word == "KEY" { key } else { word });
    });
    command
}

/// Checks the replies to [`commands`]. Fails with all commands that the user may not run, or the first key that it may not
/// use. Any other error that a server replies is no matter.
pub(super) fn check(
    server: &ServerUrls,
    commands: &[Cmd],
    replies: impl IntoIterator<Item = Result<Value, RedisError>>,
) -> Result<(), StoreError> {
    let (mut denied, mut denied_key) = (Vec::new(), None);
    for (command, reply) in commands.iter().zip(replies) {
        let Err(error) = reply else { continue };
        if is_of_connection(&error) && error.code() != Some("READONLY") {
            return Err(connect_error(server, &error));
        }
        if error.code() != Some("NOPERM") {
            continue;
        }
        let words: Vec<String> = command.args_iter().filter_map(word).collect();
        if is_key_denied(&error.to_string()) {
            denied_key = denied_key.or_else(|| words.into_iter().find(|word| word.contains("{om:")));
        } else if let Some(name) = words.first().map(|name| name.to_lowercase())
            && !denied.contains(&name)
        {
            denied.push(name);
        }
    }
    let rules: Vec<String> = denied.iter().map(|name| format!("+{name}")).collect();
    if !denied.is_empty() {
        return Err(StoreError::Misconfigured(format!(
            "{server}: its user may not run {}. Allow that: {}. {README}",
            denied.join(", "),
            acl(server, &rules.join(" ")),
        )));
    }
    match denied_key {
        Some(key) => Err(StoreError::Misconfigured(format!(
            "{server}: its user may not use the key {key}. {}",
            key_advice(server)
        ))),
        None => Ok(()),
    }
}

fn word(argument: redis::Arg<&[u8]>) -> Option<String> {
    match argument {
        redis::Arg::Simple(word) => String::from_utf8(word.to_vec()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Those that members can do without: see README.md.
    const OPTIONAL: [&str; 3] = ["info", "scan", "unlink"];

    /// Returns the lines of all files of this folder with this ending, but this one.
    fn lines(ending: &str) -> Vec<String> {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/redis")).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let paths = paths.filter(|path| path.to_str().unwrap().ends_with(ending) && !path.ends_with("permissions.rs"));
        paths
            .flat_map(|path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// Returns the names of commands that are between quotes behind one of the beginnings.
    fn names(lines: &[String], beginnings: &[&str], quote: char) -> BTreeSet<String> {
        let calls = lines.iter().flat_map(|line| {
            let calls = beginnings.iter().flat_map(|beginning| line.split(beginning).skip(1));
            calls.filter_map(|call| call.split(quote).nth(1))
        });
        calls.filter(|name| name.chars().all(|letter| letter.is_ascii_uppercase())).map(str::to_lowercase).collect()
    }

    /// Returns the commands of the README's line.
    fn documented() -> BTreeSet<String> {
        let readme = include_str!("../../../../README.md");
        let line = readme.lines().find(|line| line.starts_with("ACL SETUSER ")).unwrap();
        line.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_commands_that_are_used_documented_and_checked_are_the_same() {
        let (lua, rust) = (lines(".lua"), lines(".rs"));
        // Any other call without a name would not be found here.
        let calls = lua.iter().flat_map(|line| line.split("redis.call(").skip(1));
        let unnamed: Vec<&str> = calls.filter(|call| !call.starts_with('\'')).collect();
        assert_eq!(unnamed, ["...) or {}", "command, key, unpack(list))"]);
        assert!(lua.iter().all(|line| !line.contains("pcall")));
        let unnamed = rust.iter().filter(|line| line.contains("cmd(name)") || line.contains("Cmd::new"));
        assert_eq!(unnamed.count(), 3, "of `Call::command`, `command` in operator.rs, and `scan` in snapshot.rs");

        let mut used = names(&lua, &["call(", "call_unless_empty(", "call_if_exists("], '\'');
        let of_client = names(&rust, &["cmd(", "command(", "scan("], '"');
        used.extend(of_client.difference(&set(&["hello", "cluster", "asking"])).cloned());
        // The client library sends it for a database other than 0.
        used.insert("select".to_owned());
        assert_eq!(used, documented());

        let checked: BTreeSet<String> =
            COMMANDS.iter().filter_map(|text| text.split(' ').next()).map(str::to_lowercase).collect();
        used.remove("select");
        assert_eq!(checked, used.difference(&set(&OPTIONAL)).cloned().collect());
    }
}
